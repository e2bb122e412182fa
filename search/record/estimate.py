"""Estimates the mean of a metric over seeds: Student's interval, and the epoch with the best mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from training.metrics import CONFIDENCE

FEWEST_SEEDS = 2
"""A standard deviation needs two trainings."""
ROUNDING = 1e-9
"""An interval narrower than this part of its mean is the rounding of equal values."""
_UPPER = 0.5 + CONFIDENCE / 200


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the interval in which the mean over all possible seeds is expected."""

    mean: float
    deviation: float
    """Standard deviation of one training; 0 where all agree."""
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether the deviation could be measured; where all values are equal, it could not."""
        return self.high - self.low > ROUNDING * abs(self.mean)


def t_interval(values: Sequence[float], deviation: float | None = None, *, step: float = 0.0) -> Estimate:
    """Mean and Student's interval, mean +- t s / sqrt(n) (Student 1908, "The Probable Error of a Mean", Biometrika 6).

    Args:
        values: Measured in independent trainings; two or more.
        deviation: The standard deviation s if it is known; by default that of the values.
        step: The values are multiples of it, as an accuracy is one of 1 / images. Equal values then do not mean that s
            is 0: s is at least step / sqrt(n), as if one of the values differed by one step.
    """
    number, mean = len(values), float(np.mean(values))
    deviation = float(np.std(values, ddof=1)) if deviation is None else deviation
    deviation = max(deviation, step / math.sqrt(number))
    reach = float(stdtrit(number - 1, _UPPER)) * deviation / math.sqrt(number)
    return Estimate(mean, deviation, mean - reach, mean + reach)


def accuracy_estimate(accuracies: Sequence[float], images: int, deviation: float | None = None) -> Estimate:
    """Mean and Student's interval of accuracies on this number of images (0: unknown), cut off at 0 and 1."""
    estimate = t_interval(accuracies, deviation, step=1 / images if images else 0.0)
    return cut(estimate, 1.0)


def cut(estimate: Estimate, largest: float | None) -> Estimate:
    """Cut an interval off at 0 and at the largest possible value; None if the values have no known bounds.

    The true mean lies between the bounds, so the interval contains it as often as before.
    """
    if largest is None:
        return estimate
    return replace(estimate, low=max(0.0, estimate.low), high=min(largest, estimate.high))


def best_mean_epoch(curves: Sequence[Sequence[float]], *, lowest: bool = False) -> int:
    """The epoch, from 1, with the best mean over trainings; the earliest of equals.

    There is one epoch for all trainings, because noise would choose the best epoch of each training. A training that
    ended by itself before the others counts with its last value.
    """
    longest = max(map(len, curves))
    means = np.mean([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves], axis=0)
    return int(means.argmin() if lowest else means.argmax()) + 1
