"""What is told of a study while it runs: its head, then a line for each ended trial."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from search.record.provenance import available_cpus
from search.record.study_record import StudyRecord
from search.record.trial import Metrics, TrialRecord
from search.settings import StudySettings
from training.config import PROJECT, TrialConfig
from training.console.command_line import without_password
from training.console.terminal import printable

if TYPE_CHECKING:
    from search.engine.study import Study


def head_lines(study: "Study") -> list[str]:
    """What is searched, on which data, on which machine or cluster, where the results go, and what is there already."""
    settings, record, data = study.settings, study.record, study.data
    direction = "highest" if settings.direction == "max" else "lowest"
    stops = settings.scheduler != "none"
    stopping = f"{settings.scheduler}, which ends weak trials early" if stops else "none: all epochs are run"
    place, cpus, nodes = "machine", available_cpus(), ""
    if study.cluster:
        size = study.cluster.facts()
        place, cpus, nodes = "cluster", size["cpus"], f", {size['nodes']} node{'s' * (size['nodes'] > 1)}"
    network = [f"  network  {settings.network}"] if settings.network != TrialConfig.network else []
    plan = record.plan
    searched = (
        f"  again    trials {', '.join(map(str, plan.trials))} from {len(plan.seeds)} fresh seeds each, the best "
        f"from {len(plan.winner_seeds)} more"
        if plan
        else f"  search   {settings.num_samples} trials of {settings.epochs} epochs for the {direction} "
        f"{settings.metric_name}, proposed by {settings.sampler}"
    )
    lines = [
        f"Confirming study {plan.study}" if plan else f"Study {record.folder.name}",
        f"  data     {data.name}: {len(data.train):,} training, {len(data.val):,} validation, "
        f"{len(data.test):,} test images"
        if data
        else f"  training {record.subject.train_function}",
        *network,
        searched,
        f"  stopping {stopping}",
        f"  {place}  {study.trials_at_once} at once, {settings.cpus_per_trial} of {cpus} cores each{nodes}",
        f"  results  {record.folder}",
    ]
    if record.address:
        lines.append(f"  record   {record.address}")
    if settings.log:
        lines.append(f"  log      {', '.join(settings.log)}; docs/dashboards.md says how to look at it")
    lines += [
        f"  beside   study {printable(neighbour.study)}, which uses {neighbour.cpus} cores"
        for neighbour in study.neighbours
    ]
    if evidence := record.facts.get("evidence"):
        lines.append(f"  evidence {evidence['trials']} of {evidence['of']} trials of study {evidence['study']}")
    if record.trials:
        lines.append(f"  resumed  {len(record.ended())} trials have ended; {_left_to_do(study)}")
    return lines


def _left_to_do(study: "Study") -> str:
    if study.trials_to_run <= 0:
        return "nothing to run" + ("; --num-samples +20 adds twenty" if study.record.plan is None else "")
    interrupted = sum(trial.status == "interrupted" for trial in study.record.trials)
    return f"{study.trials_to_run} to run" + (f", {interrupted} of them from their last epoch" if interrupted else "")


def dashboard_line(url: str | None) -> str:
    """Where the Ray dashboard is and how to get in."""
    if url is None:
        return "  watch    the Ray dashboard does not answer"
    return f"  watch    http://{url} (it asks for a token: ray get-auth-token)"


def show_early_end(reason: str, record: StudyRecord, settings: StudySettings, *, can_go_on: bool) -> None:
    """Print why a study ended before all its trials had, and the command that goes on with it."""
    words = ["--resume", *study_words(record, settings.results_dir)]
    if settings.log:
        words += ["--log", *settings.log]
    if settings.mlflow_uri is not None:
        words += ["--mlflow-uri", without_password(settings.mlflow_uri)]
    print(f"\n{reason}" + (f" To go on: python search/run.py {shlex.join(words)}" if can_go_on else ""), flush=True)


def study_words(record: StudyRecord, results_dir: Path) -> list[str]:
    """How one names a study on a command line: by its name, or outside of the usual place by its path."""
    usual_place = results_dir.resolve() == PROJECT / "results"
    study = record.folder.name if usual_place else str(record.folder)
    return [study, "--storage", record.address] if record.address else [study]


def show_event(sentence: str) -> None:
    """Print what happened to the study, between the lines of its trials."""
    print(f"  ! {sentence}", flush=True)


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
    """Lines for a file, or for a terminal that shows no other: a head, then one for each ended trial.

    A star marks each new best.
    """

    def __init__(self, study: "Study") -> None:
        self._study = study
        self._record = study.record
        self._widths = {name: max(len(name), 7) for name in shown_names(study)}

    def __enter__(self) -> Self:
        """Print what is searched."""
        print("\n".join(head_lines(self._study)), flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be said."""

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
        """Print its line."""
        values = "  ".join(format_value(shown_value(trial, name)).rjust(width) for name, width in self._widths.items())
        best = self._record.best_epoch(trial)
        metric = f"{self._record.value(best):.4f}" if best else ""
        star = "*" if trial is self._record.best() else " "
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        error = f": {_shorten(trial.failure.error, 60)}" if trial.failure else ""
        print(
            f"{trial.number:>3}  {values}  {metric.rjust(len(self._record.metric))} {star} {seconds:>7}  "
            f"{trial.status}{error}",
            flush=True,
        )


def shown_names(study: "Study") -> list[str]:
    """What trials of a study differ in: hyperparameters, and the seed if configurations are trained from several."""
    return [*study.space, *(["seed"] if study.record.plan else [])]


def shown_value(trial: TrialRecord, name: str) -> object:
    """The value of one of these."""
    return trial.seed if name == "seed" else trial.hyperparameters.get(name, "")


def gain_over_baseline(record: StudyRecord, best: Metrics, name: str) -> str | None:
    """What an epoch gains in a metric over the best one with the tutorial's settings; None if those were not tried."""
    baseline = record.baseline()
    start = record.best_epoch(baseline) if baseline else None
    if start is None:
        return None
    gain = getattr(best, name) - getattr(start, name)
    in_points = record.subject.is_accuracy(name)
    return f"{gain * 100:+.1f} points of {name}" if in_points else f"{gain:+.4g} {name}"


def as_typed(path: Path) -> Path:
    """A path as one would type it: relative to where the command was started, if that is not longer."""
    return min((path, Path(os.path.relpath(path))), key=lambda form: len(str(form)))


def format_value(value: object) -> str:
    """A number with four significant digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
