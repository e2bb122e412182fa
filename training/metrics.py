"""The metrics of an epoch of a training on images, and the interval of an accuracy."""

import math
from dataclasses import dataclass

CONFIDENCE = 95
"""Confidence level in per cent of all intervals in this project."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochMetrics:
    """The metrics at the end of an epoch; field names are also CSV columns."""

    epoch: int
    """Number of finished epochs, from 1."""
    train_loss: float
    """Mean cross-entropy over the training images during the epoch, nats per image; `label_smoothing` smooths the
    labels in it."""
    val_accuracy: float | None
    """Part of the validation images classified correctly, in [0, 1]; None without a validation split."""
    val_loss: float | None
    """Mean cross-entropy over the validation images, nats per image; None without a validation split."""
    test_accuracy: float
    """Part of the test images classified correctly, in [0, 1]."""
    test_loss: float
    """Mean cross-entropy over the test images, nats per image."""
    seconds: float
    """Wall-clock time of the epoch, training and evaluation."""
    evaluation_seconds: float
    """Part of `seconds` for the evaluation."""


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """The interval in which an accuracy on other images of the same kind is expected.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22. Unlike the accuracy
    +- 2 standard errors it stays in [0, 1] and is not empty where all images are right.

    Args:
        accuracy: Part of the images classified correctly, in [0, 1].
        images: Number of images; >= 1.

    Returns:
        The bounds, in [0, 1].
    """
    from scipy.stats import binomtest  # half a second

    interval = binomtest(round(accuracy * images), images).proportion_ci(CONFIDENCE / 100, method="wilson")
    return float(interval.low), float(interval.high)


def may_be_chance(one: float, other: float, images: int) -> bool:
    """Whether the difference of two accuracies can be chance, as if each was measured on other images.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17,
    method 10: from the two intervals of Wilson.
    """
    lower, higher = sorted((one, other))
    (_, top), (bottom, _) = accuracy_interval(lower, images), accuracy_interval(higher, images)
    return higher - lower <= math.hypot(top - lower, higher - bottom)
