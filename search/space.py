"""The search space: what is searched, in which range."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from training.config import TrialConfig
from training.plain_data import check_type, from_plain

HyperparameterValue = float | int | str


@dataclass(frozen=True)
class OrderedChoice:
    """Ascending whole numbers to choose from, compared on a log scale.

    To Optuna it is a log-uniform integer, so that the sampler knows 64 to lie between 32 and 128 (a categorical choice
    has no order); each proposal then goes to the nearest member. The range reaches half a step beyond the ends, which
    makes the ends as likely as the members between them.
    """

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in pairwise(self.values))
        if len(self.values) < 2 or self.values[0] < 1 or not ascending:
            raise ValueError(f"an ordered choice needs two or more ascending whole numbers >= 1, got {self.values}")

    @property
    def distribution(self) -> IntDistribution:
        """What the sampler draws from before the draw goes to the nearest member."""
        first, second, *_ = self.values
        *_, before_last, last = self.values
        low = math.ceil(first / math.sqrt(second / first))
        high = math.floor(last * math.sqrt(last / before_last))
        return IntDistribution(max(1, low), high, log=True)

    def nearest(self, draw: float) -> int:
        """The member nearest to a draw, by ratio."""
        return min(self.values, key=lambda value: abs(math.log(value / draw)))


Dimension = FloatDistribution | CategoricalDistribution | OrderedChoice
SearchSpace = dict[str, Dimension]
"""Hyperparameter, a field of `TrialConfig` -> its range."""

DEFAULT_SPACE: SearchSpace = {
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "batch_size": OrderedChoice((32, 64, 128, 256, 512)),
    "optimizer": CategoricalDistribution(("sgd", "rmsprop", "adam")),
}


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """What Optuna's sampler draws from, by hyperparameter."""
    return {
        name: dimension.distribution if isinstance(dimension, OrderedChoice) else dimension
        for name, dimension in space.items()
    }


def members(dimension: Dimension) -> tuple[HyperparameterValue, ...] | None:
    """All values of a dimension, or None if it is a continuous range."""
    match dimension:
        case OrderedChoice():
            return dimension.values
        case CategoricalDistribution():
            return tuple(dimension.choices)  # type: ignore[arg-type]
        case FloatDistribution():
            return None


def num_points(space: SearchSpace) -> float:
    """How many different points a space has; infinite if a dimension is continuous."""
    finite = [members(dimension) for dimension in space.values()]
    return math.prod(math.inf if values is None else len(values) for values in finite)


def contains(space: SearchSpace, point: dict[str, HyperparameterValue]) -> bool:
    """Whether a point has exactly the hyperparameters of a space, each in its range."""
    return point.keys() == space.keys() and all(_holds(space[name], value) for name, value in point.items())


def distance(space: SearchSpace, one: dict[str, HyperparameterValue], other: dict[str, HyperparameterValue]) -> float:
    """Euclidean distance of two points, each range scaled to [0, 1] and unlike choices 1 apart."""
    steps = (
        float(one[name] != other[name])
        if isinstance(dimension, CategoricalDistribution)
        else position(dimension, one[name]) - position(dimension, other[name])
        for name, dimension in space.items()
    )
    return math.sqrt(sum(step**2 for step in steps))


def _holds(dimension: Dimension, value: HyperparameterValue) -> bool:
    if isinstance(dimension, FloatDistribution):
        return isinstance(value, float | int) and dimension.low <= value <= dimension.high
    return value in (members(dimension) or ())


def position(dimension: Dimension, value: Any) -> float:
    """Where a value lies in its range, in [0, 1]; choices have equal steps between them, in the order given."""
    match dimension:
        case OrderedChoice() | CategoricalDistribution():
            choices = members(dimension) or ()
            return choices.index(value) / max(1, len(choices) - 1)
        case FloatDistribution() if dimension.log:
            return math.log(value / dimension.low) / math.log(dimension.high / dimension.low)
        case FloatDistribution():
            return float((value - dimension.low) / (dimension.high - dimension.low))


def value_at(dimension: FloatDistribution | OrderedChoice, place: float) -> float:
    """The value at a position of a range; between the members of an ordered choice too, by ratio."""
    low, high = ends(dimension)
    return float(low * (high / low) ** place if is_log(dimension) else low + place * (high - low))


def ends(dimension: FloatDistribution | OrderedChoice) -> tuple[float, float]:
    """The lowest and the highest value."""
    if isinstance(dimension, OrderedChoice):
        return dimension.values[0], dimension.values[-1]
    return dimension.low, dimension.high


def is_log(dimension: Dimension) -> bool:
    """Whether values are compared by ratio."""
    return isinstance(dimension, OrderedChoice) or (isinstance(dimension, FloatDistribution) and dimension.log)


def tutorial_baseline(space: SearchSpace) -> dict[str, HyperparameterValue]:
    """The tutorial's values of the searched hyperparameters: the defaults of `TrialConfig`."""
    return {name: getattr(TrialConfig(), name) for name in space}


def starting_points(space: SearchSpace) -> list[dict[str, HyperparameterValue]]:
    """What a study tries first: the tutorial's values, and the same with each other optimizer, in the space's order.

    With these, in the order of the default space, a study comes within a point of the best for a fifth of the CPU that
    random search needs, on both tables of `benchmarks/search_quality.py`; with the tutorial's alone for two thirds.
    """
    baseline = tutorial_baseline(space)
    optimizers = members(space["optimizer"]) or () if "optimizer" in space else ()
    others = [baseline | {"optimizer": name} for name in optimizers if name != baseline["optimizer"]]
    return [baseline, *others]


def describe(space: SearchSpace) -> dict[str, dict[str, Any]]:
    """The space as plain data for `study.json`."""
    described: dict[str, dict[str, Any]] = {}
    for name, dimension in space.items():
        match dimension:
            case OrderedChoice():
                described[name] = {"ordered": list(dimension.values)}
            case CategoricalDistribution():
                described[name] = {"choices": list(dimension.choices)}
            case FloatDistribution():
                described[name] = {"low": dimension.low, "high": dimension.high, "log": dimension.log}
    return described


def range_words(dimension: dict[str, Any]) -> str:
    """A dimension of a search space, as the record describes it, in words."""
    match dimension:
        case {"ordered": values} | {"choices": values}:
            return ", ".join(map(str, values))
        case _:
            return f"{dimension['low']} to {dimension['high']}" + (" (log)" if dimension["log"] else "")


def parse(described: object) -> SearchSpace:
    """The space that `describe` described.

    Raises:
        ValueError: Nothing that `describe` returns: a hyperparameter or one of its values is none of `TrialConfig`.
    """
    space: SearchSpace = {}
    for name, dimension in check_type("space", described, dict[str, dict[str, Any]]).items():
        match dimension:
            case {"ordered": [*values]}:
                ends = values
                space[name] = OrderedChoice(tuple(check_type(name, values, list[int])))
            case {"choices": [*values]}:
                ends = values
                space[name] = CategoricalDistribution(values)
            case {"low": float(low), "high": float(high), "log": bool(log)} if low < high:
                ends = [low, high]
                space[name] = FloatDistribution(low, high, log=log)
            case _:
                raise ValueError(f"{name} cannot be searched in {dimension}")
        for value in ends:
            from_plain(TrialConfig, {name: value})
    if not space:
        raise ValueError("there is no hyperparameter to search")
    return space
