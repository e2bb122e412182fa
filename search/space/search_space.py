"""The search space: which hyperparameters are searched, in which range, and under which condition."""

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from search.space.distributions import (
    Distribution,
    HyperparameterValue,
    clip,
    contains_value,
    describe_distribution,
    describe_range,
    from_unit,
    optuna_distribution,
    parse_distribution,
    snap,
    to_unit,
    union,
    values_of,
)
from training.json_data import check_type

Point = dict[str, HyperparameterValue]
"""A value for each hyperparameter that is searched and whose condition holds."""
Condition = Mapping[str, tuple[HyperparameterValue, ...]]
"""Other hyperparameters, and the values of each for which the condition holds."""

LONGEST_NAME = 100
MOST_POINTS = 100_000
"""A space with at least this number of points is treated as infinite."""


@dataclass(frozen=True)
class Fixed:
    """A hyperparameter that is not searched and has this value."""

    value: HyperparameterValue


@dataclass(frozen=True)
class ConditionalRange:
    """A distribution or a fixed value, and the condition under which it is active."""

    distribution: Distribution | Fixed
    condition: Condition = field(default_factory=dict)

    def is_active(self, values: Mapping[str, HyperparameterValue]) -> bool:
        """Whether the condition holds."""
        return all(name in values and values[name] in allowed for name, allowed in self.condition.items())


