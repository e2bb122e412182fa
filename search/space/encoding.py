"""A search space as samplers can draw from it: every hyperparameter in every trial, whatever the conditions."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from search.space.distributions import (
    Dimension,
    HyperparameterValue,
    OrderedChoice,
    distribution,
    nearest,
    position,
    value_at,
)
from search.space.search_space import Point, SearchSpace, anywhere, case_ranges

PLACES = FloatDistribution(0.0, 1.0)
"""In a range."""


class FlatSpace:
    """What a sampler draws, and what the trials look like to it.

    A hyperparameter with several ranges is drawn as its position in whichever counts, so that what is learned in one
    holds in the others; so the best learning rates of sgd and adam become neighbours. One that was not drawn looks as
    if it had been drawn at random: such trials say nothing about it, and make it neither better nor worse.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        ranges = {name: case_ranges(space, name) for name in space}
        self.dimensions = {name: of_name[0] if len(of_name) == 1 else PLACES for name, of_name in ranges.items()}
        self.distributions = {name: distribution(dimension) for name, dimension in self.dimensions.items()}

    def point(self, draws: Point) -> Point:
        """The point of the space that draws from all distributions stand for."""
        values: Point = {}
        for name in self._space.order:
            part = self._space.searched(values).get(name)
            if part is not None:
                places = self.dimensions[name] is PLACES
                values[name] = _at(part, float(draws[name])) if places else nearest(part, draws[name])
        return {name: values[name] for name in self._space if name in values}

    def draws(self, point: Point, number: int) -> Point:
        """Draws that stand for the point of a trial with this number."""
        searched = self._space.searched(point)
        return {name: self._draw(name, searched.get(name), point, number) for name in self._space}

    def random_draws(self, number: int) -> Point:
        """Draws without a sampler; the same for the same number."""
        return {name: anywhere(dimension, number, name) for name, dimension in self.dimensions.items()}

    def _draw(self, name: str, part: Dimension | None, point: Point, number: int) -> HyperparameterValue:
        if part is None or name not in point:
            return anywhere(self.dimensions[name], number, name)
        return position(part, point[name]) if self.dimensions[name] is PLACES else point[name]


def _at(dimension: Dimension, place: float) -> HyperparameterValue:
    assert not isinstance(dimension, CategoricalDistribution), "choices have one case"
    value = value_at(dimension, place)
    if isinstance(dimension, OrderedChoice):
        return dimension.nearest(value)
    if dimension.step is None:
        return value
    return dimension.low + round((value - dimension.low) / dimension.step) * dimension.step
