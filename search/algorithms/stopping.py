"""Ends a study before all its trials have ended: on a signal, after a time, or when every trial fails alike."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from ray.tune import Stopper

from search.record.trial import TrialRecord
from training.console.keys import restore_terminal
from training.console.notebook import in_notebook

SAME_FAILURES = 3
"""This number of trials in a row with the same error ends the study, because the next trials would fail, too."""


class StudyStopper(Stopper):  # type: ignore[misc]
    """Ends a study early on Ctrl-C or SIGTERM, after the time budget, or when every trial raises the same error.

    It also holds what users have asked of the study: to pause or to end, to stop a trial, to run fewer at a time. Ray
    asks it after each report whether the trial must stop, and all the time whether all trials must stop.
    """

    def __init__(self, time_budget: float | None = None) -> None:
        """Start the clock.

        Args:
            time_budget: After these seconds no trial is begun, and running trials end with their epoch; None: no limit.
        """
        self.signal: int | None = None
        """The number of the signal that ended the study."""
        self.exhausted: str | None = None
        """Why there is nothing left to try, in one sentence."""
        self.repeated_failure: str | None = None
        """Why it makes no sense to go on, in one sentence."""
        self.has_same_error = False
        """Whether every trial raises the same error, so that its cause must be corrected before the study continues."""
        self.end_requested: str | None = None
        """Who has asked that the study ends, in one sentence."""
        self.is_paused = False
        """Whether no trial may run until a user asks for it."""
        self.max_concurrent = sys.maxsize
        """How many trials may run at the same time, if a user has asked for fewer than the machine could run."""
        self.stopped: set[str] = set()
        """Ray's names of the trials that a user has stopped: they end with their next report."""
        self.interrupted: set[str] = set()
        """Ray's names of the trials that have ended, or end now, and may go on later."""
        self.held_back: set[str] = set()
        """Ray's names of the trials that are interrupted with their next report, because too many run."""
        self.nodes_avoided: set[str] = set()
        """Ray's ids of nodes that will be switched off, cannot run trials or have not been checked yet: no trial begins
        there, and those that are there are interrupted with their next report."""
        self._began = time.monotonic()
        self.set_time_budget(time_budget)
        self._last_error = ""
        self._same_failures = 0

    @property
    def reason(self) -> str:
        """Why the study ended before all its trials had, in one sentence."""
        if self.signal is not None:
            return "Interrupted."
        if self.exhausted:
            return self.exhausted
        return self.repeated_failure or self.end_requested or "The time budget is used up."

    def exit_status(self, otherwise: int) -> int:
        """The exit status of a study that ended for this reason, or `otherwise` if it ended by itself."""
        if self.signal is not None:
            return 128 + self.signal
        return 1 if self.repeated_failure else otherwise

    def set_time_budget(self, seconds: float | None) -> None:
        """Set how many seconds the study may take since the clock started; None for no limit."""
        self._deadline = None if seconds is None else self._began + seconds

    def ends_with_epoch(self) -> bool:
        """Whether running trials must end with their epoch: the time budget is used up, or a user asked for it."""
        time_is_up = self._deadline is not None and time.monotonic() >= self._deadline
        return time_is_up or self.end_requested is not None

    def stop_all(self) -> bool:
        """Whether all running trials must stop at once; Ray asks this all the time."""
        return self.signal is not None or self.repeated_failure is not None

    def starts_no_trial(self) -> bool:
        """Whether no new trial may begin."""
        return self.stop_all() or self.ends_with_epoch()

    def has_room(self, running: int) -> bool:
        """Whether another trial may begin now beside those that run."""
        return not self.is_paused and running < self.max_concurrent

    def observe(self, ended: TrialRecord) -> None:
        """Compare how a trial ended with the trials that ended before it."""
        error = ended.failure.traceback if ended.failure and ended.failure.kind == "exception" else ""
        self._same_failures = self._same_failures + 1 if error and error == self._last_error else int(bool(error))
        self._last_error = error
        if self._same_failures >= SAME_FAILURES:
            self.has_same_error = True
            self.repeated_failure = f"{SAME_FAILURES} trials in a row raised the same error, so the study ended early."

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether a trial must stop after its report; Ray asks this after each report, and then the scheduler."""
        return trial_id in self.stopped

    def lets_wait(self, trial_id: str, node: str) -> bool:
        """Whether a trial on this node, which the scheduler would let go on, is interrupted after its report."""
        must_move = trial_id in self.held_back or node in self.nodes_avoided
        if self.is_paused or self.ends_with_epoch() or must_move:
            self.interrupted.add(trial_id)
        return trial_id in self.interrupted

    def interrupts(self, trial_id: str) -> bool:
        """Whether a trial that ends now may go on later."""
        return self.signal is not None or trial_id in self.interrupted - self.stopped

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles it into its scratch folder

    @contextmanager
    def signal_handlers(self) -> Iterator[None]:
        """In this context, SIGINT and SIGTERM end the study in order, and a second one ends the process at once."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        self.handle_signals()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_signals(self) -> None:
        """Set the handlers; `ray.init` replaces them by its own, so they are set again after it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle_signal)

    def _handle_signal(self, number: int, _frame: object) -> None:
        if self.signal is not None and in_notebook():
            raise KeyboardInterrupt  # the kernel must not end: it holds what the user has computed
        if self.signal is not None:
            end_at_once("Stopped immediately; what was recorded is safe.", 128 + number)
        self.signal = number
        again = "interrupt" if in_notebook() else "press Ctrl-C"
        _write(f"Stopping the study; {again} again to stop immediately.")


def end_at_once(sentence: str, status: int) -> NoReturn:
    """Print a sentence and end this process, whatever its threads do."""
    _write(sentence)
    restore_terminal()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # the output of a notebook is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # nothing follows the sentence
    time.sleep(0.2)  # the live view prints it meanwhile
    os._exit(status)


def _write(sentence: str) -> None:
    """Print a sentence from a signal handler or a thread."""
    if in_notebook():
        print(f"\n{sentence}", flush=True)
        return
    with suppress(OSError):  # the reader of the output may have gone
        os.write(sys.stdout.fileno(), f"\n{sentence}\n".encode())
