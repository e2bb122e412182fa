"""The ranges of hyperparameters as Optuna stores them, of every version from 2 to 5."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from search.space.distributions import LARGEST_INTEGER, HyperparameterValue
from training.config_fields import NONE

_INTEGERS = ("IntDistribution", "IntUniformDistribution", "IntLogUniformDistribution")
_LOGARITHMIC = ("LogUniformDistribution", "IntLogUniformDistribution")
Choice = Callable[[Any], HyperparameterValue]


def choice_of(distributions: Sequence[dict[str, Any]]) -> Choice:
    """A function that makes a choice of Optuna one of a search space: a number, a text, true or false.

    Where two choices would be equal as text, like 1 and "1", they are written as JSON.
    """
    choices = [choice for one in distributions for choice in one["attributes"].get("choices", ())]
    different = {json.dumps(choice) for choice in choices}
    texts = {str(_plain(json.loads(choice))) for choice in different}
    if len(texts) < len(different) or len({repr(_plain(json.loads(one))) for one in different}) < len(different):
        return json.dumps
    numbers = {float(choice) for choice in choices if isinstance(choice, bool | int | float)}
    if len(numbers) < sum(isinstance(json.loads(choice), bool | int | float) for choice in different):
        return json.dumps  # 1 and true are equal
    return _plain


def _plain(choice: Any) -> HyperparameterValue:
    if choice is None:
        return NONE
    return choice if isinstance(choice, bool | int | float | str) else json.dumps(choice)


def joined_range(distributions: Sequence[dict[str, Any]], choice: Choice) -> dict[str, Any]:
    """The range of a hyperparameter that holds all its distributions, in the form of a search space file.

    Args:
        distributions: As Optuna stores them; a study may change the range of a hyperparameter.
        choice: What `choice_of` returned for them.
    """
    if any("choices" in one["attributes"] for one in distributions):
        choices = [choice(value) for one in distributions for value in one["attributes"]["choices"]]
        return {"choices": list({repr(value): value for value in choices}.values())}
    attributes = [one["attributes"] for one in distributions]
    low, high = min(one["low"] for one in attributes), max(one["high"] for one in attributes)
    is_log = all(one["name"] in _LOGARITHMIC or one["attributes"].get("log") for one in distributions)
    is_whole = all(one["name"] in _INTEGERS for one in distributions) and max(abs(low), abs(high)) <= LARGEST_INTEGER
    steps = {one.get("step", one.get("q")) or 0 for one in attributes}
    step = steps.pop() if len(steps) == 1 and len({one["low"] for one in attributes}) == 1 and not is_log else 0
    number = int if is_whole else float
    described: dict[str, Any] = {"low": number(low), "high": number(high), "log": bool(is_log)}
    return described | ({"step": number(step)} if step and not (is_whole and step == 1) else {})


def number_of(described: dict[str, Any], value: float) -> HyperparameterValue:
    """A stored number as a value of its range: Optuna stores whole numbers as floats, and rounded steps as they are."""
    from decimal import Decimal

    if isinstance(described["low"], int):
        return round(value)
    if "step" not in described:
        return float(value)
    low, step = Decimal(str(described["low"])), Decimal(str(described["step"]))
    return float(low + round((Decimal(float(value)) - low) / step) * step)
