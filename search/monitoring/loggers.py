"""Shows a running study in TensorBoard, MLflow or W&B; an error of a logger does not stop the study."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Literal

from search.monitoring.logger import Logger
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import LoggerName, StudySettings
from training.console.command_line import mask_password
from training.console.terminal import printable, show_event, type_and_text

SHARE_OF_TIME = 0.02
"""Part of the time that a logger may compute while trials run; if it takes more, epochs wait for the next epoch."""
MAX_WAIT_SECONDS = 60.0
"""Seconds that a study waits at its end for a logger, for example one whose server does not answer."""
Call = Literal["epoch", "ended", "close"]


def check_packages(settings: StudySettings) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ValueError: A package cannot be imported; the message says what to install.
    """
    for name in settings.log:
        try:
            _logger_factory(name, settings)
        except ImportError as error:
            package = "tensorboardX" if name == "tensorboard" else name
            raise ValueError(f"log {name} needs the package {package} ({error}): pip install {package}") from None


class Loggers:
    """Sends the trials of a study to its loggers; each logger has its own thread, so the study does not wait for it.

    A logger that raises an error is switched off, and this is printed once.
    """

    def __init__(self, settings: StudySettings, record: StudyRecord) -> None:
        """Start the loggers, and send them the trials that the record already holds."""
        self._record = record
        self._threads = [_LoggerThread(name, partial(_logger_factory(name, settings), record)) for name in settings.log]
        self._is_closed = False
        for trial in record.trials:
            self._send("epoch" if trial.may_continue else "ended", trial)

    def epoch(self, trial: TrialRecord) -> None:
        """Send a trial that has a new epoch."""
        self._send("epoch", trial, may_wait=True)

    def ended(self, trial: TrialRecord) -> None:
        """Send a trial that has ended."""
        self._send("ended", trial)

    def close(self) -> None:
        """Close the loggers, and wait until they have written everything, at most `MAX_WAIT_SECONDS`."""
        if self._is_closed:
            return
        self._is_closed = True
        for trial in self._record.trials:
            if trial.may_continue:
                self._send("epoch", trial)
        for thread in self._threads:
            thread.send("close")
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        for thread in self._threads:
            thread.wait(deadline)

    def _send(self, call: Call, trial: TrialRecord, *, may_wait: bool = False) -> None:
        if not self._threads:
            return
        copy = replace(trial, epochs=list(trial.epochs))  # the study adds epochs meanwhile
        for thread in self._threads:
            thread.send(call, copy, may_wait=may_wait)
            thread.show_error()


class _LoggerThread:
    """Runs one logger in a thread, until the study is over or the logger raises an error."""

    def __init__(self, name: LoggerName, make: Callable[[], Logger]) -> None:
        self._name = name
        self._make = make
        self._calls: SimpleQueue[tuple[Call, tuple[TrialRecord, ...], bool]] = SimpleQueue()
        self._error: str | None = None
        """The error of the logger, until it is printed."""
        self._thread = threading.Thread(target=self._run, name=f"log {name}", daemon=True)
        self._thread.start()

    def send(self, call: Call, *trial: TrialRecord, may_wait: bool = False) -> None:
        """Queue a call of the logger, unless it was switched off.

        Args:
            call: The method of the logger.
            trial: Its argument; `close` has none.
            may_wait: Whether the call may be skipped, because the next call for this trial writes the same epochs.
        """
        if self._thread.is_alive():
            self._calls.put((call, trial, may_wait))

    def show_error(self) -> None:
        """Print once that the logger was switched off; the thread that writes to the terminal calls this."""
        if self._error:
            error, self._error = self._error, None
            show_event(f"{self._name} is switched off ({error}); the study continues")

    def wait(self, deadline: float) -> None:
        """Wait until the logger has written everything, or until a time of the monotonic clock."""
        self._thread.join(min(3.0, max(0.0, deadline - time.monotonic())))
        if self._thread.is_alive():
            show_event(f"waiting for {self._name}, at most {MAX_WAIT_SECONDS:.0f} seconds")
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            show_event(f"{self._name} has not written everything; --resume together with --log writes the rest")
        self.show_error()

    def _run(self) -> None:
        try:
            logger = self._make()
            next_epoch, is_over = 0.0, False
            while not is_over:
                call, trial, may_wait = self._calls.get()
                if may_wait and time.monotonic() < next_epoch:
                    continue
                before = time.thread_time()
                getattr(logger, call)(*trial)
                next_epoch = time.monotonic() + (time.thread_time() - before) / SHARE_OF_TIME
                is_over = call == "close"
        except Exception as error:  # no error of a logger may stop the study
            sentence = mask_password(type_and_text(error))
            self._error = printable(sentence if len(sentence) <= 300 else f"{sentence[:300]}…")


def _logger_factory(name: LoggerName, settings: StudySettings) -> Callable[[StudyRecord], Logger]:
    """Import the package of a logger, and return the function that creates the logger for a record."""
    match name:
        case "tensorboard":
            from search.monitoring.tensorboard_logger import TensorBoardLog

            return TensorBoardLog
        case "wandb":
            from search.monitoring.wandb_logger import WandbLog

            return WandbLog
        case "mlflow":
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow would send usage data
            os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
            from search.monitoring.mlflow_logger import MlflowLog

            default = f"sqlite:///{settings.results_dir.resolve() / 'mlflow.db'}"
            return partial(MlflowLog, uri=settings.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or default)
