"""The step size of each optimizer step; a function of the number of the step, so that nothing is to be remembered."""

import math

from training.config import LrScheduleName

RISING = 0.3
"""Part of the steps in which `onecycle` rises; as the two numbers below, the default of `OneCycleLR`."""
FIRST_DIVISOR = 25.0
"""The largest step size through the first one."""
LAST_DIVISOR = 1e4
"""The first step size through the last one."""


def learning_rate_at(schedule: LrScheduleName, learning_rate: float, step: int, steps: int) -> float:
    """The step size of one of all optimizer steps of a training.

    Args:
        schedule: `cosine` is `torch.optim.lr_scheduler.CosineAnnealingLR` over all steps (Loshchilov & Hutter 2017,
            equation 5, without restarts); `onecycle` is `OneCycleLR` (Smith & Topin 2018) with its defaults, except
            that it leaves the momentum alone, which is a hyperparameter of its own.
        learning_rate: The largest step size.
        step: Number of the step, from 0.
        steps: Steps of the whole training.
    """
    match schedule:
        case "none":
            return learning_rate
        case "cosine":
            return _along_cosine(learning_rate, 0.0, step / steps)
        case "onecycle":
            first, top = learning_rate / FIRST_DIVISOR, RISING * steps - 1
            if step <= top:
                return _along_cosine(first, learning_rate, step / top)
            return _along_cosine(learning_rate, first / LAST_DIVISOR, (step - top) / (steps - 1 - top))


def _along_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
