"""What the terminal shows: the head of a study, a line for each ended trial, and the summary."""

import shlex
from collections import Counter
from pathlib import Path

import pandas as pd

from search.provenance import available_cpus
from search.record import StudyRecord, TrialRecord
from search.settings import StudySettings
from search.space import SearchSpace, tutorial_baseline
from search.trial_table import trial_table
from training.data import ImageData


def show_start(settings: StudySettings, folder: Path, data: ImageData, trials_at_once: int) -> None:
    """Print what is searched, on which data, and where the results go."""
    direction = "highest" if settings.mode == "max" else "lowest"
    stopping = "asha stops weak trials early" if settings.scheduler == "asha" else "no trial is stopped early"
    print(
        f"Study {folder.name}\n"
        f"  data     {data.name}: {len(data.train):,} training, {len(data.val):,} validation, "
        f"{len(data.test):,} test images\n"
        f"  search   {settings.num_samples} trials of up to {settings.epochs} epochs for the {direction} "
        f"{settings.metric_name}; {stopping}\n"
        f"  machine  {trials_at_once} at once, {settings.cpus_per_trial} of {available_cpus()} cores each\n"
        f"  results  {folder}",
        flush=True,
    )


def show_dashboard(url: str | None) -> None:
    """Print where the Ray dashboard is and how to get in."""
    if url:
        print(f"  watch    http://{url} (it asks for a token: `ray get-auth-token` prints it)", flush=True)


class TrialLines:
    """Prints one line for each ended trial under a common heading; a star marks each new best."""

    def __init__(self, record: StudyRecord, space: SearchSpace) -> None:
        self._record = record
        self._widths = {name: max(len(name), 7) for name in space}

    def show_heading(self) -> None:
        """Print the names of the columns."""
        names = "  ".join(name.rjust(width) for name, width in self._widths.items())
        print(f"\n  #  {names}  {self._record.metric}    seconds  status   (* best so far)", flush=True)

    def show(self, trial: TrialRecord) -> None:
        """Print the line of a trial that has just ended."""
        values = "  ".join(
            format_value(trial.hyperparameters.get(name, "")).rjust(width) for name, width in self._widths.items()
        )
        best = self._record.best_epoch(trial)
        metric = f"{self._record.value(best):.4f}" if best else ""
        star = "*" if trial is self._record.best() else " "
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        error = f": {shorten(trial.failure.error, 60)}" if trial.failure else ""
        print(
            f"{trial.number:>3}  {values}  {metric.rjust(len(self._record.metric))} {star} {seconds:>8}  "
            f"{trial.status}{error}",
            flush=True,
        )


def show_summary(settings: StudySettings, record: StudyRecord, space: SearchSpace, seconds: float) -> None:
    """Print what the study found, how much it gained over the tutorial's settings, and where the files are."""
    counts = Counter(trial.status for trial in record.finished())
    print(f"\n{len(record.finished())} trials in {duration(seconds)}: " + _listed(counts))
    best = record.best()
    if best is None:
        print("No trial measured anything; the errors are in trials.csv and in errors/.")
    else:
        _show_best(settings, record, space, best)
        table = trial_table(record, space)
        _show_table("The best five", table[table["status"].isin(counts)].head(5), space, record.metric)
        _show_by_optimizer(table, record.metric, settings.mode)
    print(f"\nFiles: {record.folder}\n  trials.csv  epochs.csv  study.json  study.db   (explained in results/README.md)")


def _show_best(settings: StudySettings, record: StudyRecord, space: SearchSpace, best: TrialRecord) -> None:
    metrics = record.best_epoch(best)
    assert metrics is not None, "the best trial has reported"
    chosen = "" if record.metric == "test_accuracy" else f", {record.metric} {record.value(metrics):.4f}"
    print(f"\nBest: trial {best.number}, epoch {metrics.epoch}{chosen}, test_accuracy {metrics.test_accuracy:.4f}")
    for name, value in best.hyperparameters.items():
        print(f"  {name:<14} {format_value(value)}")
    baseline = next((trial for trial in record.finished() if settings.baseline and trial.number == 0), None)
    start = record.best_epoch(baseline) if baseline else None
    if start is not None and baseline is not best:
        gain = record.value(metrics) - record.value(start)
        test_gain = (metrics.test_accuracy - start.test_accuracy) * 100
        shown = f"{gain * 100:+.1f} points of" if record.metric.endswith("accuracy") else f"{gain:+.4f}"
        print(
            f"Gain over the tutorial's settings (trial 0): {shown} {record.metric}, "
            f"{test_gain:+.1f} points of test_accuracy"
        )
    if settings.val_fraction == 0:
        print("Chosen by the test set, as there is no validation split: the best value is optimistic.")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in best.hyperparameters.items()]
    options += [f"--epochs={settings.epochs}", f"--seed={best.seed}", f"--split-seed={settings.seed}"]
    print("Train it again: " + shlex.join(["python", "training/run.py", *options]))


def _show_table(title: str, table: pd.DataFrame, space: SearchSpace, metric: str) -> None:
    columns = ["trial_number", "status", *space, *dict.fromkeys([metric, "test_accuracy"])]
    print(f"\n{title}")
    print(table[columns].to_string(index=False, float_format=format_value))


def _show_by_optimizer(table: pd.DataFrame, metric: str, mode: str) -> None:
    measured = table.dropna(subset=[metric])
    if "optimizer" not in measured or measured.empty:
        return
    groups = measured.groupby("optimizer")[metric].agg(["count", mode, "median"])
    groups.columns = ["trials", "best", "median"]
    print(f"\n{metric} by optimizer")
    print(groups.sort_values("best", ascending=mode == "min").to_string(float_format=format_value))


def format_value(value: object) -> str:
    """A number with four significant digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def shorten(text: str, length: int) -> str:
    """The text, cut with an ellipsis where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none ended"
