"""What is shown of a study while it runs: the protocol of all views, and the plain one, a line for each ended trial."""

from typing import Protocol, Self

from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.terminal import format_value, shorten


def dashboard_line(url: str | None) -> str:
    """Where the Ray dashboard is and how to get in."""
    if url is None:
        return "  watch    the Ray dashboard does not answer"
    return f"  watch    http://{url} (it asks for a token: ray get-auth-token)"


class View(Protocol):
    """What the terminal shows from the beginning of a study until it is over."""

    def __enter__(self) -> Self:
        """Begin with what is known of the study."""

    def __exit__(self, *_: object) -> None:
        """The study is over."""

    def show_dashboard(self, url: str | None) -> None:
        """Say where the dashboard is."""

    def begin_trials(self) -> None:
        """Trials are about to run."""

    def show_ended(self, trial: TrialRecord) -> None:
        """A trial has just ended."""


class PlainView(View):
    """Lines for a file, or for a terminal that shows no other: a header, then one for each ended trial.

    A star marks each new best.
    """

    def __init__(self, header: list[str], record: StudyRecord) -> None:
        self._header = header
        self._record = record
        self._widths = {name: max(len(name), 7) for name in shown_names(record)}

    def __enter__(self) -> Self:
        """Print what is searched."""
        print("\n".join(self._header), flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Print nothing: all trials have been shown."""

    def show_dashboard(self, url: str | None) -> None:
        """Print where the dashboard is."""
        print(dashboard_line(url), flush=True)

    def begin_trials(self) -> None:
        """Print the names of the columns."""
        names = "  ".join(name.rjust(width) for name, width in self._widths.items())
        print(
            f"\nTrials as they end, * for the best so far\n  #  {names}  {self._record.metric}   seconds  status",
            flush=True,
        )

    def show_ended(self, trial: TrialRecord) -> None:
        """Print the line of a trial."""
        values = "  ".join(format_value(shown_value(trial, name)).rjust(width) for name, width in self._widths.items())
        metric = f"{trial.best_value:.4f}" if trial.best_epoch else ""
        star = "*" if trial is best_trial(self._record.trials) else " "
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        error = f": {shorten(trial.failure.error, 60)}" if trial.failure else ""
        print(
            f"{trial.number:>3}  {values}  {metric.rjust(len(self._record.metric))} {star} {seconds:>7}  "
            f"{trial.status}{error}",
            flush=True,
        )


def shown_names(record: StudyRecord) -> list[str]:
    """What trials of a study differ in: hyperparameters, and the seed if configurations are trained from several."""
    return [*record.space, *(["seed"] if record.metadata.plan else [])]


def shown_value(trial: TrialRecord, name: str) -> object:
    """The value of a trial under one of `shown_names`; empty for a hyperparameter whose condition does not hold."""
    return trial.seed if name == "seed" else trial.hyperparameters.get(name, "")
