"""One hyperparameter's range: a range of numbers, ordered choices, or choices without an order."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from training.json_data import check_type

HyperparameterValue = float | int | str | bool

MOST_VALUES = 1000
"""The values of a range of whole numbers are listed only if there are at most this number of them."""


LARGEST_INTEGER = 2**53
"""Optuna stores numbers as floats, which hold whole numbers up to this one exactly."""

SMALLEST_DEVIATION = 1e-8
"""Part of a step by which a value may miss its place, because steps like 0.1 are rounded."""


@dataclass(frozen=True)
class OrderedChoice:
    """Ascending numbers to choose from, compared by ratio if all are above 0.

    To Optuna it is a range of numbers, so that the sampler knows 64 to lie between 32 and 128 (a categorical choice has
    no order); each sample is then moved to the nearest member. The range reaches half a step beyond the bounds, which
    makes these as likely as the members between them. Where a member is not above 0, no scale fits 0, 1e-6 and 1e-2
    alike: then `SpaceEncoding` samples the place of the member in the list.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse values that have no order."""
        ascending = all(low < high for low, high in pairwise(self.values))
        if len(self.values) < 2 or not ascending:
            raise ValueError(f"ordered must be two or more ascending numbers, got {list(self.values)}")
        low, high = self._ends()
        if not math.isfinite(high - low):
            raise ValueError(f"the numbers of ordered lie too far apart: {self.values[0]}, {self.values[-1]}")

    @property
    def log(self) -> bool:
        """Whether members are compared by ratio."""
        return self.values[0] > 0

    def _ends(self) -> tuple[float, float]:
        """The bounds of the range, half a step beyond the first and the last member."""
        first, second, *_ = self.values
        *_, before_last, last = self.values
        if self.log:
            return first / math.sqrt(second / first), last * math.sqrt(last / before_last)
        return first - (second - first) / 2, last + (last - before_last) / 2

    @property
    def optuna_distribution(self) -> IntDistribution | FloatDistribution:
        """The distribution that Optuna's sampler samples from."""
        low, high = self._ends()
        if not all(isinstance(value, int) for value in self.values):
            return FloatDistribution(low, high, log=self.log)
        smallest = max(1, math.ceil(low)) if self.log else math.ceil(low)
        return IntDistribution(smallest, math.floor(high), log=self.log)

    def snap(self, sample: float) -> float:
        """The member nearest to a sample."""
        if self.log:
            return min(self.values, key=lambda value: abs(math.log(value / sample)))
        return min(self.values, key=lambda value: abs(value - sample))


Range = FloatDistribution | IntDistribution | OrderedChoice
Distribution = Range | CategoricalDistribution


def optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """The distribution that Optuna's sampler samples from."""
    return distribution.optuna_distribution if isinstance(distribution, OrderedChoice) else distribution


def snap(distribution: Distribution, sample: Any) -> Any:
    """The value of the distribution that is nearest to a sample from `optuna_distribution`.

    A value of a range with steps is computed in decimals: three steps of 0.1 are 0.3, not 0.30000000000000004.
    """
    match distribution:
        case OrderedChoice():
            return distribution.snap(sample)
        case CategoricalDistribution() | FloatDistribution(step=None):
            return sample
        case _:
            low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
            steps = round((Decimal(float(sample)) - low) / step)
            return type(distribution.low)(low + steps * step)


def values_of(distribution: Distribution) -> tuple[HyperparameterValue, ...] | None:
    """All values of a distribution, or None if they are too many to be listed."""
    match distribution:
        case OrderedChoice():
            return distribution.values
        case CategoricalDistribution():
            return tuple(distribution.choices)  # type: ignore[arg-type]
        case IntDistribution() if (distribution.high - distribution.low) // distribution.step < MOST_VALUES:
            return tuple(range(distribution.low, distribution.high + 1, distribution.step))
        case _:
            return None


def contains_value(distribution: Distribution, value: HyperparameterValue) -> bool:
    """Whether a value lies in a range, or is among the choices."""
    match distribution:
        case FloatDistribution() | IntDistribution():
            if isinstance(value, str | bool) or not distribution.low <= value <= distribution.high:
                return False
            steps = (value - distribution.low) / distribution.step if distribution.step else 0
            return abs(steps - round(steps)) < SMALLEST_DEVIATION
        case _:
            choices = values_of(distribution) or ()
            return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)


def clip(distribution: Distribution, value: HyperparameterValue | None) -> HyperparameterValue:
    """The value of a distribution that is closest to another one; the first choice if it is none of the choices."""
    if value is not None and contains_value(distribution, value):
        if isinstance(distribution, FloatDistribution | IntDistribution):
            return type(distribution.low)(value)  # 1 is 1.0 in a range of such numbers
        return value
    if isinstance(distribution, CategoricalDistribution):
        return values_of(distribution)[0]  # type: ignore[index]
    low, high = bounds(distribution)
    inside = min(max(low, float(value)), high) if isinstance(value, int | float) else low
    return snap(distribution, inside)  # type: ignore[no-any-return]


