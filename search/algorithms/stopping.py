"""Ends a study before all its trials have ended: on a signal, after a time, or when every trial fails alike."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray.tune import Stopper

from search.record.trial import TrialRecord

SAME_FAILURES = 3
"""So many trials in a row that raise the same error end the study: the next ones would too."""


class StudyStopper(Stopper):  # type: ignore[misc]
    """Watches for what ends a study early: Ctrl-C, SIGTERM, the time budget, an error that every trial raises.

    Ray asks it after each report whether the trial is to be stopped, and all the time whether all are.
    """

    def __init__(self, time_budget: float | None = None) -> None:
        """Start the clock.

        Args:
            time_budget: Seconds after which no trial is begun and running ones end with their epoch; None for ever.
        """
        self.signal: int | None = None
        """The signal that asked the study to end."""
        self.exhausted: str | None = None
        """Why there is nothing left to try, in one sentence."""
        self.repeated_failure: str | None = None
        """Why it makes no sense to go on, in one sentence."""
        self._deadline = time.monotonic() + time_budget if time_budget is not None else None
        self._same_failures: list[str] = []

    @property
    def reason(self) -> str:
        """Why the study ended before all its trials had, in one sentence."""
        if self.signal is not None:
            return "Interrupted."
        if self.exhausted:
            return self.exhausted
        return self.repeated_failure or "The time budget is used up."

    def exit_status(self, otherwise: int) -> int:
        """The exit status of a study that ended for this reason, or `otherwise` if it ended by itself."""
        if self.signal is not None:
            return 128 + self.signal
        return 1 if self.repeated_failure else otherwise

    def time_is_up(self) -> bool:
        """Whether the time budget is used up."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def stop_all(self) -> bool:
        """Whether all running trials are to be stopped at once; Ray asks this all the time."""
        return self.signal is not None or self.repeated_failure is not None

    def starts_no_trial(self) -> bool:
        """Whether no trial is to be begun any more."""
        return self.stop_all() or self.time_is_up()

    def observe(self, ended: TrialRecord) -> None:
        """Note how a trial ended, to notice an error that every trial raises."""
        raised = ended.failure.traceback if ended.failure and ended.failure.kind == "exception" else ""
        if not raised or raised not in self._same_failures:
            self._same_failures.clear()
        if raised:
            self._same_failures.append(raised)
        if len(self._same_failures) >= SAME_FAILURES:
            self.repeated_failure = f"{SAME_FAILURES} trials in a row raised the same error, so the study ended early."

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Ray asks after a report whether its trial is to be stopped."""
        return self.time_is_up()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles it into its scratch folder

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """While this lasts, SIGINT and SIGTERM end the study in order, and a second one ends the process at once."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        self.handle_signals()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_signals(self) -> None:
        """Set the handlers (again: `ray.init` sets one of its own)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        again, self.signal = self.signal is not None, number
        sentence = "Stopped at once; what was recorded is safe." if again else "Stopping; once more to stop at once."
        with suppress(OSError):  # who read it may have gone
            os.write(sys.stdout.fileno(), f"\n{sentence}\n".encode())
        if again:
            time.sleep(0.2)  # a live view has to print it
            os._exit(128 + number)
