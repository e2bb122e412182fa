"""Shows a running study in a notebook: its header, and below it one line that is replaced while trials run."""

import time
from typing import Any, Self

from search.monitoring.terminal import View, clock, dashboard_lines
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.terminal import counted, format_metric, format_value, printable

SECONDS_BETWEEN_UPDATES = 0.5


class NotebookView(View):
    """Prints the header, and displays a line whose text changes with each report; what is printed meanwhile stays."""

    def __init__(self, header: list[str], record: StudyRecord, *, began: float) -> None:
        """Prepare the view of a study that is about to run.

        Args:
            header: The lines at the top.
            record: The record of the study.
            began: When the command began, by `time.monotonic`.
        """
        self._header = header
        self._record = record
        self._began = began
        self._display: Any = None
        """Handle of the line that is displayed."""
        self._next_update = 0.0

    def __enter__(self) -> Self:
        """Print the header."""
        print("\n".join(map(printable, self._header)), flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line as it is at the end."""
        if self._display is not None:
            self._update()

    def show_dashboard(self, url: str | None, sign_in: str | None = None) -> None:
        """Print the address of the dashboard."""
        print("\n".join(dashboard_lines(url, sign_in)), flush=True)

    def begin_trials(self) -> None:
        """Display the line."""
        from IPython.display import display  # a notebook has it

        self._display = display(self._line(), raw=True, display_id=True)

    def show_ended(self, trial: TrialRecord) -> None:  # noqa: ARG002
        """Replace the line."""
        self._update()

    def show_started(self, trial: TrialRecord) -> None:
        """Do nothing, because the line only counts the trials."""

    def show_stopped(self, trial: TrialRecord) -> None:
        """Do nothing, because the line only counts the trials."""

    def show_epoch(self, trial: TrialRecord) -> None:  # noqa: ARG002
        """Replace the line, unless this happened a moment ago."""
        if time.monotonic() >= self._next_update:
            self._update()

    def _update(self) -> None:
        self._display.update(self._line(), raw=True)
        self._next_update = time.monotonic() + SECONDS_BETWEEN_UPDATES

    def _line(self) -> dict[str, str]:
        """The line, by its type for the notebook."""
        record, best = self._record, self._record.standings.leader
        running = record.standings.counts["running"]
        parts = [
            f"{record.standings.num_ended} of {counted(self._record.num_samples, 'trial')} ended",
            *([f"{running} running"] if running else []),
            counted(record.standings.epochs_run, "epoch"),
            clock(time.monotonic() - self._began),
        ]
        text = ", ".join(parts)
        if best:
            point = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
            text += f"; best {record.metric} {format_metric(best.best_value)} of trial {best.number}: {point}"
        return {"text/plain": printable(text)}
