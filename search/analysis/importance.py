"""How much of the differences between trials is due to each hyperparameter, and how sure that is."""

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
MOST_TRIALS = 500
"""So many are looked at, chosen at random: more make the forest slow and the intervals little shorter."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """The share of the variance of the metric that is due to one hyperparameter, alone and together with others."""

    name: str
    share: float
    """About 0 without any effect, then a little below as often as above."""
    low: float
    """Ends of the bootstrap interval over trials."""
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the effect cannot be told from chance: its interval includes 0."""
        return self.low <= 0


def importances(compared: EqualBudget, space: SearchSpace, seed: int = 0) -> list[Importance]:
    """Evaluate the hyperparameters of a space, most important first.

    A forest predicts each trial from trees that have not seen it, once as it is and once with a hyperparameter taken
    from another trial. Half of the increase of the squared error, in relation to the variance, is the share of that
    hyperparameter in a function that the forest knows well (Jansen 1999, "Analysis of variance designs for model
    output", total effect); where it knows nothing, the increase is 0 in the mean.

    Returns:
        Nothing if all values are equal.
    """
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(compared.trials))[:MOST_TRIALS]
    values = np.array([compared.values[index] for index in chosen])
    if np.ptp(values) == 0:
        return []
    points = [compared.trials[index].hyperparameters for index in chosen]
    places = np.array([[_place(space, name, point) for name in space] for point in points])
    increases = _increases(places, values, random) / (2 * values.var())
    drawn = random.integers(len(values), size=(RESAMPLES, len(values)))
    lows, highs = np.percentile(increases[drawn].mean(1), [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2], axis=0)
    found = zip(space, increases.mean(0), lows, highs, strict=True)
    return sorted((Importance(name, *map(float, numbers)) for name, *numbers in found), key=lambda one: -one.share)


def _place(space: SearchSpace, name: str, point: Point) -> float:
    """Where a value lies in its range, in [0, 1]; below that if it was not drawn."""
    return to_unit(space[name], point[name]) if name in point else -0.5


def _increases(places: Numbers, values: Numbers, random: np.random.Generator) -> Numbers:
    """How much the squared error of each trial grows by shuffling each hyperparameter; shape (trials, names)."""
    from sklearn.ensemble import RandomForestRegressor  # a second: only for those who need it

    forest = RandomForestRegressor(TREES, random_state=0).fit(places, values)
    trials, names = places.shape
    shuffled = [places.copy() for _ in range(names * SHUFFLES)]
    for number, table in enumerate(shuffled):
        table[:, number % names] = random.permutation(table[:, number % names])
    tables = np.stack([places, *shuffled]).astype(np.float32)
    sums, counts = np.zeros((len(tables), trials)), np.zeros(trials)
    for tree, sampled in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(trials), sampled)
        predicted = tree.predict(tables[:, unseen].reshape(-1, names), check_input=False)
        sums[:, unseen] += predicted.reshape(len(tables), -1)
        counts[unseen] += 1
    errors: Numbers = (sums / np.maximum(counts, 1) - values) ** 2
    increases: Numbers = errors[1:].reshape(SHUFFLES, names, trials).mean(0) - errors[0]
    return increases.T
