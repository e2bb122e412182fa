"""A search space as a sampler of Optuna's needs it: every hyperparameter in every trial, whatever the conditions."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from search.space.distributions import (
    Distribution,
    HyperparameterValue,
    OrderedChoice,
    from_unit,
    optuna_distribution,
    snap,
    to_unit,
)
from search.space.search_space import Point, SearchSpace, distributions_of, random_value

UNIT_INTERVAL = FloatDistribution(0.0, 1.0)
"""What is sampled for a hyperparameter with several ranges: a unit value, its position in the active range. For an
ordered choice that has no ratios, the position is that in the list: each member has an equal part of the interval."""


class SpaceEncoding:
    """What a sampler samples, and what the trials look like to it.

    A hyperparameter with several ranges is sampled as its position in the active one, so that what is learned in one
    range holds in the others: the best learning rates of sgd and adam become neighbours. An inactive hyperparameter
    gets a random value: such trials say nothing about it, and make it neither better nor worse. An ordered choice whose
    members cannot be compared by ratio is sampled as its place in the list.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        ranges = {name: distributions_of(space, name) for name in space}
        self.distributions = {
            name: distributions[0] if len(distributions) == 1 and not _has_places(distributions[0]) else UNIT_INTERVAL
            for name, distributions in ranges.items()
        }
        self.optuna_distributions = {
            name: optuna_distribution(distribution) for name, distribution in self.distributions.items()
        }
        self.is_needed = space.is_conditional or any(one is UNIT_INTERVAL for one in self.distributions.values())
        """Whether trials look other to a sampler than they are."""

    def decode(self, sample: Point) -> Point:
        """The point of the space that belongs to a sample from all distributions."""

        def choose(name: str, distribution: Distribution) -> HyperparameterValue:
            if self.distributions[name] is UNIT_INTERVAL:
                return _value_from_unit(distribution, float(sample[name]))
            return snap(distribution, sample[name])  # type: ignore[no-any-return]

        point = self._space.build_point(choose)
        return {name: point[name] for name in self._space if name in point}

    def encode(self, point: Point, number: int) -> Point:
        """A sample that belongs to the point of the trial with this number."""
        searched = self._space.searched(point)
        return {name: self._encode_value(name, searched.get(name), point, number) for name in self._space}

    def encode_part(self, values: Point) -> Point:
        """What belongs to some values of a point; those that decide which ranges are active are among them."""
        searched = self._space.searched(values)
        return {name: self.encode_value(name, searched[name], value) for name, value in values.items()}

    def random_sample(self, number: int) -> Point:
        """A sample without a sampler; the same for the same number."""
        return {name: random_value(distribution, number, name) for name, distribution in self.distributions.items()}

    def encode_value(self, name: str, active: Distribution, value: HyperparameterValue) -> HyperparameterValue:
        """What a sampler samples for a value of the active distribution of a hyperparameter."""
        return _unit_from_value(active, value) if self.distributions[name] is UNIT_INTERVAL else value

    def _encode_value(self, name: str, active: Distribution | None, point: Point, number: int) -> HyperparameterValue:
        if active is None or name not in point:
            return random_value(self.distributions[name], number, name)
        return self.encode_value(name, active, point[name])


def _has_places(distribution: Distribution) -> bool:
    return isinstance(distribution, OrderedChoice) and not distribution.log


def _unit_from_value(distribution: Distribution, value: HyperparameterValue) -> float:
    if isinstance(distribution, OrderedChoice) and _has_places(distribution):
        return (distribution.values.index(float(value)) + 0.5) / len(distribution.values)
    return to_unit(distribution, value)


def _value_from_unit(distribution: Distribution, unit_value: float) -> HyperparameterValue:
    assert not isinstance(distribution, CategoricalDistribution), "choices have one range"
    if isinstance(distribution, OrderedChoice) and _has_places(distribution):
        return distribution.values[min(int(unit_value * len(distribution.values)), len(distribution.values) - 1)]
    return snap(distribution, from_unit(distribution, unit_value))  # type: ignore[no-any-return]
