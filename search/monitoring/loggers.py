"""Shows a study elsewhere while it runs, in TensorBoard, MLflow or W&B; whatever happens there, it goes on."""

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
from training.console.terminal import printable, show_event

SHARE_OF_TIME = 0.02
"""Part of the time that a logger may compute while trials run; epochs that would take more wait for the next one."""
PATIENCE_SECONDS = 60.0
"""How long the end of a study waits for a logger, for example one whose server does not answer."""
Call = Literal["epoch", "ended", "close"]


def check_packages(settings: StudySettings) -> None:
    """Refuse a logger whose package is not there.

    Raises:
        ValueError: It cannot be imported; the message says what to install.
    """
    for name in settings.log:
        try:
            _maker(name, settings)
        except ImportError as error:
            package = "tensorboardX" if name == "tensorboard" else name
            raise ValueError(f"log {name} needs the package {package} ({error}): pip install {package}") from None


class Loggers:
    """Tells the loggers of a study what the record holds, each in a thread of its own: the study waits for none.

    One that raises is switched off, and that is said once.
    """

    def __init__(self, settings: StudySettings, record: StudyRecord) -> None:
        """Begin with what the record holds already."""
        self._record = record
        self._listeners = [_Listener(name, partial(_maker(name, settings), record)) for name in settings.log]
        self._is_closed = False
        for trial in record.trials:
            self._tell("ended" if trial.has_ended else "epoch", trial)

    def epoch(self, trial: TrialRecord) -> None:
        """Tell that a trial has one more epoch."""
        self._tell("epoch", trial, may_wait=True)

    def ended(self, trial: TrialRecord) -> None:
        """Tell that a trial has ended."""
        self._tell("ended", trial)

    def close(self) -> None:
        """Tell that the study is over, and wait until that is shown, but not for ever."""
        if self._is_closed:
            return
        self._is_closed = True
        for trial in self._record.trials:
            if not trial.has_ended:
                self._tell("epoch", trial)
        for listener in self._listeners:
            listener.tell("close")
        deadline = time.monotonic() + PATIENCE_SECONDS
        for listener in self._listeners:
            listener.wait(deadline)

    def _tell(self, call: Call, trial: TrialRecord, *, may_wait: bool = False) -> None:
        if not self._listeners:
            return
        told = replace(trial, epochs=list(trial.epochs))  # the study goes on meanwhile
        for listener in self._listeners:
            listener.tell(call, told, may_wait=may_wait)
            listener.say_trouble()


class _Listener:
    """One logger in its thread, until the study is over or it raises."""

    def __init__(self, name: LoggerName, make: Callable[[], Logger]) -> None:
        self._name = name
        self._make = make
        self._calls: SimpleQueue[tuple[Call, tuple[TrialRecord, ...], bool]] = SimpleQueue()
        self._trouble: str | None = None
        """What it raised, until that is said."""
        self._thread = threading.Thread(target=self._listen, name=f"log {name}", daemon=True)
        self._thread.start()

    def tell(self, call: Call, *trial: TrialRecord, may_wait: bool = False) -> None:
        """Have it told something; one that was switched off is told nothing.

        Args:
            call: What.
            trial: Of which trial.
            may_wait: Whether it may be left for the next call about this trial.
        """
        if self._thread.is_alive():
            self._calls.put((call, trial, may_wait))

    def say_trouble(self) -> None:
        """Say, once, that it was switched off; by the thread that writes to the terminal."""
        if self._trouble:
            trouble, self._trouble = self._trouble, None
            show_event(f"{self._name} is switched off ({trouble}); the study goes on")

    def wait(self, deadline: float) -> None:
        """Wait until it has taken in everything, or until a time of the monotonic clock."""
        self._thread.join(min(3.0, max(0.0, deadline - time.monotonic())))
        if self._thread.is_alive():
            show_event(f"waiting for {self._name}, at most {PATIENCE_SECONDS:.0f} seconds")
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            show_event(f"{self._name} has not taken in everything; --resume with --log goes on with that")
        self.say_trouble()

    def _listen(self) -> None:
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
        except Exception as error:  # whatever it is, it is not the study's
            sentence = mask_password(" ".join(f"{type(error).__name__}: {error}".split()))
            self._trouble = printable(sentence if len(sentence) <= 300 else f"{sentence[:300]}…")


def _maker(name: LoggerName, settings: StudySettings) -> Callable[[StudyRecord], Logger]:
    """What makes a logger for a record; its package is imported here."""
    match name:
        case "tensorboard":
            from search.monitoring.tensorboard_logger import TensorBoardLog

            return TensorBoardLog
        case "wandb":
            from search.monitoring.wandb_logger import WandbLog

            return WandbLog
        case "mlflow":
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is sent that was not asked for
            os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
            from search.monitoring.mlflow_logger import MlflowLog

            own = f"sqlite:///{settings.results_dir.resolve() / 'mlflow.db'}"
            return partial(MlflowLog, uri=settings.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or own)
