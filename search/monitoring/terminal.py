"""Shows a study while it runs: the protocol of all views, and the plain view, a line for each trial."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, Self

from search.record.study_record import StudyRecord
from search.record.trial import Status, TrialRecord
from search.space.distributions import Distribution, values_of
from training.console.terminal import format_metric, format_value, printable, shorten, text_width, wrapped

LONGEST_VALUE = 9
"""Characters of the longest number with four significant digits."""
LONGEST_CHOICE = 20
"""A choice with a longer name is cut to them where a line is printed for each trial."""
STATUSES: tuple[Status, ...] = ("completed", "stopped_early", "paused", "diverged", "failed")


HEADER_LABEL = 13
"""Characters before the text of a line of the header."""


def header_line(label: str, text: str) -> str:
    """Format a line of the header."""
    return f"  {label:<10} {text}"


def dashboard_lines(url: str | None, sign_in: str | None) -> list[str]:
    """Format the lines of the header that name the address of the Ray dashboard, and the one that signs in."""
    if url is None:
        return [header_line("dashboard", "the Ray dashboard does not answer")]
    if sign_in is None:
        return [header_line("dashboard", f"http://{url} (ray get-auth-token prints its token)")]
    return [header_line("dashboard", f"http://{url}"), header_line("sign in", sign_in)]


class View(Protocol):
    """Shows a study from its beginning to its end."""

    def __enter__(self) -> Self:
        """Show the header."""

    def __exit__(self, *_: object) -> None:
        """End the view."""

    def show_dashboard(self, url: str | None, sign_in: str | None = None) -> None:
        """Show the address of the dashboard, and how a browser signs in if the settings ask for it."""

    def begin_trials(self) -> None:
        """Prepare for the first trial, which is about to run."""

    def show_started(self, trial: TrialRecord) -> None:
        """Show a trial that begins in a worker, or continues there."""

    def show_epoch(self, trial: TrialRecord) -> None:
        """Show the epoch that a trial has just finished."""

    def show_ended(self, trial: TrialRecord) -> None:
        """Show a trial that has just ended."""

    def show_stopped(self, trial: TrialRecord) -> None:
        """Show a trial that was paused, and will not continue."""

    def requests_go_to(self, ask: Callable[[list[str]], object]) -> AbstractContextManager[object]:  # noqa: ARG002
        """In this context, pass what the user asks of the study in this view to a function; most views pass nothing."""
        return nullcontext()


class PlainView(View):
    """Prints a header, and then a line for each ended trial; a star marks each trial that is the best so far.

    This view is for files, and for terminals that cannot draw a line again. Where a line is too short for all
    hyperparameters, the last ones are left out. In a confirmation there is no star, because no single training is
    chosen.
    """

    def __init__(self, header: list[str], record: StudyRecord) -> None:
        self._header = header
        self._record = record
        self._metric_width = max(len(record.metric), len("0.1234") if record.metadata.is_accuracy else LONGEST_VALUE)
        widths = {name: _plain_width(record, name) for name in column_names(record)}
        others = len(self._line("", [], "", "", "")) + max(map(len, STATUSES))
        shown = len(widths)
        while shown and others + sum(map((2).__add__, [*widths.values()][:shown])) > text_width():
            shown -= 1
        self._widths = dict([*widths.items()][:shown])
        self._hidden = [*widths][shown:]

    def __enter__(self) -> Self:
        """Print the header."""
        print("\n".join(map(_folded, self._header)), flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Print nothing, because all trials have been shown."""

    def show_dashboard(self, url: str | None, sign_in: str | None = None) -> None:
        """Print the address of the dashboard."""
        print("\n".join(map(_folded, dashboard_lines(url, sign_in))), flush=True)

    def begin_trials(self) -> None:
        """Print what the lines show, and the names of the columns."""
        pauses = self._record.metadata.settings.scheduler == "promotion"
        title = f"Ended{' and paused' * pauses} trials; * marks the best so far"
        if self._record.metadata.plan:
            title = (
                "Ended trainings; # is the trial of the study whose configuration was trained, and "
                f"{self._record.metric} is that of the best epoch of each training"
            )
        print("\n" + wrapped(title))
        if self._hidden:
            names = ", ".join(map(printable, self._hidden))
            print(wrapped(f"The lines are too short for {names}; trials.csv has all columns."))
        headings = [printable(name).rjust(width) for name, width in self._widths.items()]
        print(self._line("#", headings, self._record.metric, "seconds", "status"), flush=True)

    def show_ended(self, trial: TrialRecord) -> None:
        """Print the line of a trial."""
        cells = {name: format_value(column_value(trial, name)) for name in self._widths}
        values = [shorten(cells[name], width).rjust(width) for name, width in self._widths.items()]
        metric = format_metric(trial.best_value) if trial.best_epoch else ""
        is_best = self._record.metadata.plan is None and trial is self._record.standings.best
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        line = self._line(
            str(study_number(self._record, trial)), values, metric, seconds, trial.status, star="*" if is_best else " "
        )
        if trial.failure:
            room = text_width() - len(line) - 2
            error = trial.failure.error
            line += f": {error}" if len(error) <= room else f":\n     {shorten(error, text_width() - 5)}"
        print(line, flush=True)

    def show_started(self, trial: TrialRecord) -> None:
        """Do nothing, because only ended trials have a line."""

    def show_epoch(self, trial: TrialRecord) -> None:
        """Do nothing, because only ended trials have a line."""

    def show_stopped(self, trial: TrialRecord) -> None:
        """Do nothing, because the trial has had its line when it was paused."""

    def _line(self, number: str, values: list[str], metric: str, seconds: str, status: str, *, star: str = " ") -> str:
        cells = [number.rjust(3), *values, f"{metric.rjust(self._metric_width)} {star}{seconds.rjust(8)}", status]
        return "  ".join(cells)


