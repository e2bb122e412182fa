"""Receives what a training function reports: checks the metrics of each epoch, and passes them on."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from search.record.custom_metrics import CustomMetrics
from search.record.trial import Objective
from search.settings import check_metric_name
from training.console.terminal import printable
from training.custom_checkpoint import CustomCheckpoint
from training.loop import TrainingDivergedError

Report: TypeAlias = Callable[[CustomMetrics], None]
LEFT_OUT = (
    "the training function also reports what is not recorded, because it is not a number "
    "or because its name has other signs than letters, digits, spaces and _ . / : @ -"
)


class LimitReachedError(BaseException):
    """Ends a training function within its report of the last epoch; its `finally` blocks are run."""


class Reporter:
    """Receives the metrics of each epoch, by a call.

    The call raises whatever ends the trial: what `report` raises to stop it, or `LimitReachedError`. A training that
    goes on nevertheless meets it again in its next report.
    """

    def __init__(
        self, objective: Objective, checkpoint: CustomCheckpoint, *, limit: int | None, report: Report
    ) -> None:
        """Receive nothing yet.

        Args:
            objective: What is searched for; each epoch must have its metric.
            checkpoint: The first epoch is the one after those that the training has loaded from it.
            limit: Number of the last epoch; None if there is none.
            report: Receives the metrics of each epoch; may raise an error to stop the trial.
        """
        self._objective = objective
        self._checkpoint = checkpoint
        self._limit = limit
        self._report = report
        self._has_warned = False
        self._reported = 0
        """Epochs that this process has reported."""
        self._values: set[float] = set()
        """Values of the objective's metric so far."""
        self._start = time.perf_counter()
        self.ends_at_limit = True
        """Whether the call for the last epoch ends the training; a training that knows the limit ends by itself."""
        self.end: BaseException | None = None
        """What ends the trial from outside; None until then."""

    @property
    def epochs(self) -> int:
        """Number of epochs that were trained."""
        return self._checkpoint.epochs_restored + self._reported

    def __call__(self, reported: object) -> None:
        """Receive the metrics of the next epoch, a dictionary of numbers by name.

        Raises:
            TrainingDivergedError: The metric is not finite.
            ValueError: It is no dictionary, or the metric is missing or no number.
        """
        if self.end is not None:
            raise self.end
        seconds = round(time.perf_counter() - self._start, 6)
        if self._limit is not None and self.epochs >= self._limit:
            self._end(LimitReachedError())
        self._reported += 1
        values = _check_metrics(reported, self._objective.metric, self.epochs)
        self._warn_of_others(reported, values)
        metrics = CustomMetrics(epoch=self.epochs, seconds=seconds, values=values)
        self._values.add(self._objective.value(metrics))
        try:
            self._report(metrics)
        except BaseException as error:  # Ray ends a trial like this
            self._end(error)
        finally:
            self._checkpoint.reported(self.epochs, self._objective.minimized(metrics))
        if self._limit is not None and self.epochs >= self._limit and self.ends_at_limit:
            self._end(LimitReachedError())
        self._start = time.perf_counter()

    def receive_result(self, result: object) -> None:
        """Receive what a function returned: a dictionary of metrics, a number, or None.

        It is one more epoch, unless its metric has been reported before.
        """
        number = as_number(result)
        if number is not None:
            result = {self._objective.metric: number}
        if isinstance(result, Mapping) and as_number(result.get(self._objective.metric)) not in self._values:
            self(result)

    def _end(self, error: BaseException) -> None:
        self.end = error
        raise error

    def _warn_of_others(self, reported: object, values: Mapping[str, float | None]) -> None:
        assert isinstance(reported, Mapping), "the metrics were checked"
        others = [printable(str(name)) for name in reported if str(name) not in values]
        if others and not self._has_warned:
            self._has_warned = True
            self._checkpoint.warn(f"{LEFT_OUT}: {', '.join(others)}")


def as_number(value: Any) -> float | None:
    """A number of Python, NumPy or torch as a float; None for anything else."""
    if isinstance(value, str | bytes):  # float would convert it
        return None
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _check_metrics(reported: object, metric: str, epoch: int) -> dict[str, float | None]:
    """The metrics of an epoch, of which the searched one must be finite; None for others that are not."""
    if not isinstance(reported, Mapping):
        raise ValueError(f"the training function must report a dictionary of metrics, got {type(reported).__name__}")
    if reported.get(metric) is None:
        others = ", ".join(str(name) for name, value in reported.items() if value is not None)
        raise ValueError(f"epoch {epoch} has no metric {metric}; it has {others or 'none at all'}")
    numbers = {str(name): as_number(value) for name, value in reported.items() if _is_metric_name(name)}
    value = numbers[metric]
    if value is None:
        raise ValueError(f"metric {metric} must be a number, got {reported[metric]!r:.50}")
    if not math.isfinite(value):
        raise TrainingDivergedError(f"{metric} is {value} in epoch {epoch}")
    return {name: number if math.isfinite(number) else None for name, number in numbers.items() if number is not None}


def _is_metric_name(name: object) -> bool:
    try:
        check_metric_name(str(name))
    except ValueError:
        return False
    return True
