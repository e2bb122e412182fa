"""The search space: which hyperparameters are searched, in which range, and under which condition."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

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
    to_unit,
    union,
    values_of,
)
from training.json_data import check_type

Point = dict[str, HyperparameterValue]
"""A value for each hyperparameter that is searched and whose condition holds."""
Condition = Mapping[str, tuple[HyperparameterValue, ...]]
"""Other hyperparameters, and the values of each with which it holds."""

MOST_POINTS = 100_000
"""A space that has more is taken to have no end."""


@dataclass(frozen=True)
class Fixed:
    """A hyperparameter that is not searched and has this value."""

    value: HyperparameterValue


@dataclass(frozen=True)
class Case:
    """A distribution, and when it is the one that counts."""

    distribution: Distribution | Fixed
    when: Condition = field(default_factory=dict)

    def counts(self, values: Mapping[str, HyperparameterValue]) -> bool:
        """Whether the condition holds."""
        return all(name in values and values[name] in allowed for name, allowed in self.when.items())


class SearchSpace(Mapping[str, Distribution]):
    """Hyperparameters with their ranges; a mapping of those that are searched to all values that each can take.

    A hyperparameter has one or several cases. The first whose condition holds counts; if none does, the hyperparameter
    is not drawn and keeps its default.
    """

    def __init__(self, hyperparameters: Mapping[str, Distribution | Fixed | Sequence[Case]]) -> None:
        """Check that the cases fit together.

        Raises:
            ValueError: They do not; the message names the hyperparameter and the rule.
        """
        self.cases: dict[str, tuple[Case, ...]] = {
            name: tuple(given) if isinstance(given, Sequence) else (Case(given),)
            for name, given in hyperparameters.items()
        }
        for name, cases in self.cases.items():
            _check_cases(name, cases)
            for case in cases:
                self._check_condition(name, case.when)
        try:
            sorter = TopologicalSorter({name: self._depends_on(name) for name in self.cases})
            self.order = tuple(sorter.static_order())
        except CycleError as error:
            *_, cycle = error.args
            raise ValueError(f"conditions go round in a circle: {' -> '.join(cycle)}") from None
        self._covers = {
            name: union(ranges_of(self, name))
            for name, cases in self.cases.items()
            if not isinstance(cases[0].distribution, Fixed)
        }

    def __getitem__(self, name: str) -> Distribution:
        return self._covers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._covers)

    def __len__(self) -> int:
        return len(self._covers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.cases == other.cases

    def __hash__(self) -> int:
        return hash(tuple(self.cases))

    def optuna_distributions(self, point: Mapping[str, HyperparameterValue]) -> dict[str, BaseDistribution]:
        """What Optuna is told that a point was drawn from."""
        return {name: optuna_distribution(distribution) for name, distribution in self.searched(point).items()}

    @property
    def is_conditional(self) -> bool:
        """Whether any searched hyperparameter depends on another one."""
        return any(self.cases[name] != (Case(self[name]),) for name in self)

    def active(self, values: Mapping[str, HyperparameterValue]) -> dict[str, Distribution | Fixed]:
        """The distribution that counts for each hyperparameter that has one, in the order of the space.

        Args:
            values: Of the hyperparameters that are searched; others are not looked at.
        """
        known = {name: value for name, value in values.items() if name in self}
        found: dict[str, Distribution | Fixed] = {}
        for name in self.order:
            case = next((case for case in self.cases[name] if case.counts(known)), None)
            if case is None:
                known.pop(name, None)
            else:
                found[name] = case.distribution
                if isinstance(case.distribution, Fixed):
                    known[name] = case.distribution.value
        return {name: found[name] for name in self.cases if name in found}

    def searched(self, values: Mapping[str, HyperparameterValue]) -> dict[str, Distribution]:
        """Those of `active` that are not fixed."""
        return {name: part for name, part in self.active(values).items() if not isinstance(part, Fixed)}

    def point(self, values: Mapping[str, HyperparameterValue]) -> Point:
        """Of these values those of the hyperparameters that are searched, and whose condition holds."""
        return {name: values[name] for name in self.searched(values) if name in values}

    def with_fixed(self, point: Mapping[str, HyperparameterValue]) -> Point:
        """A point, and the values that are fixed."""
        fixed = {name: part.value for name, part in self.active(point).items() if isinstance(part, Fixed)}
        return {**point, **fixed}

    def fix(self, values: Mapping[str, HyperparameterValue]) -> "SearchSpace":
        """The same space with some hyperparameters fixed; what depends on them follows."""
        return SearchSpace({**self.cases, **{name: Fixed(value) for name, value in values.items()}})

    def points(self) -> Iterator[Point]:
        """All points; only of a space whose distributions have an end."""
        return self._points({}, list(self.order))

    def _points(self, so_far: Point, names: list[str]) -> Iterator[Point]:
        if not names:
            yield {name: so_far[name] for name in self if name in so_far}
            return
        name, *rest = names
        part = self.active(so_far).get(name)
        values = () if part is None or isinstance(part, Fixed) else values_of(part) or ()
        for value in values:
            yield from self._points({**so_far, name: value}, rest)
        if not values:
            yield from self._points(so_far, rest)

    def _depends_on(self, name: str) -> list[str]:
        return [other for case in self.cases[name] for other in case.when]

    def _check_condition(self, name: str, when: Condition) -> None:
        for other, allowed in when.items():
            if other not in self.cases:
                raise ValueError(f"{name}: its condition is on {other}, which is not in the space")
            possible: set[HyperparameterValue] = set()
            for case in self.cases[other]:
                values = (
                    (case.distribution.value,) if isinstance(case.distribution, Fixed) else values_of(case.distribution)
                )
                if values is None:
                    raise ValueError(f"{name}: its condition is on {other}, a range; only choices can be conditions")
                possible |= set(values)
            never = [value for value in allowed if value not in possible]
            fixed = isinstance(
                self.cases[other][0].distribution, Fixed
            )  # as by --set: then the condition may never hold
            if not allowed or (never and not fixed):
                raise ValueError(f"{name}: its condition asks for {other} {never or 'nothing'}, which is never so")


def _check_cases(name: str, cases: Sequence[Case]) -> None:
    if not cases:
        raise ValueError(f"{name}: there is no range")
    for case in cases[:-1]:
        if not case.when:
            raise ValueError(f"{name}: what follows a range without a condition is never reached")
    kinds = {_kind(case.distribution) for case in cases}
    if len(kinds) > 1:
        raise ValueError(f"{name}: its ranges must be of one kind, got {' and '.join(sorted(kinds))}")
    choices = {
        tuple(case.distribution.choices) for case in cases if isinstance(case.distribution, CategoricalDistribution)
    }
    if len(choices) > 1:
        raise ValueError(f"{name}: choices cannot depend on a condition; a fixed list of them can")


def _kind(distribution: Distribution | Fixed) -> str:
    match distribution:
        case Fixed():
            return "fixed values"
        case CategoricalDistribution():
            return "choices"
        case _:
            return "numbers" if isinstance(optuna_distribution(distribution), FloatDistribution) else "whole numbers"


def ranges_of(space: SearchSpace, name: str) -> list[Distribution]:
    """All ranges of a searched hyperparameter."""
    return [case.distribution for case in space.cases[name] if not isinstance(case.distribution, Fixed)]


def num_points(space: SearchSpace) -> float:
    """How many different points a space has; infinite if a distribution has no end, or they are very many."""
    if any(values_of(distribution) is None for name in space for distribution in ranges_of(space, name)):
        return math.inf
    if not space.is_conditional:
        return math.prod(len(values_of(distribution) or ()) for distribution in space.values())
    count = sum(1 for _ in islice(space.points(), MOST_POINTS))
    return math.inf if count == MOST_POINTS else count


def contains(space: SearchSpace, point: Mapping[str, HyperparameterValue]) -> bool:
    """Whether a point has exactly the hyperparameters that a space asks for, each in its range."""
    searched = space.searched(point)
    return point.keys() == searched.keys() and all(
        contains_value(searched[name], value) for name, value in point.items()
    )


def distance(space: SearchSpace, one: Point, other: Point) -> float:
    """Euclidean distance of two points, each range scaled to [0, 1]; unlike choices are 1 apart, and drawn or not."""
    return math.sqrt(sum(_step(space, name, one, other) ** 2 for name in space))


def _step(space: SearchSpace, name: str, one: Point, other: Point) -> float:
    if name not in one or name not in other:
        return float((name in one) != (name in other))
    distribution = space[name]
    if isinstance(distribution, CategoricalDistribution):
        return float(one[name] != other[name])
    return to_unit(distribution, one[name]) - to_unit(distribution, other[name])


def random_value(distribution: Distribution, number: int, name: str) -> HyperparameterValue:
    """A value of a distribution as if drawn at random; the same for the same number and name."""
    drawn = random.Random(f"{number} {name}").random()
    values = values_of(distribution)
    if values is not None:
        return values[int(drawn * len(values))]
    assert not isinstance(distribution, CategoricalDistribution), "choices can be told one by one"
    return from_unit(distribution, drawn)


def starting_points(space: SearchSpace, defaults: Mapping[str, HyperparameterValue]) -> list[Point]:
    """What a study tries first: the defaults, and the same with each other optimizer, in the space's order.

    With these, in the order of the default space, a study comes within a point of the best for a fifth of the CPU that
    random search needs, on both tables of `benchmarks/search_quality.py`; with the tutorial's alone for two thirds.

    Args:
        space: What is searched.
        defaults: Of all hyperparameters, by name; those of the mlp are the tutorial's.

    Returns:
        Points of the space, as near to these as it allows.
    """
    if "optimizer" not in space:
        return [_nearest_point(space, defaults)]
    optimizers = sorted(values_of(space["optimizer"]) or (), key=lambda name: name != defaults.get("optimizer"))
    return [_nearest_point(space, {**defaults, "optimizer": optimizer}) for optimizer in optimizers]


def _nearest_point(space: SearchSpace, values: Mapping[str, HyperparameterValue]) -> Point:
    point: Point = {}
    for name in space.order:
        part = space.searched(point).get(name)
        if part is not None:
            point[name] = clip(part, values.get(name))
    return {name: point[name] for name in space if name in point}


def describe(space: SearchSpace) -> dict[str, Any]:
    """The space as plain data, in the form of a search space file."""
    described = {
        name: [describe_case(case) for case in cases] if len(cases) > 1 else describe_case(cases[0])
        for name, cases in space.cases.items()
    }
    return dict(described)


def describe_case(case: Case) -> dict[str, Any]:
    """One range with its condition as plain data."""
    part = case.distribution
    described = {"value": part.value} if isinstance(part, Fixed) else describe_distribution(part)
    when = {name: allowed[0] if len(allowed) == 1 else list(allowed) for name, allowed in case.when.items()}
    return described | ({"when": when} if when else {})


def describe_part(described: object) -> str:
    """What `describe` says of one hyperparameter, in words."""
    cases: list[dict[str, Any]] = described if isinstance(described, list) else [described]  # type: ignore[list-item]
    told = []
    for case in cases:
        when = " and ".join(
            f"{name} {' or '.join(map(str, allowed)) if isinstance(allowed, list) else allowed}"
            for name, allowed in case.get("when", {}).items()
        )
        told.append(describe_range(case) + (f" with {when}" if when else ""))
    return "; ".join(told)


def parse(described: object) -> SearchSpace:
    """The space that `describe` described.

    Raises:
        ValueError: Nothing that `describe` returns; the message names the hyperparameter and the rule.
    """
    hyperparameters: dict[str, list[Case]] = {}
    for name, given in check_type("space", described, dict[str, Any]).items():
        tables = check_type(name, given if isinstance(given, list) else [given], list[dict[str, Any]])
        hyperparameters[name] = [_parse_case(name, table) for table in tables]
    space = SearchSpace(hyperparameters)
    if not space:
        raise ValueError("there is no hyperparameter to search")
    return space


def _parse_case(name: str, table: dict[str, Any]) -> Case:
    rest = {key: value for key, value in table.items() if key != "when"}
    when: dict[str, tuple[HyperparameterValue, ...]] = {}
    for other, allowed in check_type(f"{name}: when", table.get("when", {}), dict[str, Any]).items():
        values = allowed if isinstance(allowed, list) else [allowed]
        when[other] = tuple(check_type(f"{name}: when {other}", values, list[float | str | bool]))
    if rest.keys() == {"value"}:
        return Case(Fixed(check_type(name, rest["value"], float | str | bool)), when)
    try:
        return Case(parse_distribution(name, rest), when)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
