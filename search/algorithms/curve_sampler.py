"""A sampler that learns from unfinished trainings: a Gaussian process predicts where their curves would end."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

from search.algorithms.curve_model import Array, CurveModel, Observations, warp
from search.space.distributions import from_unit, snap, to_unit

EpochSeconds = Callable[[FrozenTrial], float | None]
"""Says how many seconds an epoch of a trial takes on average; None if that is not known."""
STARTUP_TRIALS = 6
"""Trials that are drawn at random, or queued, before the model is used."""
MOST_MEASUREMENTS = 300
"""The model learns from at most this number of measurements; its time grows with the third power of it."""
BEST_TRIALS = 25
"""Of many trials, the model learns from this number of the best ones, and from the newest ones."""
CANDIDATES = 2000
"""Random configurations of which the best ones are improved by small changes."""
IMPROVED = 5
CHANGES = 100
"""Changed copies of each of those."""
DEVIATIONS = (0.1, 0.03)
"""Standard deviations of the changes, which are tried one after the other."""
SHORTER = 0.5
"""The expected improvement is the mean over the model and one whose lengths are multiplied by this number.

The most probable lengths are too sure of themselves: where batch sizes 32 and 512 do not differ, nothing between them
would ever be tried. `benchmarks/README.md` has what is gained by it."""
RIDGE = 0.3
"""Penalty of the regression that predicts the time of an epoch; coordinates are in [0, 1]."""
PRIOR_WIDTH = 0.2
"""Standard deviation of what is expected of a value, as a part of its range."""
OTHER_CHOICES = 0.2
"""How probable another choice is than the expected one."""
PRIOR_TRIALS = 2.0
"""What is expected counts fully while this number of trials is known, and less with each further one."""
TINY = 1e-300
NEW_CURVE = -1
"""Number of a learning curve of which nothing was measured."""
CHANGED_CHOICES = 0.1
"""Probability that a change draws another one of the choices without an order."""


class CurveSampler(BaseSampler):
    """Proposes the configuration whose training in full has the highest expected improvement for its time.

    A Gaussian process over configurations and epochs (`CurveModel`) predicts it from all that was measured, also of
    trials that were stopped, are paused or still run. So it is told apart early which trials only began well.

    Expected improvement: Jones et al. 1998, "Efficient Global Optimization of Expensive Black-Box Functions", equation
    15. It is the mean over two models, and it is divided by the predicted time: coarse forms of what Snoek et al. 2012
    do in "Practical Bayesian Optimization of Machine Learning Algorithms", section 3.2. A trial that runs and has not
    reported yet counts as if it reached what is predicted of it: Ginsbourger et al. 2010, "Kriging Is Well-Suited to
    Parallelize Optimization", the kriging believer.
    """

    def __init__(
        self,
        seed: int,
        epochs: int | None,
        epoch_seconds: EpochSeconds,
        prior: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Begin without any trial.

        Args:
            seed: For random configurations.
            epochs: Epochs of a training in full, or None if that is the longest one there was.
            epoch_seconds: Says how long an epoch of a trial takes.
            prior: Values that the user expects to be good, of some hyperparameters.
        """
        self._seed = seed
        self._prior = prior
        self._epochs = epochs
        self._epoch_seconds = epoch_seconds
        self._random = RandomSampler(seed)
        self._model: CurveModel | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """The hyperparameters that all trials have."""
        return intersection_search_space(study.get_trials(deepcopy=False))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample a configuration; an empty one, for a random one, while too few trials have reported."""
        trials = [other for other in study.get_trials(deepcopy=False) if search_space.keys() <= other.params.keys()]
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        curves = [curve for other in trials if (curve := _curve(other, sign, self._epoch_seconds(other))).costs]
        any_finite = any(math.isfinite(min(curve.costs.values())) for curve in curves)
        space = _Coordinates(search_space)
        if len(curves) < STARTUP_TRIALS or not any_finite:
            return space.decode(self._expected(space, trial.number)) if self._prior and trial.number % 2 else {}
        silent = [
            other.params for other in trials if other.state == TrialState.RUNNING and not other.intermediate_values
        ]
        random = np.random.default_rng([self._seed, trial.number])
        return space.decode(self._best_candidate(space, curves, silent, random))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _expected(self, space: "_Coordinates", number: int) -> Array:
        """Random unit values (hyperparameters) near those that the user expects to be good."""
        random = np.random.default_rng([self._seed, number])
        candidates = space.random(CANDIDATES, random)
        density = np.exp(space.log_density(candidates, self._prior))
        chosen: Array = candidates[random.choice(CANDIDATES, p=density / density.sum())]
        return chosen

    def _best_candidate(
        self, space: "_Coordinates", curves: list["_Curve"], silent: list[dict[str, Any]], random: np.random.Generator
    ) -> Array:
        """The unit values with the highest expected improvement for their time (hyperparameters)."""
        model, best = self._learn(space, _chosen(curves), silent)
        models = model, model.with_lengths(SHORTER)
        log_seconds = _log_seconds(space, curves)
        weight = min(1.0, PRIOR_TRIALS / len(curves))

        def score(units: Array) -> Array:
            places = space.places(units)
            ends = Observations(places, np.ones(1), np.array([NEW_CURVE]))
            expected = np.mean([_expected_improvement(best, *one.predict(ends)) for one in models], axis=0)
            scores: Array = np.log(np.maximum(expected, TINY)) - log_seconds(places)
            return scores + weight * space.log_density(units, self._prior)

        candidates = space.random(CANDIDATES, random)
        for deviation in DEVIATIONS:
            leading = candidates[np.argsort(-score(candidates))[:IMPROVED]]
            candidates = np.concatenate([leading, space.change(np.repeat(leading, CHANGES, axis=0), deviation, random)])
        chosen: Array = candidates[score(candidates).argmax()]
        return chosen

    def _learn(
        self, space: "_Coordinates", curves: list["_Curve"], silent: list[dict[str, Any]]
    ) -> tuple[CurveModel, float]:
        """The model of all measurements, and the lowest cost at the end that it predicts of a trial."""
        finite = [epoch for curve in curves for epoch in curve.costs if epoch < math.inf]
        epochs = self._epochs or max(finite, default=1)
        rows = [(curve.params, epoch, number) for number, curve in enumerate(curves) for epoch in curve.costs]
        params, reached, trainings = zip(*rows, strict=True)
        progress = np.minimum(1.0, np.log1p(np.array(reached)) / math.log1p(epochs))
        seen = Observations(space.places(space.units(params)), progress, np.array(trainings))
        costs = warp(np.array([cost for curve in curves for cost in curve.costs.values()]))
        if self._model is None:
            self._model = CurveModel(seen.places.shape[1])
        self._model.fit(seen, costs)
        ends = _at_the_end(space.places(space.units([curve.params for curve in curves])), np.arange(len(curves)))
        best = float(self._model.predict(ends)[0].min())
        if silent:
            believed = _at_the_end(space.places(space.units(silent)), len(curves) + np.arange(len(silent)))
            costs = np.concatenate([costs, self._model.predict(believed)[0]])
            places, times, numbers = (np.concatenate(pair) for pair in zip(seen, believed, strict=True))
            self._model.learn(Observations(places, times, numbers), costs)
        return self._model, best


class _Curve(NamedTuple):
    """What is known of the learning curve of a trial."""

    number: int
    params: dict[str, Any]
    costs: dict[float, float]
    """Costs by epoch, which is infinity for the end; infinite where the training failed. Not all epochs are there."""
    epoch_seconds: float | None
    """Mean time of an epoch; None while it is not known."""


class _Coordinates:
    """The unit values of hyperparameters, and the coordinates that the model has of them.

    Two different choices without an order have the distance 1 in the coordinates; their unit value is their place.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space: Any = space
        self._choices = [
            len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 0
            for distribution in space.values()
        ]

    def units(self, configurations: Sequence[Mapping[str, Any]]) -> Array:
        """The unit values (configurations, hyperparameters) of configurations."""
        hyperparameters = [*zip(self._space.items(), self._choices, strict=True)]
        rows = [
            [
                float(distribution.choices.index(params[name])) if choices else to_unit(distribution, params[name])
                for (name, distribution), choices in hyperparameters
            ]
            for params in configurations
        ]
        return np.array(rows)

    def decode(self, units: Array) -> dict[str, Any]:
        """The configuration with some unit values."""
        return {
            name: distribution.choices[int(unit)]
            if choices
            else snap(distribution, from_unit(distribution, float(unit)))
            for (name, distribution), choices, unit in zip(self._space.items(), self._choices, units, strict=True)
        }

    def places(self, units: Array) -> Array:
        """The coordinates (configurations, dimensions) of unit values (configurations, hyperparameters)."""
        columns = [
            math.sqrt(0.5) * (column[:, None] == np.arange(choices)) if choices else column[:, None]
            for column, choices in zip(units.T, self._choices, strict=True)
        ]
        return np.concatenate(columns, axis=1)

    def log_density(self, units: Array, prior: Mapping[str, Any]) -> Array:
        """The logarithm of how probable unit values (configurations, hyperparameters) are, but for a constant."""
        total = np.zeros(len(units))
        for (name, distribution), choices, column in zip(self._space.items(), self._choices, units.T, strict=True):
            if name not in prior:
                continue
            if choices:
                total += np.where(column == distribution.choices.index(prior[name]), 0.0, math.log(OTHER_CHOICES))
            else:
                total -= ((column - to_unit(distribution, prior[name])) / PRIOR_WIDTH) ** 2 / 2
        return total

    def random(self, number: int, random: np.random.Generator) -> Array:
        """Unit values of random configurations."""
        units = random.random((number, len(self._choices)))
        factors = np.array([choices or 1 for choices in self._choices])
        return np.where(np.array(self._choices) > 0, np.floor(units * factors), units)

    def change(self, units: Array, deviation: float, random: np.random.Generator) -> Array:
        """Unit values that differ a little from others."""
        moved = np.clip(units + deviation * random.standard_normal(units.shape), 0.0, 1.0)
        is_drawn = random.random(units.shape) < CHANGED_CHOICES
        kept = np.where(is_drawn, self.random(len(units), random), units)
        return np.where(np.array(self._choices) > 0, kept, moved)


