"""The significance of a difference between two groups: how much better one is, with an interval."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from search.analysis.groups import Group
from search.record.ranking import valid_trials
from training.console.terminal import counted
from training.metrics import CONFIDENCE

UPPER_END = 0.5 + CONFIDENCE / 200
"""The quantile of the upper bound of an interval; that of the lower bound is 1 minus this."""
RESAMPLES = 4000
LEAST_TRIALS = 6
"""A group must have this number of valid trials: random halves of fewer trials differ too little."""
ENOUGH_STUDIES = 3
"""This number of studies in each group shows the influence of chance by itself."""
USEFUL = 0.02
"""An interval from below -2 to above +2 points of accuracy, or this part of another metric, says nothing of use."""
CLEARLY_MORE = 1.1
"""A group with this times as many trials may be better only because of their number."""

Values = list[NDArray[np.float64]]
"""For each study of a group, the best value of each trial, the best first; larger is better."""


@dataclass(frozen=True)
class Significance:
    """The difference between the best values of a group and of the reference group."""

    group: str
    reference: str
    unit: str
    gain: float
    """In this unit, above 0 if the group is better, for an accuracy and for a loss."""
    low: float
    high: float
    first: int | None = None
    """Number of trials of each study that were compared; None if all were."""
    useful: float = math.inf
    """An interval that reaches further than this from 0 on both sides says nothing of use."""

    @property
    def is_clear(self) -> bool:
        """Whether the difference is larger than chance explains: its interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def sentence(self) -> str:
        """The difference with its interval, as one sentence."""
        digits = 2 if self.unit == "points" else 4
        within = f", in the first {self.first} trials of each study" if self.first else ""
        if not self.is_clear:
            bounds = f"{_signed(self.low, digits)} to {_signed(self.high, digits)} {self.unit}"
            told = f"no significant difference ({CONFIDENCE} % interval {bounds})."
            if min(-self.low, self.high) > self.useful:
                told = (
                    f"too few data to tell, because either may be much better ({CONFIDENCE} % interval {bounds}). "
                    "Compare more studies of each."
                )
            return f"{self.group} against {self.reference}{within}: {told}"
        low, high = sorted((abs(self.low), abs(self.high)))
        comparison = "better" if self.low > 0 else "worse"
        return (
            f"{self.group} is {comparison} than {self.reference}{within}, by {abs(self.gain):.{digits}f} {self.unit} "
            f"({CONFIDENCE} % interval {low:.{digits}f} to {high:.{digits}f})."
        )


@dataclass(frozen=True)
class TooFewTrials:
    """The reason why two groups cannot be compared."""

    sentence: str
    is_clear: bool = False


def test_groups(group: Group, reference: Group) -> list[Significance | TooFewTrials]:
    """Compare the best values of two groups; if one has clearly more trials, compare an equal number as well.

    With few studies, a resample contains a random half of the trials of each study, chosen by the throw of a coin, and
    the best value of each half is compared. (Resampling with replacement makes such intervals too short, because the
    best value is at the edge of what it can reach.) If both groups are equally good, this finds a difference if five or
    more of the best trials of the two all belong to one group, whatever the distribution of the values: less often
    than once in 20.

    With enough studies, a resample contains studies sampled with replacement, and the distances from the mean are
    widened because the studies are few: by sqrt(n / (n - 1)), and by Welch's t over the normal quantile (Hesterberg
    2015, "What Teachers Should Know About the Bootstrap", The American Statistician 69).

    In both cases, the noise of an accuracy on a number of images is added, as if each group had been measured on other
    images.
    """
    for side in (reference, group):
        trials = sum(map(len, _values(side)))
        if trials < LEAST_TRIALS:
            return [
                TooFewTrials(
                    f"{group.name} against {reference.name}: not compared, because {side.name} has only "
                    f"{counted(trials, 'trial')} with valid metrics; at least {LEAST_TRIALS} are needed."
                )
            ]
    significances: list[Significance | TooFewTrials] = [_compare(group, reference)]
    sizes = [[len(values) for values in _values(side)] for side in (group, reference)]
    first = min(map(min, sizes))
    fewer, more = sorted(map(np.mean, sizes))
    if more > CLEARLY_MORE * fewer and first * min(map(len, sizes)) >= LEAST_TRIALS:
        significances.append(_compare(group, reference, first))
    return significances


