"""Reads JSON into dataclasses: whoever wrote it, names, types and ranges are what the dataclasses say."""

import json
import math
import reprlib
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Data = TypeVar("Data")


def from_json(kind: type[Data], values: object) -> Data:
    """Make an object from what `json.loads` returned.

    Args:
        kind: A dataclass, or another type that JSON can hold; its own checks run too.
        values: Numbers, texts, lists and dictionaries.

    Raises:
        ValueError: A field is missing, unknown or of another type, a number is not finite, or the class refuses it.
    """
    try:
        content = json.dumps(values, allow_nan=False)
        data: Data = _adapter(kind).validate_json(content, strict=True, extra="forbid")  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None
    return data


def check_type(name: str, value: object, kind: Any) -> Any:
    """Return a value of a type for JSON unchanged; raise a ValueError for another type or an infinite number."""
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError:
        raise ValueError(f"{name} cannot be {reprlib.repr(value)}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} cannot be {value}")
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _sentence(error: ValidationError) -> str:
    """The first of the errors, in words."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    match first["type"]:
        case "value_error":
            return str(first["ctx"]["error"])
        case "missing":
            return f"{where} is missing"
        case "unexpected_keyword_argument":
            return f"{where} is unknown"
        case _:
            return f"{where or 'it'} cannot be {reprlib.repr(first['input'])}"
