"""What the terminal shows while a study runs: its head, then a line for each ended trial."""

import shlex
from pathlib import Path
from typing import Any

from search.neighbours import Neighbour
from search.provenance import available_cpus
from search.record import StudyRecord
from search.settings import StudySettings
from search.space import SearchSpace
from search.trial_record import TrialRecord
from training.config import PROJECT
from training.data import ImageData
from training.terminal import printable


def show_start(
    settings: StudySettings, record: StudyRecord, data: ImageData, trials_at_once: int, cluster: dict[str, int] | None
) -> None:
    """Print what is searched, on which data, on which machine or cluster, and where the results go."""
    direction = "highest" if settings.mode == "max" else "lowest"
    place, cpus, nodes = "machine", available_cpus(), ""
    if cluster:
        place, cpus, nodes = "cluster", cluster["cpus"], f", {cluster['nodes']} node{'s' * (cluster['nodes'] > 1)}"
    stops = settings.scheduler != "none"
    stopping = f"{settings.scheduler}, which ends weak trials early" if stops else "none: all epochs are run"
    print(
        f"Study {record.folder.name}\n"
        f"  data     {data.name}: {len(data.train):,} training, {len(data.val):,} validation, "
        f"{len(data.test):,} test images\n"
        f"  search   {settings.num_samples} trials of {settings.epochs} epochs for the {direction} "
        f"{settings.metric_name}, proposed by {settings.sampler}\n"
        f"  stopping {stopping}\n"
        f"  {place}  {trials_at_once} at once, {settings.cpus_per_trial} of {cpus} cores each{nodes}\n"
        f"  results  {record.folder}" + (f"\n  record   {record.address}" if record.address else ""),
        flush=True,
    )


def show_resumed(record: StudyRecord, trials_to_run: int) -> None:
    """Print what a resumed study has and what is left to do."""
    interrupted = sum(trial.status == "interrupted" for trial in record.trials)
    going_on = f", {interrupted} of them from their last epoch" if interrupted else ""
    left = f"{trials_to_run} to run{going_on}" if trials_to_run > 0 else "nothing to run; --num-samples +20 adds twenty"
    print(f"  resumed  {len(record.ended())} trials have ended; {left}", flush=True)


def show_neighbours(neighbours: list[Neighbour]) -> None:
    """Print which other studies this one shares the machine with."""
    for neighbour in neighbours:
        print(f"  beside   study {printable(neighbour.study)}, which uses {neighbour.cpus} cores", flush=True)


def show_evidence(evidence: dict[str, Any]) -> None:
    """Print what a new study takes over from an earlier one."""
    print(f"  evidence {evidence['trials']} of {evidence['of']} trials of study {evidence['study']}", flush=True)


def show_early_end(reason: str, record: StudyRecord, results_dir: Path, *, can_go_on: bool) -> None:
    """Print why a study ended before all its trials had, and the command that goes on with it."""
    usual_place = results_dir.resolve() == PROJECT / "results"
    words = ["--resume", record.folder.name if usual_place else str(record.folder)]
    if record.address:
        words += ["--storage", record.address]
    print(f"\n{reason}" + (f" To go on: python search/run.py {shlex.join(words)}" if can_go_on else ""), flush=True)


def show_dashboard(url: str | None) -> None:
    """Print where the Ray dashboard is and how to get in."""
    if url:
        print(f"  watch    http://{url} (for its token: ray get-auth-token)", flush=True)


def show_event(sentence: str) -> None:
    """Print what happened to the study, between the lines of its trials."""
    print(f"  ! {sentence}", flush=True)


class TrialLines:
    """Prints one line for each ended trial under a common heading; a star marks each new best."""

    def __init__(self, record: StudyRecord, space: SearchSpace) -> None:
        self._record = record
        self._widths = {name: max(len(name), 7) for name in space}

    def show_heading(self) -> None:
        """Print the names of the columns."""
        names = "  ".join(name.rjust(width) for name, width in self._widths.items())
        print(
            f"\nTrials as they end, * for the best so far\n  #  {names}  {self._record.metric}   seconds  status",
            flush=True,
        )

    def show(self, trial: TrialRecord) -> None:
        """Print the line of a trial that has just ended."""
        values = "  ".join(
            format_value(trial.hyperparameters.get(name, "")).rjust(width) for name, width in self._widths.items()
        )
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


def format_value(value: object) -> str:
    """A number with four significant digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
