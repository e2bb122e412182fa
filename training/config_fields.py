"""Fields of a configuration's dataclass, read and written as plain values: numbers, texts, true and false."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

PlainValue = float | int | str | bool
Config = TypeVar("Config")

NONE = "None"
"""The text that stands for None, where a field takes no text."""
_RULES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text in quotation marks",
    Path: "a text in quotation marks",
    NoneType: f'"{NONE}"',
}


def field_types(config_class: Any) -> Mapping[str, Any]:
    """The type of each field; a field of a nested dataclass is named `outer.inner`."""
    return _field_types(config_class)


@cache
def _field_types(config_class: Any) -> Mapping[str, Any]:
    """A cache, because reading the types of a class takes longer than making a configuration from them."""
    types: dict[str, Any] = {}
    hints = get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if field.init:
            inner = _is_dataclass(hints[field.name])
            names = _field_types(hints[field.name]) if inner else {"": hints[field.name]}
            types |= {f"{field.name}.{name}" if name else field.name: hint for name, hint in names.items()}
    return types


def is_plain(field_type: Any) -> bool:
    """Whether a field can be read from a plain value."""
    return any(_rule(member) is not None for member in _members(field_type))


def read_value(field_type: Any, value: PlainValue) -> Any:
    """Read a plain value as the type of a field; a ValueError states the rule of the type.

    An enum is given by the name of a member, or by its value. The text `None` is None where the type has it and takes
    no text.
    """
    if field_type is Any:
        return value
    enums = [member for member in _members(field_type) if isinstance(member, type) and issubclass(member, Enum)]
    for enum in enums:
        if isinstance(value, str) and value in enum.__members__:
            return enum[value]
    if not is_plain(field_type):
        raise ValueError(f"cannot be given: its type is {field_type}")
    is_none = isinstance(value, str) and value.lower() == NONE.lower()
    for candidate in (value, None) if is_none else (value,):
        with suppress(ValidationError):
            return _adapter(field_type).validate_json(json.dumps(candidate), strict=True)
    raise ValueError(f"must be {describe_type(field_type)}")


def read_text(field_type: Any, text: str) -> PlainValue:
    """Read a text from a command line as a plain value for a field; a ValueError states the rule of the type."""
    for candidate in (guess_value(text), text):
        try:
            read_value(field_type, candidate)
        except ValueError as error:
            refusal = error
        else:
            return normalize(field_type, candidate)
    raise refusal


def guess_value(text: str) -> PlainValue:
    """The number, or true or false, that a text shows; otherwise the text itself."""
    if text in ("true", "false"):
        return text == "true"
    for number_type in (int, float):
        try:
            number = number_type(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


def normalize(field_type: Any, value: PlainValue) -> PlainValue:
    """The plain value as `plain` writes it once it was read: 1 becomes 1.0 for a float, the value of an enum its name.

    A ValueError states the rule of the type.
    """
    return plain(read_value(field_type, value))


def plain(value: Any) -> PlainValue:
    """A value of a field as a plain value; `read_value` reads it back."""
    match value:
        case Enum():
            return value.name
        case None:
            return NONE
        case bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def plain_fields(config: Any) -> dict[str, PlainValue]:
    """The fields of a configuration that can be given as plain values."""
    values = {}
    for name, field_type in field_types(type(config)).items():
        if is_plain(field_type):
            value = config
            for part in name.split("."):
                value = getattr(value, part)
            values[name] = plain(value)
    return values


def make_config(config_class: type[Config], values: Mapping[str, PlainValue]) -> Config:
    """A configuration with these plain values, and otherwise the defaults.

    Raises:
        ValueError: A name is unknown, a value is not of the type of its field, or the class refuses it.
    """
    return config_class(**_arguments(config_class, values))


def _arguments(config_class: type[Any], values: Mapping[str, PlainValue]) -> dict[str, Any]:
    types = field_types(config_class)
    arguments: dict[str, Any] = {}
    nested: dict[str, dict[str, PlainValue]] = {}
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"{name} is unknown")
        outer, dot, inner = name.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
            continue
        try:
            arguments[name] = read_value(types[name], value)
        except ValueError as error:
            raise ValueError(f"{name} {error}, got {value}") from None
    for outer, inner_values in nested.items():
        default = getattr(config_class(), outer)
        arguments[outer] = dataclasses.replace(default, **_arguments(type(default), inner_values))
    return arguments


def describe_type(field_type: Any) -> str:
    """What a value of a type must be, for a sentence."""
    return " or ".join(dict.fromkeys(filter(None, map(_rule, _members(field_type)))))


@cache
def _adapter(field_type: Any) -> TypeAdapter[Any]:
    """Reads the members of a type that have plain values; pydantic knows no others, such as classes of the user."""
    members: Any = Union[tuple(filter(is_plain, _members(field_type)))]  # noqa: UP007 (they are known only now)
    return TypeAdapter(members)


def _is_dataclass(field_type: Any) -> bool:
    return isinstance(field_type, type) and dataclasses.is_dataclass(field_type)


def _members(field_type: Any) -> Iterator[Any]:
    """The types in a union, or the type itself."""
    if get_origin(field_type) in (Union, UnionType):
        for member in get_args(field_type):
            yield from _members(member)
    else:
        yield getattr(field_type, "__supertype__", field_type)


def _rule(member: Any) -> str | None:
    """What a value of a type, which is not a union, must be; None if the type has no plain values."""
    if get_origin(member) is Literal:
        return f"one of {', '.join(map(str, get_args(member)))}"
    if isinstance(member, type) and issubclass(member, Enum):
        return f"one of {', '.join(member.__members__)}"
    return _RULES.get(member)
