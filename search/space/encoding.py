"""A search space as samplers can draw from it: every hyperparameter in every trial, whatever the conditions."""

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
from search.space.search_space import Point, SearchSpace, random_value, ranges_of

PLACES = FloatDistribution(0.0, 1.0)
"""In a range."""


class SpaceEncoding:
    """What a sampler draws, and what the trials look like to it.

    A hyperparameter with several ranges is drawn as its position in whichever counts, so that what is learned in one
    holds in the others; so the best learning rates of sgd and adam become neighbours. One that was not drawn looks as
    if it had been drawn at random: such trials say nothing about it, and make it neither better nor worse.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        ranges = {name: ranges_of(space, name) for name in space}
        self.distributions = {name: of_name[0] if len(of_name) == 1 else PLACES for name, of_name in ranges.items()}
        self.optuna_distributions = {
            name: optuna_distribution(distribution) for name, distribution in self.distributions.items()
        }

    def point(self, draws: Point) -> Point:
        """The point of the space that draws from all distributions stand for."""
        values: Point = {}
        for name in self._space.order:
            part = self._space.searched(values).get(name)
            if part is not None:
                places = self.distributions[name] is PLACES
                values[name] = _at(part, float(draws[name])) if places else snap(part, draws[name])
        return {name: values[name] for name in self._space if name in values}

    def draws(self, point: Point, number: int) -> Point:
        """Draws that stand for the point of a trial with this number."""
        searched = self._space.searched(point)
        return {name: self._draw(name, searched.get(name), point, number) for name in self._space}

    def random_draws(self, number: int) -> Point:
        """Draws without a sampler; the same for the same number."""
        return {name: random_value(distribution, number, name) for name, distribution in self.distributions.items()}

    def _draw(self, name: str, part: Distribution | None, point: Point, number: int) -> HyperparameterValue:
        if part is None or name not in point:
            return random_value(self.distributions[name], number, name)
        return to_unit(part, point[name]) if self.distributions[name] is PLACES else point[name]


def _at(distribution: Distribution, place: float) -> HyperparameterValue:
    assert not isinstance(distribution, CategoricalDistribution), "choices have one case"
    value = from_unit(distribution, place)
    if isinstance(distribution, OrderedChoice):
        return distribution.snap(value)
    if distribution.step is None:
        return value
    return distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
