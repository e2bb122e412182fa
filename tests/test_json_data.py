"""JSON into dataclasses: names, types and ranges are what the classes say."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from training.json_data import check_type, from_json


@dataclass(frozen=True, kw_only=True)
class Part:
    size: float
    count: int = 1

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError(f"size must be > 0, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class Whole:
    parts: list[Part]
    names: dict[str, int | str | bool]


def test_nested_dataclasses_are_read() -> None:
    values = {"parts": [{"size": 1.5}, {"size": 2, "count": 3}], "names": {"a": 1, "b": "1", "c": True}}
    whole = from_json(Whole, values)
    assert whole == Whole(parts=[Part(size=1.5), Part(size=2.0, count=3)], names={"a": 1, "b": "1", "c": True})
    assert whole.names["c"] is True


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"names": {}}, "parts is missing"),
        ({"parts": [], "names": {}, "more": 1}, "more is unknown"),
        ({"parts": [{"size": "1"}], "names": {}}, "parts.0.size cannot be '1'"),
        ({"parts": [{"size": 1, "count": 1.5}], "names": {}}, "parts.0.count cannot be 1.5"),
        ({"parts": [{"size": 1, "count": True}], "names": {}}, "parts.0.count cannot be True"),
        ({"parts": [{"size": -1}], "names": {}}, "size must be > 0, got -1.0"),
        ({"parts": [{"size": math.nan}], "names": {}}, "not JSON compliant"),
        ({"parts": [{"size": math.inf}], "names": {}}, "not JSON compliant"),
        ([], r"it cannot be \[\]"),
    ],
)
def test_other_names_types_and_values_are_refused_in_a_sentence(values: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_json(Whole, values)


def test_value_is_checked_and_stays_as_it_is() -> None:
    values = [1, 2.5]
    assert check_type("values", values, list[int | float]) is values
    for wrong in ([1, "2"], [1, True], None, math.nan):
        with pytest.raises(ValueError, match="values cannot be"):
            check_type("values", wrong, list[int | float])
