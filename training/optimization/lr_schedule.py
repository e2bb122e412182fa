"""The learning rate of each optimizer step, as a function of the number of the step, without a state."""

import math

from training.config import LrScheduleName

RISING = 0.3
"""Part of the steps in which the learning rate of `onecycle` rises; the default of `OneCycleLR`."""
FIRST_DIVISOR = 25.0
"""The largest learning rate of `onecycle` divided by the first one; the default of `OneCycleLR`."""
LAST_DIVISOR = 1e4
"""The first learning rate of `onecycle` divided by the last one; the default of `OneCycleLR`."""


def learning_rate_at(schedule: LrScheduleName, learning_rate: float, step: int, steps: int) -> float:
    """The learning rate of an optimizer step.

    Args:
        schedule: `cosine` is `torch.optim.lr_scheduler.CosineAnnealingLR` over all steps (Loshchilov & Hutter 2017,
            equation 5, without restarts); `onecycle` is `OneCycleLR` (Smith & Topin 2018) with its defaults, except
            that it does not change the momentum, which is a hyperparameter of its own.
        learning_rate: The largest learning rate.
        step: Number of the step, from 0.
        steps: Number of steps in the whole training.
    """
    match schedule:
        case "none":
            return learning_rate
        case "cosine":
            return _cosine_value(learning_rate, 0.0, step / steps)
        case "onecycle":
            first, top = learning_rate / FIRST_DIVISOR, RISING * steps - 1
            if step <= top:
                return _cosine_value(first, learning_rate, step / top)
            return _cosine_value(learning_rate, first / LAST_DIVISOR, (step - top) / (steps - 1 - top))


def _cosine_value(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
