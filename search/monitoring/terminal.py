"""Shows a study while it runs: the protocol of all views, and the plain view, a line for each trial."""

from typing import Protocol, Self

from search.record.ranking import best_trial, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.terminal import format_metric, format_value, printable, shorten


def header_line(label: str, text: str) -> str:
    """Format a line of the header."""
    return f"  {label:<10} {text}"


def dashboard_line(url: str | None) -> str:
    """Format the line of the header that names the address of the Ray dashboard."""
    text = f"http://{url} (ray get-auth-token prints its token)" if url else "the Ray dashboard does not answer"
    return header_line("dashboard", text)


class View(Protocol):
    """Shows a study from its beginning to its end."""

    def __enter__(self) -> Self:
        """Show the header."""

    def __exit__(self, *_: object) -> None:
        """End the view."""

    def show_dashboard(self, url: str | None) -> None:
        """Show the address of the dashboard."""

    def begin_trials(self) -> None:
        """Prepare for the first trial, which is about to run."""

    def show_ended(self, trial: TrialRecord) -> None:
        """Show a trial that has just ended."""

    def show_progress(self) -> None:
        """Show what a trial has just reported."""


class PlainView(View):
    """Prints a header, and then a line for each ended trial; a star marks each trial that is the best so far.

    This view is for files, and for terminals that cannot draw a line again.
    """

    def __init__(self, header: list[str], record: StudyRecord) -> None:
        self._header = header
        self._record = record
        self._widths = {name: max(len(name), 7) for name in column_names(record)}

    def __enter__(self) -> Self:
        """Print the header."""
        print("\n".join(self._header), flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Print nothing, because all trials have been shown."""

    def show_dashboard(self, url: str | None) -> None:
        """Print the address of the dashboard."""
        print(dashboard_line(url), flush=True)

    def begin_trials(self) -> None:
        """Print the names of the columns."""
        names = "  ".join(printable(name).rjust(width) for name, width in self._widths.items())
        print(
            f"\nEnded trials; * marks the best so far\n  #  {names}  {self._record.metric}   seconds  status",
            flush=True,
        )

    def show_ended(self, trial: TrialRecord) -> None:
        """Print the line of a trial."""
        values = "  ".join(format_value(column_value(trial, name)).rjust(width) for name, width in self._widths.items())
        metric = format_metric(trial.best_value) if trial.best_epoch else ""
        star = "*" if trial is best_trial(self._record.trials) else " "
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        error = f": {shorten(trial.failure.error, 60)}" if trial.failure else ""
        number = study_number(self._record, trial)
        print(
            f"{number:>3}  {values}  {metric.rjust(len(self._record.metric))} {star} {seconds:>7}  "
            f"{trial.status}{error}",
            flush=True,
        )

    def show_progress(self) -> None:
        """Do nothing, because only ended trials have a line."""


def leading_trial(record: StudyRecord) -> TrialRecord | None:
    """The best trial, which may still run."""
    running = [trial for trial in record.trials if trial.status == "running" and trial.best_epoch]
    sign = -1 if record.mode == "min" else 1
    return max(
        [*valid_trials(record.trials), *running],
        key=lambda trial: (sign * trial.best_value, -trial.number),
        default=None,
    )


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