def _expected_improvement(best: float, mean: Array, deviation: Array) -> Array:
    """By how much costs that are normally distributed are lower than the best one, where they are, in the mean."""
    gain = (best - mean) / deviation
    density = np.exp(-(gain**2) / 2) / math.sqrt(2 * math.pi)
    expected: Array = deviation * (density + gain * ndtr(gain))
    return expected


def _log_seconds(space: _Coordinates, curves: Sequence[_Curve]) -> Callable[[Array], Array]:
    """A ridge regression that predicts the logarithm of the seconds of an epoch, up to a constant.

    The function that is returned takes coordinates (configurations, dimensions). While nothing is known, it predicts
    the same of all configurations.
    """
    known = [curve for curve in curves if curve.epoch_seconds]
    if not known:
        return lambda places: np.zeros(len(places))
    places = space.places(space.units([curve.params for curve in known]))
    logarithms = np.log(np.array([curve.epoch_seconds for curve in known], dtype=float))
    middle = places.mean(axis=0)
    centred = places - middle
    covariance = centred.T @ centred + RIDGE * np.eye(len(middle))
    slopes = np.linalg.solve(covariance, centred.T @ (logarithms - logarithms.mean()))
    return lambda places: (places - middle) @ slopes


def _at_the_end(places: Array, curves: NDArray[np.int64]) -> Observations:
    return Observations(places, np.ones(len(places)), curves)


