"""Reads plain data, as JSON holds it, into dataclasses: whoever wrote it, names and types are what the fields say."""

import reprlib
import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Data = TypeVar("Data")


def from_plain(dataclass: type[Data], values: object) -> Data:
    """Make an object of a dataclass from what `asdict` of another one gave to JSON.

    Raises:
        ValueError: A field is missing, unknown or of another type, or the class does not accept its value.
    """
    values = check_fields(dataclass, values)
    required = {field.name for field in fields(dataclass) if _is_required(field)}  # type: ignore[arg-type]
    if not required <= values.keys():
        raise ValueError(f"{dataclass.__name__} lacks {', '.join(sorted(required - values.keys()))}")
    return dataclass(**values)


def check_fields(dataclass: type, values: object) -> dict[str, Any]:
    """Refuse values of which one has not the name and the type of a field; returns them.

    Raises:
        ValueError: A field is unknown or of another type.
    """
    types = get_type_hints(dataclass)
    checked: dict[str, Any] = check_type(dataclass.__name__, values, dict[str, Any])
    for name, value in checked.items():
        if name not in types:
            raise ValueError(f"{dataclass.__name__} has no {reprlib.repr(name)}")
        check_type(name, value, types[name])
    return checked


def check_type(name: str, value: object, wanted: Any) -> Any:
    """Refuse a value, called `name`, that is not of a type; returns it.

    Raises:
        ValueError: It is of another type, or a number that is not finite.
    """
    if not _is(value, wanted):
        raise ValueError(f"{name} cannot be {reprlib.repr(value)}")
    return value


def _is(value: object, wanted: Any) -> bool:
    kind, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if kind in (Union, UnionType):
        return any(_is(value, member) for member in arguments)
    if kind is Literal:
        return isinstance(value, str) and value in arguments
    if kind is list and isinstance(value, list):
        return all(_is(member, arguments[0]) for member in value)
    if kind is dict and isinstance(value, dict):
        return all(_is(key, arguments[0]) and _is(value[key], arguments[1]) for key in value)
    if kind is float and isinstance(value, int | float):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    known_as = {Any: object, Path: Path | str}.get(kind, kind)
    return isinstance(value, known_as) and not (kind is int and isinstance(value, bool))


def _is_required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING
