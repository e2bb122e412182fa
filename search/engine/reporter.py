"""Receives what a training function reports: checks the metrics of each epoch, and passes them on."""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy as np
import torch

from search.record.trial import Metrics, Objective
from search.task.custom_metrics import CustomMetrics
from search.task.metric_names import check_metric_name
from training.checkpoint import Checkpoint
from training.console.terminal import printable
from training.loop import TrainingDivergedError


class Report(Protocol):
    """Receives the metrics of each epoch; may raise an error to stop the trial."""

    def __call__(self, metrics: Metrics, *, is_last: bool) -> None:
        """Receive metrics; `is_last` says that the training has returned them at its end."""


OnRefused: TypeAlias = Callable[[BaseException], None]

LEFT_OUT = (
    "the training also reports what is not recorded, because it is not a number "
    "or because its name has other signs than letters, digits, spaces and _ . / : @ -"
)


LASTING = 3
"""A training has diverged if its metric is not finite in so many reports in a row, or in its last one."""


class LimitReachedError(BaseException):
    """Ends a training function within its report of the last epoch; its `finally` blocks are run."""


class Reporter:
    """Receives the metrics of each epoch, by a call.

    The call raises whatever ends the trial: what `report` raises to stop it, or `LimitReachedError`. A training that
    goes on nevertheless meets it again in its next report.
    """

    def __init__(
        self,
        objective: Objective,
        checkpoint: Checkpoint,
        *,
        limit: int | None,
        report: Report,
        epoch_type: Callable[..., Metrics] = CustomMetrics,
    ) -> None:
        """Receive nothing yet.

        Args:
            objective: What is searched for.
            checkpoint: The first epoch is the one after those that the training has loaded from it.
            limit: Number of the last epoch; None if there is none.
            report: Receives the metrics of each epoch.
            epoch_type: Makes the metrics of an epoch from its `epoch`, its `seconds`, and the reported `values`.
        """
        self.metric = objective.metric
        """The searched metric."""
        self._objective = objective
        self._checkpoint = checkpoint
        self._limit = limit
        self._report = report
        self._epoch_type = epoch_type
        self._warned: set[str] = set()
        self._not_finite: dict[int, float] = {}
        """The values of the metric since the last finite one, by epoch."""
        self._reported = 0
        """Epochs that this process has reported."""
        self._values: set[float] = set()
        """Values of the objective's metric so far."""
        self._names: dict[str, None] = {}
        """Names of all that was reported, in order."""
        self._start = time.perf_counter()
        self.ends_at_limit = True
        """Whether the call for the last epoch ends the training; a training that knows the limit ends by itself."""
        self.end: BaseException | None = None
        """What ends the trial, whatever the training makes of it; None until then."""
        self.on_refused: OnRefused | None = None
        """Is called with the end of the trial in the first call after it, for the training goes on."""
        self._process = os.getpid()

    @property
    def epochs(self) -> int:
        """Number of epochs that were trained."""
        return self._checkpoint.epochs_restored + self._reported

    def __call__(self, reported: object, *, is_last: bool = False) -> None:
        """Receive the metrics of the next epoch.

        Args:
            reported: A dictionary of numbers by name; the searched one may be missing.
            is_last: Whether the training has returned it at its end.

        Raises:
            TrainingDivergedError: The metric is not finite, as in the epochs before.
            ValueError: It is no dictionary, or the metric is no number.
        """
        if os.getpid() != self._process:
            end_forked_process()
        if self.end is not None:
            on_refused, self.on_refused = self.on_refused, None
            if on_refused is not None:
                on_refused(self.end)
            raise self.end
        seconds = round(time.perf_counter() - self._start, 6)
        try:
            if self._limit is not None and self.epochs >= self._limit:
                raise LimitReachedError
            metrics = self._epoch_type(epoch=self.epochs + 1, seconds=seconds, values=self._read(reported))
            self._reported += 1
            if len(self._not_finite) >= LASTING:
                raise self._diverged()
            if self._objective.measured([metrics]):
                self._checkpoint.measured(self.epochs, self._objective.minimized(metrics))
            try:
                self._report(metrics, is_last=is_last)
            finally:
                self._checkpoint.reported(self.epochs)
            if self._limit is not None and self.epochs >= self._limit and self.ends_at_limit:
                raise LimitReachedError
        except BaseException as error:  # Ray ends a trial by SystemExit
            self.end = error
            raise
        self._start = time.perf_counter()

    def close(self) -> None:
        """End the training in later calls, which a thread that it has left behind may make."""
        self.end = self.end or LimitReachedError()
        self.on_refused = None

    def receive_result(self, result: object) -> None:
        """Receive what a function returned: a dictionary of metrics, a number, or None.

        It is one more epoch, unless its metric has been reported before.
        """
        number = as_number(result)
        if number is not None:
            result = {self.metric: number}
        if isinstance(result, Mapping) and as_number(result.get(self.metric)) not in self._values:
            self(result, is_last=True)

    def check_end(self) -> None:
        """Check what was reported when the training has ended by itself.

        Raises:
            TrainingDivergedError: The last value of the metric is not finite.
            ValueError: Nothing was reported, or the metric never was.
        """
        if self.epochs == 0:
            raise ValueError("the training function ended without a metric")
        if self._not_finite:
            raise self._diverged()
        if not self._values and math.isinf(self._checkpoint.best):
            others = ", ".join(map(printable, self._names))
            raise ValueError(f"no epoch has the metric {self.metric}; they have {others or 'none at all'}")

    def _read(self, reported: object) -> dict[str, float | None]:
        """The metrics of an epoch; None for those that are not finite."""
        if not isinstance(reported, Mapping):
            kind = type(reported).__name__
            raise ValueError(f"the training function must report a dictionary of metrics, got {kind}")
        metric = self.metric
        numbers = {str(name): as_number(value) for name, value in reported.items() if _is_metric_name(name)}
        value = numbers.get(metric)
        if value is None and reported.get(metric) is not None:
            raise ValueError(f"metric {metric} must be a number, got {reported[metric]!r:.50}")
        self._names |= dict.fromkeys(str(name) for name, value in reported.items() if value is not None)
        others = [str(name) for name in reported if numbers.get(str(name)) is None and str(name) != metric]
        self._warn(LEFT_OUT, others)
        if value is None:
            found = [name for name, number in numbers.items() if number is not None]
            self._warn(f"epochs without {metric} are recorded, but cannot be the best; they have", found)
        elif math.isfinite(value):
            self._values.add(value)
            self._not_finite = {}
        else:
            self._not_finite[self.epochs + 1] = value
        return {name: value if math.isfinite(value) else None for name, value in numbers.items() if value is not None}

    def _diverged(self) -> TrainingDivergedError:
        values = " and ".join(dict.fromkeys(map(str, self._not_finite.values())))
        first, last = min(self._not_finite), max(self._not_finite)
        place = f"epoch {first}" if first == last else f"epochs {first} to {last}"
        return TrainingDivergedError(f"{self.metric} is {values} in {place}")

    def _warn(self, warning: str, names: Sequence[str]) -> None:
        """Warn once for all epochs, with names."""
        if names and warning not in self._warned:
            self._warned.add(warning)
            self._checkpoint.warn(f"{warning}: {', '.join(map(printable, names))}")


def end_forked_process() -> NoReturn:
    """End this process, a copy of a training: where a copy reports or returns, the training itself does so, too."""
    sys.stdout.flush()
    os._exit(0)


def as_number(value: Any) -> float | None:
    """A number of Python, NumPy or torch as a float; None for anything else."""
    if isinstance(value, str | bytes | complex):  # float would convert it
        return None
    try:
        if isinstance(value, np.ndarray):
            value = value.reshape(())
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _is_metric_name(name: object) -> bool:
    try:
        check_metric_name(str(name))
    except ValueError:
        return False
    return True
