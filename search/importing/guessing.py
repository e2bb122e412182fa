"""Guesses the ranges of hyperparameters from the values that trials had, where the source does not name them."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from search.space.distributions import LARGEST_INTEGER, MOST_VALUES, HyperparameterValue

MOST_ORDERED = 10
"""So many different numbers, if each has two trials on average, are a list of numbers; more are a range."""
DECADES = 2
"""A range of numbers above 0 over so many decades is logarithmic, if its values are more even so."""
MISSING = ("", "nan", "na", "n/a", "null")
"""Cells without a value, in lower case; among numbers `none` is one, too."""

Convert = Callable[[Any], HyperparameterValue]


def guess(values: Sequence[Any]) -> tuple[dict[str, Any], Convert] | None:
    """The range of a hyperparameter that was given these values, and how each of them becomes a value of the range.

    Args:
        values: One for each trial that has the hyperparameter: numbers, texts, true or false.

    Returns:
        The range in the form of a search space file; None if it is not one of a hyperparameter, because nearly every
        trial has another text.
    """
    booleans = [_boolean(value) for value in values]
    if all(one is not None for one in booleans):
        return _choices(values, lambda value: bool(_boolean(value)))
    numbers = [_number(value) for value in values]
    if all(number is not None for number in numbers):
        known = [number for number in numbers if number is not None]
        if math.isfinite(max(known) - min(known)):
            return _guess_numbers(known)
    texts = {_text(value) for value in values}
    if len(texts) > MOST_VALUES or (len(texts) > MOST_ORDERED and len(texts) > len(values) / 2):
        return None
    return _choices(values, _text)


def is_missing(value: Any, others: Iterable[Any] = ()) -> bool:
    """Whether a cell has no value; `none` is one among texts, and no number among numbers."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if not isinstance(value, str):
        return False
    text = value.strip().lower()
    return text in MISSING or (text == "none" and all(is_missing(one) or _number(one) is not None for one in others))


def with_values(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns of a table with None where a cell has no value."""
    cleaned = {}
    for name, cells in columns.items():
        others = [cell for cell in cells if not (isinstance(cell, str) and cell.strip().lower() == "none")]
        cleaned[name] = [None if is_missing(cell, others or ["text"]) else cell for cell in cells]
    return cleaned


def _guess_numbers(numbers: Sequence[float]) -> tuple[dict[str, Any], Convert]:
    is_whole = all(number == round(number) and abs(number) <= LARGEST_INTEGER for number in numbers)
    kind: Callable[[float], float] = int if is_whole else float
    different = sorted({kind(number) for number in numbers})
    low, high = different[0], different[-1]

    def convert(value: Any) -> HyperparameterValue:
        number = _number(value)
        assert number is not None, "all values are numbers"
        return kind(number)

    if low == high:
        return {"value": low}, convert
    if len(different) <= MOST_ORDERED and len(numbers) >= 2 * len(different):
        return {"ordered": different}, convert
    return {"low": low, "high": high, "log": _is_logarithmic(numbers)}, convert


def _is_logarithmic(numbers: Sequence[float]) -> bool:
    """Whether numbers span decades, and their median lies nearer to the middle of the range by ratio than by size."""
    low, median, high = min(numbers), sorted(numbers)[len(numbers) // 2], max(numbers)
    if low <= 0 or high / low < 10**DECADES or not math.isfinite(high / low):
        return False
    by_ratio, by_size = math.log(median / low) / math.log(high / low), (median - low) / (high - low)
    return abs(by_ratio - 0.5) < abs(by_size - 0.5)


def _choices(values: Sequence[Any], convert: Convert) -> tuple[dict[str, Any], Convert]:
    choices = sorted({convert(value) for value in values}, key=str)
    return ({"value": choices[0]} if len(choices) == 1 else {"choices": choices}), convert


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and "_" not in str(value) else None


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value, default=str)