class SearchSpace(Mapping[str, Distribution]):
    """Hyperparameters with their ranges; a mapping of those that are searched to all values that each can take.

    A hyperparameter has one or several ranges. The first whose condition holds is active; if there is none, the
    hyperparameter is not sampled and keeps its default.
    """

    def __init__(self, hyperparameters: Mapping[str, Distribution | Fixed | Sequence[ConditionalRange]]) -> None:
        """Check that the ranges fit together.

        Raises:
            ValueError: They do not; the message names the hyperparameter and the rule.
        """
        self.ranges: dict[str, tuple[ConditionalRange, ...]] = {
            name: tuple(ranges) if isinstance(ranges, Sequence) else (ConditionalRange(ranges),)
            for name, ranges in hyperparameters.items()
        }
        for name, ranges in self.ranges.items():
            _check_name(name)
            _check_ranges(name, ranges)
            for one in ranges:
                self._check_condition(name, one.condition)
        try:
            sorter = TopologicalSorter(
                {name: [other for one in ranges for other in one.condition] for name, ranges in self.ranges.items()}
            )
            self.order = tuple(sorter.static_order())
        except CycleError as error:
            *_, cycle = error.args
            raise ValueError(f"the conditions form a cycle: {' -> '.join(cycle)}") from None
        self._unions = {
            name: union(distributions_of(self, name))
            for name, ranges in self.ranges.items()
            if not isinstance(ranges[0].distribution, Fixed)
        }

    def __getitem__(self, name: str) -> Distribution:
        return self._unions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._unions)

    def __len__(self) -> int:
        return len(self._unions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(tuple(self.ranges))

    def optuna_distributions(self, point: Mapping[str, HyperparameterValue]) -> dict[str, BaseDistribution]:
        """The distributions of the hyperparameters of a point, as Optuna records them."""
        return {name: optuna_distribution(distribution) for name, distribution in self.searched(point).items()}

    @property
    def is_conditional(self) -> bool:
        """Whether any searched hyperparameter depends on another one."""
        return any(self.ranges[name] != (ConditionalRange(self[name]),) for name in self)

    def active(self, values: Mapping[str, HyperparameterValue]) -> dict[str, Distribution | Fixed]:
        """The active distribution of each hyperparameter that has one, in the order of the space.

        Args:
            values: The values of the hyperparameters that are searched; others are ignored.
        """
        known = {name: value for name, value in values.items() if name in self}
        active: dict[str, Distribution | Fixed] = {}
        for name in self.order:
            distribution = self._active(name, known)
            if distribution is None:
                known.pop(name, None)
            else:
                active[name] = distribution
                if isinstance(distribution, Fixed):
                    known[name] = distribution.value
        return {name: active[name] for name in self.ranges if name in active}

    def _active(self, name: str, known: Mapping[str, HyperparameterValue]) -> Distribution | Fixed | None:
        """The active distribution of a hyperparameter; `known` has the values of those before it in `order`."""
        return next((one.distribution for one in self.ranges[name] if one.is_active(known)), None)

    def build_point(self, choose: Callable[[str, Distribution], HyperparameterValue]) -> Point:
        """A point whose values are chosen one after the other, each from its active distribution.

        Args:
            choose: Returns the value of a hyperparameter from its name and its active distribution.
        """
        known: Point = {}
        point: Point = {}
        for name in self.order:
            distribution = self._active(name, known)
            if isinstance(distribution, Fixed):
                known[name] = distribution.value
            elif distribution is not None:
                known[name] = point[name] = choose(name, distribution)
        return point

    def searched(self, values: Mapping[str, HyperparameterValue]) -> dict[str, Distribution]:
        """The active distributions without fixed values; `values` is as for `active`."""
        return {name: active for name, active in self.active(values).items() if not isinstance(active, Fixed)}

    def point(self, values: Mapping[str, HyperparameterValue]) -> Point:
        """The part of these values that belongs to searched and active hyperparameters."""
        return {name: values[name] for name in self.searched(values) if name in values}

    def add_fixed(self, point: Mapping[str, HyperparameterValue]) -> Point:
        """A point together with the values of the fixed hyperparameters."""
        fixed = {name: active.value for name, active in self.active(point).items() if isinstance(active, Fixed)}
        return {**point, **fixed}

    def fix(self, values: Mapping[str, HyperparameterValue]) -> "SearchSpace":
        """This space with some hyperparameters fixed; conditions on them are checked anew."""
        return SearchSpace({**self.ranges, **{name: Fixed(value) for name, value in values.items()}})

    def points(self) -> Iterator[Point]:
        """All points; the space must be finite."""
        return self._points({}, list(self.order))

    def _points(self, begun: Point, names: list[str]) -> Iterator[Point]:
        if not names:
            yield {name: begun[name] for name in self if name in begun}
            return
        name, *rest = names
        active = self.active(begun).get(name)
        values = () if active is None or isinstance(active, Fixed) else values_of(active) or ()
        for value in values:
            yield from self._points({**begun, name: value}, rest)
        if not values:
            yield from self._points(begun, rest)

    def _check_condition(self, name: str, condition: Condition) -> None:
        for other, allowed in condition.items():
            if other not in self.ranges:
                raise ValueError(f"{name}: its condition is on {other}, which is not in the space")
            possible: set[HyperparameterValue] = set()
            for distribution in (one.distribution for one in self.ranges[other]):
                values = (distribution.value,) if isinstance(distribution, Fixed) else values_of(distribution)
                if values is None:
                    raise ValueError(
                        f"{name}: its condition is on {other}, which has a range of numbers; list its values instead"
                    )
                possible |= set(values)
            never = [value for value in allowed if value not in possible]
            # a value fixed by --set may make a condition that never holds
            is_fixed = isinstance(self.ranges[other][0].distribution, Fixed)
            if not allowed or (never and not is_fixed):
                raise ValueError(f"{name}: its condition requires a value that {other} never has, got {never}")


def _check_name(name: str) -> None:
    """Refuse a name that tables, terminals or `--set NAME=VALUE` cannot hold."""
    is_plain = name.isprintable() and name == name.strip() and "=" not in name
    if not (is_plain and len(name) <= LONGEST_NAME and re.match(r"\w", name)):
        raise ValueError(
            f"a hyperparameter's name must be 1 to {LONGEST_NAME} printable characters without =, "
            f"the first a letter, digit or _, got {name!r:.{LONGEST_NAME}}"
        )


def _check_ranges(name: str, ranges: Sequence[ConditionalRange]) -> None:
    if not ranges:
        raise ValueError(f"{name} has no range")
    if not all(one.condition for one in ranges[:-1]):
        raise ValueError(f"{name}: only its last range can be without a condition")
    types = {_type_name(one.distribution) for one in ranges}
    if len(types) > 1:
        raise ValueError(f"{name}: its ranges must be of one type, got {' and '.join(sorted(types))}")
    choices = {
        tuple(one.distribution.choices) for one in ranges if isinstance(one.distribution, CategoricalDistribution)
    }
    if len(choices) > 1:
        raise ValueError(f"{name}: its choices must be the same under every condition")


def _type_name(distribution: Distribution | Fixed) -> str:
    match distribution:
        case Fixed():
            return "fixed values"
        case CategoricalDistribution():
            return "choices"
        case _:
            return "numbers" if isinstance(optuna_distribution(distribution), FloatDistribution) else "whole numbers"


def is_boolean(space: SearchSpace, name: str) -> bool:
    """Whether all values of a hyperparameter are true or false."""
    distributions = [one.distribution for one in space.ranges[name]]
    values = [(one.value,) if isinstance(one, Fixed) else values_of(one) for one in distributions]
    return all(isinstance(value, bool) for possible in values for value in possible or (math.nan,))


def distributions_of(space: SearchSpace, name: str) -> list[Distribution]:
    """All distributions of a searched hyperparameter, whatever their conditions."""
    return [one.distribution for one in space.ranges[name] if not isinstance(one.distribution, Fixed)]


def num_points(space: SearchSpace) -> float:
    """How many different points a space has; infinity if a distribution is continuous or the points are very many."""
    if any(values_of(distribution) is None for name in space for distribution in distributions_of(space, name)):
        return math.inf
    if not space.is_conditional:
        return math.prod(len(values_of(distribution) or ()) for distribution in space.values())
    count = sum(1 for _ in islice(space.points(), MOST_POINTS))
    return math.inf if count == MOST_POINTS else count


def contains(space: SearchSpace, point: Mapping[str, HyperparameterValue]) -> bool:
    """Whether a point has exactly the active hyperparameters of a space, each in its range."""
    searched = space.searched(point)
    return point.keys() == searched.keys() and all(
        contains_value(searched[name], value) for name, value in point.items()
    )


def distance(space: SearchSpace, one: Point, other: Point) -> float:
    """Euclidean distance of two points, each range scaled to [0, 1].

    Two different choices have distance 1, and so have an active and an inactive hyperparameter.
    """
    return math.sqrt(sum(_difference(space, name, one, other) ** 2 for name in space))


def _difference(space: SearchSpace, name: str, one: Point, other: Point) -> float:
    if name not in one or name not in other:
        return float((name in one) != (name in other))
    distribution = space[name]
    if isinstance(distribution, CategoricalDistribution):
        return float(one[name] != other[name])
    return to_unit(distribution, one[name]) - to_unit(distribution, other[name])


def random_value(distribution: Distribution, number: int, name: str) -> HyperparameterValue:
    """A random value of a distribution; the same for the same number and name."""
    unit_value = random.Random(f"{number} {name}").random()
    values = values_of(distribution)
    if values is not None:
        return values[int(unit_value * len(values))]
    assert not isinstance(distribution, CategoricalDistribution), "choices can be listed"
    return snap(distribution, from_unit(distribution, unit_value))  # type: ignore[no-any-return]


def starting_points(space: SearchSpace, defaults: Mapping[str, HyperparameterValue]) -> list[Point]:
    """The points that a study tries first: the defaults, then the defaults with each other optimizer.

    With these points, in the order of the default space, a study comes within a point of the best for a fifth of the
    CPU that random search needs, on both tables of `benchmarks/search_quality.py`; with the tutorial's alone it needs
    two thirds.

    Args:
        space: What is searched.
        defaults: The defaults of all hyperparameters, by name; those of the mlp are the tutorial's.

    Returns:
        The points of the space that are nearest to the defaults.
    """
    distribution = space.get("optimizer")
    if not isinstance(distribution, CategoricalDistribution):
        return [_nearest_point(space, defaults)]
    optimizers = sorted(values_of(distribution) or (), key=lambda name: name != defaults.get("optimizer"))
    return [_nearest_point(space, {**defaults, "optimizer": optimizer}) for optimizer in optimizers]


def _nearest_point(space: SearchSpace, values: Mapping[str, HyperparameterValue]) -> Point:
    point: Point = {}
    for name in space.order:
        distribution = space.searched(point).get(name)
        if distribution is not None:
            point[name] = clip(distribution, values.get(name))
    return {name: point[name] for name in space if name in point}


def similar_point(space: SearchSpace, *wanted: Mapping[str, HyperparameterValue]) -> Point:
    """The part of a point that is nearest to a configuration of another space.

    Args:
        space: What is searched.
        wanted: The configuration, and then others, of which the first one gives the value of a hyperparameter that
            those before do not have, or have as a value to which none in the space is near.

    Returns:
        The values of the hyperparameters for which one of these has a value.
    """
    point: Point = {}
    for name in space.order:
        distribution = space.searched(point).get(name)
        if distribution is not None:
            values = (values[name] for values in wanted if name in values)
            near = [clip(distribution, value) for value in values if _is_near(distribution, value)]
            if near:
                point[name] = near[0]
    return {name: point[name] for name in space if name in point}


def _is_near(distribution: Distribution, value: HyperparameterValue) -> bool:
    """Whether a value is one of a distribution, or a number where numbers are searched."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return contains_value(distribution, value) or (is_number and not isinstance(distribution, CategoricalDistribution))


@dataclass(frozen=True, kw_only=True)
class ShownSpace:
    """A search space as an object for other programs."""

    type: Literal["space"] = "space"
    space: dict[str, Any]
    """A table for each hyperparameter, with a `value` for a fixed one, as in study.json."""
    file: str | None
    """The file into which it was written, if it was imported."""
    left_out: list[str]
    """What an imported search space has besides, in sentences."""


def describe(space: SearchSpace) -> dict[str, Any]:
    """The space as plain data, in the form of a search space file."""
    return {
        name: describe_conditional(ranges[0]) if len(ranges) == 1 else [*map(describe_conditional, ranges)]
        for name, ranges in space.ranges.items()
    }


def describe_conditional(one: ConditionalRange) -> dict[str, Any]:
    """A range with its condition as plain data."""
    distribution = one.distribution
    described = (
        {"value": distribution.value} if isinstance(distribution, Fixed) else describe_distribution(distribution)
    )
    when = {name: allowed[0] if len(allowed) == 1 else list(allowed) for name, allowed in one.condition.items()}
    return described | ({"when": when} if when else {})


def describe_hyperparameter(described: object) -> str:
    """What `describe` returns for one hyperparameter, as text."""
    tables: list[dict[str, Any]] = described if isinstance(described, list) else [described]  # type: ignore[list-item]
    texts = []
    for table in tables:
        condition = " and ".join(
            f"{name} {' or '.join(map(str, allowed)) if isinstance(allowed, list) else allowed}"
            for name, allowed in table.get("when", {}).items()
        )
        texts.append(describe_range(table) + (f" with {condition}" if condition else ""))
    return "; ".join(texts)


def parse(described: object) -> SearchSpace:
    """The space that `describe` described; a ValueError names the hyperparameter and the rule that it breaks."""
    hyperparameters: dict[str, list[ConditionalRange]] = {}
    for name, content in check_type("space", described, dict[str, Any]).items():
        tables = check_type(name, content if isinstance(content, list) else [content], list[dict[str, Any]])
        hyperparameters[name] = [_parse_range(name, table) for table in tables]
    space = SearchSpace(hyperparameters)
    if not space:
        raise ValueError("there is no hyperparameter to search")
    return space


def _parse_range(name: str, table: dict[str, Any]) -> ConditionalRange:
    described = {key: value for key, value in table.items() if key != "when"}
    condition: dict[str, tuple[HyperparameterValue, ...]] = {}
    for other, allowed in check_type(f"{name}: when", table.get("when", {}), dict[str, Any]).items():
        values = allowed if isinstance(allowed, list) else [allowed]
        condition[other] = tuple(check_type(f"{name}: when {other}", values, list[float | str | bool]))
    if described.keys() == {"value"}:
        return ConditionalRange(Fixed(check_type(name, described["value"], float | str | bool)), condition)
    try:
        return ConditionalRange(parse_distribution(described), condition)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