def clock(seconds: float) -> str:
    """Format seconds as 1:23 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def column_names(record: StudyRecord) -> list[str]:
    """List the hyperparameters, after the seed if each configuration is trained from several seeds."""
    return [*(["seed"] if record.metadata.plan else []), *record.space]


def study_number(record: StudyRecord, trial: TrialRecord) -> int:
    """The number of a trial; in a confirmation, that of the study's trial whose configuration is trained again."""
    plan, winner = record.metadata.plan, record.metadata.winner
    if plan is None:
        return trial.number
    if trial.number < plan.choosing_trainings:
        return plan.trials[trial.number % len(plan.trials)]  # they are enqueued seed by seed
    return trial.number if winner is None else winner


def trial_name(record: StudyRecord, trial: TrialRecord) -> str:
    """Name a trial in a sentence; in a confirmation with its seed."""
    seed = f" from seed {trial.seed}" if record.metadata.plan else ""
    return f"trial {study_number(record, trial)}{seed}"


def column_value(trial: TrialRecord, name: str) -> object:
    """Look up the value of a trial in one of `column_names`; it is empty for an inactive hyperparameter."""
    return trial.hyperparameters.get(name, trial.seed if name == "seed" else "")


def value_width(distribution: Distribution | None, longest_choice: int = LONGEST_VALUE) -> int:
    """Characters for the values of a hyperparameter, or of a seed; those of choices up to a largest number."""
    values = values_of(distribution) if distribution else None
    return min(max(len(format_value(value)) for value in values), longest_choice) if values else LONGEST_VALUE


def _folded(line: str) -> str:
    """A line of the header in lines of the width of the terminal, unless a word is longer than them."""
    folded = wrapped(line, hanging=" " * HEADER_LABEL)
    return line if max(map(len, folded.split("\n"))) > text_width() else folded


def _plain_width(record: StudyRecord, name: str) -> int:
    return max(len(printable(name)), value_width(record.space.get(name), LONGEST_CHOICE))
