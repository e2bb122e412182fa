"""Predicts which configurations do not fit into the memory, from the memory that the trials before them took."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial
from scipy.special import log_ndtr

from search.record.trial import ENDED_BY_RAY
from search.space.distributions import to_unit, values_of
from search.space.search_space import Point, SearchSpace, contains
from training.micro_batch import is_of_gpu

Array = NDArray[np.float64]

FEWEST_TRIALS = 5
"""Nothing is predicted before this number of trials has ended."""
MOST_TRIALS = 200
"""The prediction knows this number of trials, the newest ones."""
SURE = 1.0
"""A configuration does not fit unless its prediction is this number of standard deviations below the limit.

`benchmarks/README.md` has the share of lost trials for other numbers."""
NOISE = 0.05
"""Standard deviation of the logarithm of what is measured: equal trainings differ by a few per cent."""
BASE = 0.95
"""Part of the smallest memory of a trial that belongs to all trials, such as the libraries."""
SLOPE = 1.5
"""Prior standard deviation of the change of the logarithm over the range of a hyperparameter: a factor of 4.5."""
BENDS = ((0.3, 1.0), (1.0, 1.0), (1.0, 2.0))
"""Prior standard deviations of what is not linear in the logarithm, and the distances over which it changes."""
FIRST_GUESS = 0.3
"""By how much the logarithm of what a trial needed exceeds the limit, before there is a model."""
ROUNDS = 4
"""How often the memory that trials would have needed that did not get it is estimated again."""


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """What is known of the memory of a machine that a trial can have, in megabytes; None where nothing is known."""

    of_trial_mb: float | None = None
    """What the user says that a trial may take."""
    of_machine_mb: float | None = None
    """What the largest machine has."""


class MemoryPrediction:
    """Says of configurations whether they are predicted not to fit into the memory of a trial.

    There is a prediction for the memory of the machine and one for that of GPUs. The limit of the machine's memory is
    the one that the user has set. Otherwise it is learned: if a trial has run out of memory, the limit is the largest
    memory that any trial is known to have had.
    """

    def __init__(self, space: SearchSpace, limit: MemoryLimit | None = None) -> None:
        """Know no trial yet.

        Args:
            space: The search space.
            limit: What is known of the machine's memory.
        """
        self._space = space
        self._memories = {"peak_mb": _Memory(limit or MemoryLimit()), "peak_gpu_mb": _Memory(MemoryLimit())}
        self._known: set[int] = set()
        """Numbers of the trials that have ended, or were paused."""

    def add(self, trial: FrozenTrial) -> None:
        """Learn from a trial of this study that has ended, or that is paused."""
        if not contains(self._space, trial.params):
            return
        self._known.add(trial.number)
        memory, failure = trial.user_attrs.get("memory", {}), trial.user_attrs.get("failure", {})
        ran_out, error = failure.get("kind") == "out_of_memory", failure.get("error", "")
        for name, one in self._memories.items():
            ran_out_of_it = ran_out and is_of_gpu(error) == (name == "peak_gpu_mb")
            asked = not error.startswith(ENDED_BY_RAY)
            one.add(self._features(trial.params), memory.get(name), ran_out=ran_out_of_it, asked_for_more=asked)

    def excess(self, point: Point) -> float:
        """How clearly a configuration is predicted not to fit: it does not if this is above 0."""
        if len(self._known) < FEWEST_TRIALS:
            return -math.inf
        features = self._features(point)
        return max(one.excess(features) for one in self._memories.values())

    def _features(self, point: Point) -> list[float]:
        """Coordinates around 0, from -0.5 to 0.5; a choice has one for each value, and what is inactive lies at 0."""
        features: list[float] = []
        for name, distribution in self._space.items():
            if isinstance(distribution, CategoricalDistribution):
                features += [0.5 if point.get(name) == value else 0.0 for value in values_of(distribution) or ()]
            elif name in point:
                features += [to_unit(distribution, point[name]) - 0.5, 0.0]
            else:
                features += [0.0, 0.5]
        return features


class _Memory:
    """The memory of one kind, in trials and in predictions.

    The model is a Gaussian process over the logarithm of the memory (Rasmussen and Williams 2006, "Gaussian Processes
    for Machine Learning", chapter 2): linear in the features, which most products of sizes are, with bends. The memory
    of a trial that has run out of it is at least the limit: it counts with its mean under this condition, which is
    estimated in turn with the model (Tobin 1958; the expectation of an EM step).
    """

    def __init__(self, limit: MemoryLimit) -> None:
        self._limit = limit
        self._features: list[list[float]] = []
        self._peaks: list[float | None] = []
        self._ran_out: list[bool] = []
        self._asked_for_more: list[bool] = []
        self._model: _Model | None = None
        self._is_new = False
        self._largest = self._base = 0.0

    def add(self, features: list[float], peak_mb: float | None, *, ran_out: bool, asked_for_more: bool) -> None:
        """Add a trial.

        Args:
            features: Those of its configuration.
            peak_mb: Its peak, or what was measured of it before the memory ran out; None where nothing was measured.
            ran_out: Whether it ran out of this memory.
            asked_for_more: Whether it would then have had more than the limit; otherwise it was ended because the
                machine's memory was full, to which others may have contributed.
        """
        self._largest = max(self._largest, peak_mb or 0.0)
        if peak_mb or ran_out:
            self._features.append(features)
            self._peaks.append(peak_mb)
            self._ran_out.append(ran_out)
            self._asked_for_more.append(asked_for_more)
            for values in (self._features, self._peaks, self._ran_out, self._asked_for_more):
                del values[:-MOST_TRIALS]
            self._is_new = True

    @property
    def limit(self) -> float | None:
        """The largest memory that a trial can have, as far as it is known."""
        if self._limit.of_trial_mb is not None:
            return self._limit.of_trial_mb
        return self._largest if any(self._ran_out) and self._largest else self._limit.of_machine_mb

    def excess(self, features: list[float]) -> float:
        limit = self.limit
        if limit is None or all(self._ran_out) or not (any(self._ran_out) or self._largest > limit / 2):
            return -math.inf
        if self._is_new:
            ran_out = np.array(self._ran_out)
            peaks = np.array([peak or 1.0 for peak in self._peaks])
            bounds = np.where(self._asked_for_more, np.maximum(peaks, limit), peaks)
            needs = np.where(ran_out, bounds, peaks)
            self._base = BASE * float(min(needs))
            noise = NOISE * needs / (needs - self._base)
            self._model = _fit(np.array(self._features), np.log(needs - self._base), noise, ran_out)
            self._is_new = False
        assert self._model is not None, "there are trials"
        mean, deviation = self._model.predict(np.array([features]))
        room = max(limit - self._base, 1.0)
        return float(mean[0] + SURE * math.hypot(deviation[0], NOISE * limit / room) - math.log(room))


class _Model:
    """A Gaussian process with a linear part, and one that bends."""

    def __init__(self, features: Array, noise: Array, scale: float, distance: float) -> None:
        self._features, self._scale, self._distance = features, scale, distance
        covariance = self._covariance(features, features) + np.diag(noise**2)
        self._inverse = np.linalg.inv(covariance)
        self._log_determinant = float(np.linalg.slogdet(covariance).logabsdet)
        self._weights, self._mean = np.zeros(len(features)), 0.0

    def fit(self, values: Array) -> float:
        """Fit to values; returns their log likelihood."""
        self._mean = float(values.mean())
        self._weights = self._inverse @ (values - self._mean)
        return float(-0.5 * ((values - self._mean) @ self._weights + self._log_determinant))

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Means and standard deviations."""
        covariance = self._covariance(features, self._features)
        own = SLOPE**2 * (features**2).sum(1) + self._scale**2 + 1.0
        variance = own - ((covariance @ self._inverse) * covariance).sum(1)
        return self._mean + covariance @ self._weights, np.sqrt(np.maximum(variance, 0.0))

    def without_each(self, values: Array) -> tuple[Array, Array]:
        """For each trial, mean and standard deviation of what the others say (Rasmussen and Williams, 5.12)."""
        variance = 1 / np.diag(self._inverse)
        return values - self._weights * variance, np.sqrt(variance)

    def _covariance(self, one: Array, other: Array) -> Array:
        squares = ((one[:, None, :] - other[None, :, :]) ** 2).sum(-1)
        linear = 1.0 + SLOPE**2 * one @ other.T
        return np.asarray(linear + self._scale**2 * np.exp(-squares / (2 * self._distance**2)))


def _fit(features: Array, known: Array, noise: Array, is_bound: NDArray[np.bool_]) -> _Model:
    """The most likely of the models of what is known; some of it is a lower bound."""
    best: tuple[float, _Model] | None = None
    for scale, distance in BENDS:
        model = _Model(features, noise, scale, distance)
        values = known + FIRST_GUESS * is_bound
        likelihood = model.fit(values)
        for _ in range(ROUNDS if is_bound.any() else 0):
            mean, deviation = model.without_each(values)
            values = np.where(is_bound, _mean_above(known, mean, deviation), known)
            likelihood = model.fit(values)
        if best is None or likelihood > best[0]:
            best = likelihood, model
    assert best is not None, "there are models"
    return best[1]


def _mean_above(bounds: Array, mean: Array, deviation: Array) -> Array:
    """The means of normal distributions above bounds."""
    below = (bounds - mean) / deviation
    density = np.exp(-0.5 * below**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(-below))
    return np.asarray(mean + deviation * density)
