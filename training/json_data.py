"""Reads JSON into dataclasses, with strict checks of names, types and ranges."""

import json
import math
import reprlib
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Data = TypeVar("Data")


def from_json(data_type: type[Data], values: object) -> Data:
    """Make an object from plain data.

    Args:
        data_type: A dataclass, whose own checks run too, or another type for JSON.
        values: Numbers, texts, lists and dictionaries, as `json.loads` returns them.

    Raises:
        ValueError: A field is missing, unknown or of another type, a number is not finite, or the class refuses it.
    """
    try:
        content = json.dumps(values, allow_nan=False)
        data: Data = _adapter(data_type).validate_json(content, strict=True, extra="forbid")  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None
    return data


def check_type(name: str, value: object, data_type: Any) -> Any:
    """Return a value of a type for JSON unchanged; raise a ValueError for another type or an infinite number."""
    try:
        _adapter(data_type).validate_python(value, strict=True)
    except ValidationError:
        raise ValueError(f"{name} cannot be {reprlib.repr(value)}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} cannot be {value}")
    return value


@cache
def _adapter(data_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(data_type)


def _sentence(error: ValidationError) -> str:
    """The first error as a sentence."""
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