def to_unit(distribution: Distribution, value: Any) -> float:
    """The position of a value in its range, in [0, 1]; choices are at equal distances, in their own order."""
    match distribution:
        case OrderedChoice() | CategoricalDistribution():
            choices = values_of(distribution) or ()
            return choices.index(value) / max(1, len(choices) - 1)
        case _ if distribution.log:
            return math.log(value / distribution.low) / math.log(distribution.high / distribution.low)
        case _:
            return float((value - distribution.low) / (distribution.high - distribution.low))


def from_unit(distribution: Range, unit_value: float) -> float:
    """The number at a position in [0, 1] of a range; it may lie between two values of an ordered choice or integers."""
    low, high = bounds(distribution)
    return float(low * (high / low) ** unit_value if distribution.log else low + unit_value * (high - low))


def bounds(distribution: Range) -> tuple[float, float]:
    """The lowest and the highest value."""
    if isinstance(distribution, OrderedChoice):
        return distribution.values[0], distribution.values[-1]
    return distribution.low, distribution.high


def is_log(distribution: Distribution) -> bool:
    """Whether values are compared by ratio."""
    return not isinstance(distribution, CategoricalDistribution) and distribution.log


def union(distributions: Sequence[Distribution]) -> Distribution:
    """The smallest distribution with all values of others; several must be ranges of the same type of number."""
    first, *others = distributions
    if not others:
        return first
    lows, highs = zip(*(bounds(distribution) for distribution in distributions), strict=True)  # type: ignore[arg-type]
    cls = IntDistribution if all(isinstance(bound, int) for bound in (*lows, *highs)) else FloatDistribution
    return cls(min(lows), max(highs), log=all(map(is_log, distributions)))


def describe_distribution(distribution: Distribution) -> dict[str, Any]:
    """A distribution as plain data, in the form of a search space file."""
    match distribution:
        case OrderedChoice():
            return {"ordered": list(distribution.values)}
        case CategoricalDistribution():
            return {"choices": list(distribution.choices)}
        case _:
            described: dict[str, Any] = {"low": distribution.low, "high": distribution.high}
            if distribution.step and (isinstance(distribution, FloatDistribution) or distribution.step != 1):
                described["step"] = distribution.step
            return described | {"log": distribution.log}


def describe_range(described: dict[str, Any]) -> str:
    """A distribution that `describe_distribution` described, as text."""
    match described:
        case {"value": value}:
            return str(value)
        case {"ordered": values} | {"choices": values}:
            return ", ".join(map(str, values))
        case _:
            step = f" in steps of {described['step']}" if "step" in described else ""
            return f"{described['low']} to {described['high']}{step}" + (" (log)" if described["log"] else "")


def parse_distribution(described: dict[str, Any]) -> Distribution:
    """The distribution that `describe_distribution` described; a ValueError says what is wrong."""
    match described:
        case {"ordered": [*values], **rest} if not rest:
            _check_numbers(values)
            is_whole = all(isinstance(value, int) for value in values)
            return OrderedChoice(tuple(values if is_whole else map(float, values)))
        case {"choices": [*values], **rest} if not rest:
            for value in values:
                check_type("choices", value, float | str | bool)
            if len(values) > MOST_VALUES:
                raise ValueError(f"choices must be at most {MOST_VALUES} values, got {len(values)}")
            if not values or len(set(map(repr, values))) < len(values):
                raise ValueError(f"choices must be one or more different values, got {values}")
            for one, other in combinations(values, 2):
                if one == other or str(one) == str(other):
                    alike = f"{json.dumps(one)} and {json.dumps(other)}"
                    raise ValueError(f"choices must differ in value and as text, but {alike} do not")
            return CategoricalDistribution(values)
        case {"low": low, "high": high, **rest} if rest.keys() <= {"log", "step"}:
            log, step = check_type("log", rest.get("log", False), bool), rest.get("step")
            for key, value in (("low", low), ("high", high), ("step", step or 0)):
                check_type(key, value, float)
            _check_numbers([low, high])
            is_integer = all(isinstance(number, int) for number in (low, high, step or 0))
            _check_range(low, high, log=log, step=step)
            if step is not None:
                first, width = Decimal(str(low)), Decimal(str(step))
                last = first + (Decimal(str(high)) - first) // width * width
                high = int(last) if is_integer else float(last)
            if is_integer:
                return IntDistribution(low, high, log=log, step=step or 1)
            return FloatDistribution(low, high, log=log, step=step)
    raise ValueError(
        f"must have low and high (with log or step), or choices, or ordered, or value, got {', '.join(described)}"
    )


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    if low >= high:
        raise ValueError(f"low must be less than high, got {low} and {high}; value = {low} fixes it")
    if log and low <= 0:
        raise ValueError(f"a log range must lie above 0, got low {low}")
    if not math.isfinite(high / low if log else high - low):
        raise ValueError(f"low and high lie too far apart: {low} and {high}")
    if step is not None and log:
        raise ValueError("step and log cannot be combined; list the values with ordered = [...] instead")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"step must be > 0 and at most high - low, {high - low}, got {step}")
    if step is not None and (high - low) / step > LARGEST_INTEGER:
        raise ValueError(f"step {step} is too small for a range from {low} to {high}")


def _check_numbers(numbers: Sequence[object]) -> None:
    for number in numbers:
        check_type("a number", number, int | float)
        if isinstance(number, int) and abs(number) > LARGEST_INTEGER:
            raise ValueError(f"a whole number must lie between -2**53 and 2**53, got {number}")
