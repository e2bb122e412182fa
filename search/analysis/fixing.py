"""What it costs to fix a hyperparameter: by how much the best value becomes worse, with an interval."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from search.analysis.equal_budget import NEARLY_ALL, EqualBudget
from search.record.study_record import StudyRecord
from search.space.distributions import Distribution, HyperparameterValue, from_unit, snap, to_unit, values_of
from search.space.encoding import SpaceEncoding
from search.space.search_space import Point, SearchSpace

WORTHWHILE = 0.01
"""An effect worth having: one point of accuracy, or this part of the best value of another metric."""
CLIPPED = 3
"""Values that are worse than the median and by more than this times a worthwhile effect worse than the best are cut."""
LONGEST_SCALE = 2.0
"""Longest length scale, in multiples of the range: a longer one would assume that a hyperparameter has no effect."""
FEWEST_TRIALS = 20
"""Fewer trials are not judged."""
FEWEST_TO_FIX = 30
"""With fewer trials no hyperparameter is said to stay fixed: with 20, one of five such sentences was wrong."""
MOST_NOISE = 0.4
"""Nor if trainings with the same values differ by more than this part of a worthwhile effect (standard deviation)."""
MOST_TRIALS = 300
"""At most this number of random trials is fitted: the time grows with its third power."""
BEST_POINTS, RANDOM_POINTS = 12, 24
"""The points among which the best value is looked for when a hyperparameter is fixed."""
MOST_VALUES = 7
"""At most this number of values of a hyperparameter is compared."""
DRAWS = 400
SURE = 0.99
"""The bounds hold in this part of the draws; with 0.975, 7 of 100 upper bounds were too low on the recorded tables."""
STEPS = 10
"""Bounds are rounded to this part of a worthwhile effect, to the safe side."""

Numbers = NDArray[np.float64]
Verdict = Literal["matters", "can stay fixed", "unclear"]


@dataclass(frozen=True)
class ValueCosts:
    """What each value of a hyperparameter costs while the others are searched, in the unit of the metric."""

    name: str
    values: list[HyperparameterValue]
    costs: Numbers
    """The cost of each value in each draw, >= 0; shape (draws, values)."""
    seen: Numbers
    """How much worse than the best trial the best one with each value was; of other values, the nearest counts."""


@dataclass(frozen=True)
class Fixing:
    """What it costs to fix a hyperparameter while the others are searched, in the unit of the metric."""

    name: str
    verdict: Verdict
    cost: float
    """Lower bound for the worst value if it matters; upper bound for `values` if it can stay fixed."""
    values: tuple[HyperparameterValue, ...] = ()
    """The values at which it can stay fixed: those from the first to the last, or these choices."""


@dataclass(frozen=True)
class Judgement:
    """What the trials of a study show of the values of each hyperparameter; empty if they allow no judgement."""

    effect: float = 0.0
    """The smallest effect on the metric that is worth having."""
    costs: list[ValueCosts] = field(default_factory=list)
    fixings: list[Fixing] = field(default_factory=list)


def judge(record: StudyRecord, space: SearchSpace, compared: EqualBudget | None) -> Judgement:
    """Judge each hyperparameter that has one range; it may be inactive in some trials, and others may depend on it.

    A Gaussian process is fitted to the trials (Rasmussen, Williams 2006, "Gaussian Processes for Machine Learning";
    Matern 5/2 with a length scale for each hyperparameter). In each function that is drawn from it, the cost of a value
    is the best of all points less the best of the points with this value. Only differences near the best trials count.

    A hyperparameter "can stay fixed" only at values that the process holds for good and with which a trial was good;
    where equal trainings differ much, nothing is said. docs/advice.md has the error rates.

    Trials of which a scheduler stopped many are not judged: those that ran in full were chosen by their values, and an
    early epoch says little about the last one.
    """
    if compared is None or not are_judged(compared):
        return Judgement()
    effect = worthwhile(record, compared)
    chosen = np.random.default_rng(0).permutation(len(compared.trials))[:MOST_TRIALS]
    gains = -np.array(compared.costs)[chosen]
    if effect == 0 or np.ptp(gains) == 0:
        return Judgement()
    points = [compared.trials[index].hyperparameters for index in chosen]
    lowest = min(float(np.median(gains)), gains.max() - CLIPPED * effect)
    process = _Process(space, points, np.maximum(gains, lowest))
    encoding = SpaceEncoding(space)
    best = [encoding.encode(points[index], number) for number, index in enumerate(np.argsort(-gains)[:BEST_POINTS])]
    others = best + [encoding.random_sample(number) for number in range(RANDOM_POINTS)]
    costs = []
    for name in space:
        if len(space.ranges[name]) == 1:
            values = compared_values(space[name])
            samples = [encoding.encode_value(name, space[name], value) for value in values]
            groups = [[encoding.decode(other | {name: sample}) for other in others] for sample in samples]
            seen = _seen_costs(name, space[name], values, points, gains)
            costs.append(ValueCosts(name, values, process.costs(groups), seen))
    fixings = []
    for one in costs:
        active = sum(one.name in trial.hyperparameters for trial in compared.trials)
        may_be_fixed = active >= FEWEST_TO_FIX and process.noise <= MOST_NOISE * effect
        fixings.append(_judge(space[one.name], one, effect, may_be_fixed))
    return Judgement(effect, costs, fixings)


def are_judged(compared: EqualBudget) -> bool:
    """Whether enough trials ran in full, and hardly any was stopped for its values."""
    return compared.is_full and compared.part >= NEARLY_ALL and len(compared.trials) >= FEWEST_TRIALS


def worthwhile(record: StudyRecord, compared: EqualBudget) -> float:
    """The smallest effect on the metric of a study that is worth having."""
    return WORTHWHILE if record.metadata.is_accuracy else WORTHWHILE * abs(min(compared.costs))


def compared_values(distribution: Distribution) -> list[HyperparameterValue]:
    """All values of a hyperparameter, or some at equal distances from bound to bound."""
    values = values_of(distribution)
    if isinstance(distribution, CategoricalDistribution) or (values and len(values) <= MOST_VALUES):
        return list(values or ())
    return list(
        dict.fromkeys(snap(distribution, from_unit(distribution, unit)) for unit in np.linspace(0, 1, MOST_VALUES))
    )


def _seen_costs(
    name: str,
    distribution: Distribution,
    values: Sequence[HyperparameterValue],
    points: Sequence[Point],
    gains: Numbers,
) -> Numbers:
    """How much worse than the best trial the best trial with each value was; infinite if there was none.

    Args:
        name: A hyperparameter. A trial in which it is inactive counts for all values.
        distribution: Its range, or its choices.
        values: The compared values. Another number counts for the nearest of them.
        points: The hyperparameters of each trial.
        gains: What each trial reached; more is better.
    """
    units = np.array([to_unit(distribution, value) for value in values])

    def has(point: Point, place: int) -> bool:
        if name not in point:
            return True
        if isinstance(distribution, CategoricalDistribution):
            return point[name] == values[place]
        return bool(np.abs(units - to_unit(distribution, point[name])).argmin() == place)

    seen = [
        min(
            (gains.max() - gain for point, gain in zip(points, gains, strict=True) if has(point, place)),
            default=math.inf,
        )
        for place in range(len(values))
    ]
    return np.array(seen)


class _Process:
    """A Gaussian process that is fitted to trials."""

    def __init__(self, space: SearchSpace, points: Sequence[Point], gains: Numbers) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor  # the import takes a second
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        self._space, self._scale = space, float(gains.std())
        inputs = self._inputs(points)
        scales = Matern(np.ones(inputs.shape[1]), (0.1, LONGEST_SCALE), nu=2.5)
        kernel = ConstantKernel(1.0, (1.0, 100.0)) * scales + WhiteKernel(0.1, (1e-4, 2.0))
        with warnings.catch_warnings(action="ignore"):  # a parameter may end at a bound
            fitted = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=0)
            self._process = fitted.fit(inputs, (gains - gains.mean()) / self._scale)
        self.noise = self._scale * math.sqrt(self._process.kernel_.k2.noise_level)
        """The standard deviation of trainings with the same values."""

    def costs(self, groups: list[list[Point]]) -> Numbers:
        """The cost of each group of points: the best of all groups less its own; shape (draws, groups)."""
        inputs, places = np.unique(
            self._inputs([point for group in groups for point in group]), axis=0, return_inverse=True
        )
        means, covariance = self._process.predict(inputs, return_cov=True)
        noise = self._process.kernel_.k2.noise_level
        values, vectors = np.linalg.eigh(covariance - noise * np.eye(len(inputs)))
        normal = np.random.default_rng(0).normal(size=(len(inputs), DRAWS))
        drawn = means[:, None] + vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * normal)
        best = drawn[places.reshape(len(groups), -1)].max(1) * self._scale
        costs: Numbers = (best.max(0) - best).T
        return costs

    def _inputs(self, points: Sequence[Point]) -> Numbers:
        """A column for each number, in [0, 1] and -0.5 where it is inactive, and one for each choice."""
        columns: list[list[float]] = []
        for name, distribution in self._space.items():
            if isinstance(distribution, CategoricalDistribution):
                columns += [[float(point.get(name) == choice) for point in points] for choice in distribution.choices]
            else:
                columns.append([to_unit(distribution, point[name]) if name in point else -0.5 for point in points])
        return np.array(columns).T


def _judge(distribution: Distribution, estimated: ValueCosts, effect: float, may_be_fixed: bool) -> Fixing:
    """Judge a hyperparameter by the costs of its values in each draw, and by what the trials with each value reached.

    That the process holds a value for good is not enough to fix the hyperparameter there: a trial must have shown it.
    """
    name, values, costs = estimated.name, estimated.values, estimated.costs
    lows, highs = np.quantile(costs, [1 - SURE, SURE], axis=0)
    low = float(lows.max())  # of one value: the largest cost of each draw would be above 0 by chance
    for group in _groups(distribution, highs):
        bound = float(np.quantile(costs[:, group].max(1), SURE))
        if may_be_fixed and bound <= effect and estimated.seen[group].max() <= effect:
            rounded = math.ceil(STEPS * bound / effect) * effect / STEPS
            return Fixing(name, "can stay fixed", rounded, tuple(values[index] for index in group))
    if low > effect:
        return Fixing(name, "matters", math.floor(STEPS * low / effect) * effect / STEPS)
    return Fixing(name, "unclear", low)


def _groups(distribution: Distribution, upper_bounds: Numbers) -> Iterator[list[int]]:
    """Groups of values that may all be as good, the largest first: neighbours, at least half of them; or choices."""
    number = len(upper_bounds)
    if isinstance(distribution, CategoricalDistribution):
        best_first = np.argsort(upper_bounds, kind="stable")
        yield from (sorted(map(int, best_first[:size])) for size in range(number, 1, -1))
    else:
        runs = [list(range(*ends)) for ends in combinations(range(number + 1), 2)]
        yield from sorted((run for run in runs if len(run) >= max(2, number / 2)), key=len, reverse=True)
