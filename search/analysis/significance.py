"""Whether one group of a comparison found better values than another, as far as chance lets one tell."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from search.analysis.groups import Group
from search.record.ranking import valid_trials
from training.metrics import CONFIDENCE

UPPER_END = 0.5 + CONFIDENCE / 200
"""Of the interval, as a quantile; the lower end is 1 minus this."""
RESAMPLES = 4000
LEAST_TRIALS = 6
"""Trials of an group that measured something; all halves of fewer are too much alike."""
ENOUGH_STUDIES = 3
"""Studies in each of two groups that by themselves show how much chance does."""
CLEARLY_MORE = 1.1
"""So many times as many trials, and an group may be better for their number alone."""

Values = list[NDArray[np.float64]]
"""Of each study of an group, the best value of each trial, the best first; more is better."""


@dataclass(frozen=True)
class Significance:
    """How much better the best value of an group is than that of another, the reference."""

    group: str
    reference: str
    unit: str
    gain: float
    """In this unit, above 0 if the group is better, be the metric an accuracy or a loss."""
    low: float
    high: float
    first: int | None = None
    """How many trials of each study were looked at; None if all."""

    @property
    def is_clear(self) -> bool:
        """Whether chance alone does not make such a difference."""
        return self.low > 0 or self.high < 0

    @property
    def sentence(self) -> str:
        """The significance in plain words."""
        digits = 2 if self.unit == "points" else 4
        within = f", by the first {self.first} trials of each study" if self.first else ""
        if not self.is_clear:
            ends = f"{_signed(self.low, digits)} to {_signed(self.high, digits)}"
            return (
                f"{self.group} against {self.reference}{within}: no difference that this data can show "
                f"(interval {ends} {self.unit})."
            )
        low, high = sorted((abs(self.low), abs(self.high)))
        word = "better" if self.low > 0 else "worse"
        return (
            f"{self.group} is {word} than {self.reference}{within}, by {abs(self.gain):.{digits}f} {self.unit} "
            f"({CONFIDENCE} % interval {low:.{digits}f} to {high:.{digits}f})."
        )


@dataclass(frozen=True)
class TooFewTrials:
    """Why two groups cannot be told apart, or called equal."""

    sentence: str
    is_clear: bool = False


def test_groups(group: Group, reference: Group) -> list[Significance | TooFewTrials]:
    """Compare the best values of two groups; if one had clearly more trials, at an equal number as well.

    With few studies, a resample has of each study the best of a random half of its trials: each is drawn or left by
    the throw of a coin. (The best of all is a corner of what resampling with replacement can reach, and such intervals
    are too short.) If both groups have the same chances, this finds a difference about when five or more of the best
    trials of the two are all of one group, whatever the distribution of the values, so less often than once in 20.

    With enough studies, a resample is a draw of studies with replacement, and the distances from the mean are widened
    by what so few studies hide: sqrt(n / (n - 1)), and Welch's t over the normal quantile (Hesterberg 2015, "What
    Teachers Should Know About the Bootstrap", The American Statistician 69).

    In both, the noise of an accuracy on so many images is added, as if each group had been measured on other ones.
    """
    for side in (reference, group):
        trials = sum(map(len, _values(side)))
        if trials < LEAST_TRIALS:
            return [
                TooFewTrials(
                    f"{group.name} against {reference.name}: not compared, because only {trials} trials of {side.name} "
                    f"have valid metrics; at least {LEAST_TRIALS} are needed to estimate the influence of chance."
                )
            ]
    significances: list[Significance | TooFewTrials] = [_compare(group, reference)]
    ours, theirs = ([len(values) for values in _values(side)] for side in (group, reference))
    first = min(ours + theirs)
    means = sorted((np.mean(ours), np.mean(theirs)))
    if means[1] > CLEARLY_MORE * means[0] and first * min(len(ours), len(theirs)) >= LEAST_TRIALS:
        significances.append(_compare(group, reference, first))
    return significances


def _compare(group: Group, reference: Group, first: int | None = None) -> Significance:
    chance = np.random.default_rng(0)
    sides = [_values(side, first) for side in (group, reference)]
    bests = [np.array([values[0] for values in side]) for side in sides]
    gain = float(bests[0].mean() - bests[1].mean())
    if min(map(len, sides)) >= ENOUGH_STUDIES:
        widening = _students_t(*bests) / t.ppf(UPPER_END, math.inf)
        ours, theirs = (_of_studies(values, chance) for values in bests)
        gains = gain + widening * (ours - theirs)
    else:
        ours, theirs = (_of_halves(side, chance) for side in sides)
        gains = ours - theirs
    noise = math.hypot(*(_noise(side) for side in (group, reference)))
    gains = gains + chance.normal(0.0, noise, RESAMPLES)
    low, high = np.quantile(gains, [1 - UPPER_END, UPPER_END])
    in_points = group.first.metadata.is_accuracy
    unit, scale = ("points", 100.0) if in_points else ("nats", 1.0)
    return Significance(group.name, reference.name, unit, scale * gain, scale * float(low), scale * float(high), first)


def _students_t(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The quantile of t with the degrees of freedom of two samples that may spread differently (Welch 1947)."""
    shares = np.array([bests.var(ddof=1) / len(bests) for bests in (ours, theirs)])
    if shares.any():
        freedom = shares.sum() ** 2 / (shares**2 / [len(ours) - 1, len(theirs) - 1]).sum()
    else:
        freedom = len(ours) + len(theirs) - 2
    return float(t.ppf(UPPER_END, freedom))


def _of_studies(bests: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.float64]:
    """Distances of the means of resampled studies from the mean of all."""
    number = len(bests)
    means = bests[chance.integers(number, size=(RESAMPLES, number))].mean(axis=1)
    distances: NDArray[np.float64] = (means - bests.mean()) * math.sqrt(number / (number - 1))
    return distances


def _of_halves(side: Values, chance: np.random.Generator) -> NDArray[np.float64]:
    """Means of the best values of random halves of resampled studies."""
    longest = max(map(len, side))
    padded = np.array([np.pad(values, (0, longest - len(values)), mode="edge") for values in side])
    chosen = chance.integers(len(side), size=(RESAMPLES, len(side)))
    place_of_best = chance.geometric(0.5, size=chosen.shape) - 1  # the coin leaves out all that are better
    means: NDArray[np.float64] = padded[chosen, np.minimum(place_of_best, longest - 1)].mean(axis=1)
    return means


def _values(group: Group, first: int | None = None) -> Values:
    """Of each study that measured something."""
    found = []
    for record in group.records:
        sign = -1 if record.mode == "min" else 1
        values = np.sort([sign * trial.best_value for trial in valid_trials(record.trials)[:first]])[::-1]
        if len(values):
            found.append(values)
    return found


def _noise(group: Group) -> float:
    """Standard error of an accuracy on so many images; 0 for a loss, of which the record does not tell."""
    if not group.first.metadata.is_accuracy:
        return 0.0
    images = group.first.metadata.metric_images * group.splits
    if not images:
        return 0.0
    best = np.mean([values[0] for values in _values(group)])
    right = (best * images + 1) / (images + 2)  # not sure of itself where all are right
    return math.sqrt(right * (1 - right) / images)


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0: no minus before zero