def _compare(group: Group, reference: Group, first: int | None = None) -> Significance:
    random = np.random.default_rng(0)
    sides = [_values(side, first) for side in (group, reference)]
    bests = [np.array([values[0] for values in side]) for side in sides]
    gain = float(bests[0].mean() - bests[1].mean())
    if min(map(len, sides)) >= ENOUGH_STUDIES:
        widening = _students_t(*bests) / t.ppf(UPPER_END, math.inf)
        distances = [_resample_studies(values, random) for values in bests]
        gains = gain + widening * (distances[0] - distances[1])
    else:
        means = [_resample_halves(side, random) for side in sides]
        gains = means[0] - means[1]
    noise = math.hypot(*(_noise(side) for side in (group, reference)))
    gains = gains + random.normal(0.0, noise, RESAMPLES)
    low, high = np.quantile(gains, [1 - UPPER_END, UPPER_END])
    metadata = group.first.metadata
    in_points, unit = metadata.is_accuracy, metadata.task.unit(group.first.metric)
    scale = 100.0 if in_points else 1.0
    useful = USEFUL * (1 if in_points else abs(float(bests[1].mean())))
    low, high, gain, useful = (scale * float(value) for value in (low, high, gain, useful))
    return Significance(group.name, reference.name, unit, gain, low, high, first, useful)


def _students_t(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The quantile of t with the degrees of freedom of two samples with different variances (Welch 1947)."""
    shares = np.array([bests.var(ddof=1) / len(bests) for bests in (first, second)])
    if shares.any():
        freedom = shares.sum() ** 2 / (shares**2 / [len(first) - 1, len(second) - 1]).sum()
    else:
        freedom = len(first) + len(second) - 2
    return float(t.ppf(UPPER_END, freedom))


def _resample_studies(bests: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Distances of the means of resampled studies from the mean of all."""
    number = len(bests)
    means = bests[random.integers(number, size=(RESAMPLES, number))].mean(axis=1)
    distances: NDArray[np.float64] = (means - bests.mean()) * math.sqrt(number / (number - 1))
    return distances


def _resample_halves(side: Values, random: np.random.Generator) -> NDArray[np.float64]:
    """Means of the best values of random halves of resampled studies."""
    longest = max(map(len, side))
    padded = np.array([np.pad(values, (0, longest - len(values)), mode="edge") for values in side])
    chosen = random.integers(len(side), size=(RESAMPLES, len(side)))
    rank_of_best = random.geometric(0.5, size=chosen.shape) - 1  # the number of better trials that the coin left out
    means: NDArray[np.float64] = padded[chosen, np.minimum(rank_of_best, longest - 1)].mean(axis=1)
    return means


def _values(group: Group, first: int | None = None) -> Values:
    """The values of each study that has a valid trial."""
    result = []
    for record in group.records:
        sign = -1 if record.mode == "min" else 1
        values = np.sort([sign * trial.best_value for trial in valid_trials(record.trials)[:first]])[::-1]
        if len(values):
            result.append(values)
    return result


def _noise(group: Group) -> float:
    """Standard error of an accuracy on the images of a group; 0 for a loss, whose variance is not recorded."""
    if not group.first.metadata.is_accuracy:
        return 0.0
    images = group.first.metadata.metric_images * group.splits
    if not images:
        return 0.0
    best = np.mean([values[0] for values in _values(group)])
    right = (best * images + 1) / (images + 2)  # above 0 even if all images are right
    return math.sqrt(right * (1 - right) / images)


def _signed(value: float, digits: int) -> str:
    if 0 < abs(value) < 5e-5 or abs(value) >= 1e6:
        return f"{value:+.2g}"
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0: no minus before zero