def _curve(trial: FrozenTrial, sign: float, epoch_seconds: float | None) -> _Curve:
    """The epochs of a trial by powers of 3, its last and its best one; a failed trial failed in its first epoch."""
    costs: dict[float, float] = {
        max(1, step): sign * value for step, value in sorted(trial.intermediate_values.items())
    }
    costs = {epoch: cost if math.isfinite(cost) else math.inf for epoch, cost in costs.items()}
    if trial.state == TrialState.COMPLETE and not costs and trial.value is not None:
        costs = {math.inf: sign * trial.value}
    if trial.state in (TrialState.PRUNED, TrialState.FAIL) and not costs:
        costs = {1: math.inf}
    last, best = max(costs, default=0), min(costs, key=costs.__getitem__, default=0)
    kept = {epoch: cost for epoch, cost in costs.items() if epoch in (last, best) or _is_power_of_3(epoch)}
    return _Curve(trial.number, trial.params, kept, epoch_seconds)


def _is_power_of_3(epoch: float) -> bool:
    return epoch < math.inf and 3 ** round(math.log(epoch, 3)) == epoch


def _chosen(curves: Sequence[_Curve]) -> list[_Curve]:
    """All curves, or if they have too many measurements the best and the newest ones."""
    if sum(len(curve.costs) for curve in curves) <= MOST_MEASUREMENTS:
        return list(curves)
    by_cost = sorted(curves, key=lambda curve: min(curve.costs.values()))
    best = by_cost[:BEST_TRIALS]
    newest = sorted(by_cost[BEST_TRIALS:], key=lambda curve: -curve.number)
    left = MOST_MEASUREMENTS - sum(len(curve.costs) for curve in best)
    while newest and sum(len(curve.costs) for curve in newest) > left:
        newest.pop()
    return [*best, *newest]
