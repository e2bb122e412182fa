"""The importance of each hyperparameter: its share of the variance between trials, with an interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.analysis.equal_budget import EqualBudget
from search.space.distributions import to_unit
from search.space.search_space import Point, SearchSpace
from training.metrics import CONFIDENCE

EVALUATOR = "permutation in a random forest, out of bag (Breiman 2001)"
TREES = 200
SHUFFLES = 5
RESAMPLES = 2000
MODERATE = (1e-100, 1e100)
"""Values of other sizes are scaled: their squares would be 0 or infinite."""
MOST_TRIALS = 500
"""At most this number of random trials is evaluated: more make the forest slow and the intervals little shorter."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """The share of a hyperparameter, alone and together with others, in the variance of the metric."""

    name: str
    share: float
    """About 0 without an effect; the estimate may then be negative."""
    low: float
    """Lower bound of the bootstrap interval over trials."""
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether chance alone explains the effect: its interval includes 0."""
        return self.low <= 0


def importances(compared: EqualBudget, space: SearchSpace, seed: int = 0) -> list[Importance]:
    """Evaluate the hyperparameters of a space, most important first; an empty list says that all values are equal.

    A forest predicts each trial with the trees that were not fitted to it, once with its own hyperparameters and once
    with a hyperparameter of another trial. Half of the increase of the squared error, in relation to the variance, is
    the share of that hyperparameter in a function that the forest predicts well (Jansen 1999, "Analysis of variance
    designs for model output", total effect); where it predicts nothing, the mean increase is 0.
    """
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(compared.trials))[:MOST_TRIALS]
    values = np.array([compared.values[index] for index in chosen])
    if values.min() == values.max():
        return []
    largest = np.abs(values).max()
    if not MODERATE[0] < largest < MODERATE[1]:
        values /= largest
    points = [compared.trials[index].hyperparameters for index in chosen]
    unit_points = np.array([[_unit_value(space, name, point) for name in space] for point in points])
    increases = _increases(unit_points, values, random) / (2 * values.var())
    resamples = random.integers(len(values), size=(RESAMPLES, len(values)))
    lows, highs = np.percentile(increases[resamples].mean(1), [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2], axis=0)
    rows = zip(space, increases.mean(0), lows, highs, strict=True)
    return sorted((Importance(name, *map(float, numbers)) for name, *numbers in rows), key=lambda one: -one.share)


def _unit_value(space: SearchSpace, name: str, point: Point) -> float:
    """The position of a value in its range, in [0, 1]; negative for an inactive hyperparameter."""
    return to_unit(space[name], point[name]) if name in point else -0.5


def _increases(unit_points: Numbers, values: Numbers, random: np.random.Generator) -> Numbers:
    """The increase of the squared error of each trial when a hyperparameter is shuffled; shape (trials, names)."""
    from sklearn.ensemble import RandomForestRegressor  # the import takes a second

    forest = RandomForestRegressor(TREES, random_state=0).fit(unit_points, values)
    trials, names = unit_points.shape
    shuffled = [unit_points.copy() for _ in range(names * SHUFFLES)]
    for number, table in enumerate(shuffled):
        table[:, number % names] = random.permutation(table[:, number % names])
    tables = np.stack([unit_points, *shuffled]).astype(np.float32)
    sums, counts = np.zeros((len(tables), trials)), np.zeros(trials)
    for tree, sampled in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(trials), sampled)
        predicted = tree.predict(tables[:, unseen].reshape(-1, names), check_input=False)
        sums[:, unseen] += predicted.reshape(len(tables), -1)
        counts[unseen] += 1
    errors: Numbers = (sums / np.maximum(counts, 1) - values) ** 2
    increases: Numbers = errors[1:].reshape(SHUFFLES, names, trials).mean(0) - errors[0]
    return increases.T
