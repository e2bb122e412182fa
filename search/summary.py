"""What the terminal shows when a study is over."""

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from search.ledger import PARTS, time_ledger, wall_seconds
from search.progress import format_value
from search.record import StudyRecord
from search.settings import StudySettings
from search.space import SearchSpace
from search.trial_record import MEASURED, TrialRecord
from search.trial_table import trial_table
from training.config import DatasetName
from training.loop import EpochMetrics
from training.run import TrainingSettings


def show_summary(settings: StudySettings, dataset: DatasetName, record: StudyRecord, space: SearchSpace) -> None:
    """Print what the study found, how much it gained over the tutorial's settings, and where the files are."""
    ended = record.ranked()
    counts = Counter(trial.status for trial in ended)
    listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    seconds = wall_seconds(record)
    print(
        f"\n{dataset}: {len(ended)} of {settings.num_samples} trials in {duration(seconds)}: {listed or 'none ended'}"
    )
    _show_time(record, seconds)
    best = record.best()
    if best is None:
        print("No trial measured anything that stands; the errors are in trials.csv and errors/.")
    else:
        _show_best(settings, dataset, record, best)
        table = trial_table(record, space)
        measured = table[table["status"].isin(MEASURED) & table[record.metric].notna()]
        _show_best_five(measured, space, record.metric)
        _show_by_optimizer(measured, record.metric, settings.mode)
    print(f"\nFiles, {disk_use(record.folder)}: {record.folder}")
    record_file = "" if record.address else "  study.db"
    print(f"  trials.csv  epochs.csv  study.json{record_file}   (see results/README.md)")


def _show_time(record: StudyRecord, seconds: float) -> None:
    ledger = time_ledger(record)
    if ledger is None or not ledger["whole"]:
        return
    names = {"start_up": "start-up", "ray_and_sampler": "Ray and sampler"}
    shares = {part: 100 * ledger[part] / ledger["whole"] for part in PARTS if ledger[part]}
    listed = ", ".join(f"{names.get(part, part)} {share:.0f} %" for part, share in shares.items())
    print(f"Time, {ledger['whole'] / seconds:.0f} cores x {seconds:.0f} s: {listed}")


def disk_use(folder: Path) -> str:
    """The size of all files in a folder, in words."""
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return f"{megabytes:.1f} MB"


def _show_best(settings: StudySettings, dataset: DatasetName, record: StudyRecord, best: TrialRecord) -> None:
    metrics = record.best_epoch(best)
    assert metrics is not None, "the best trial has reported"
    names = dict.fromkeys([record.metric, "test_accuracy"])
    measured = ", ".join(f"{name} {getattr(metrics, name):.4f}" for name in names)
    print(f"\nBest: trial {best.number}, epoch {metrics.epoch}: {measured}")
    print("  " + ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items()))
    if settings.val_fraction == 0:
        print("  chosen by the test set, as there is no validation split: the best value is optimistic")
    _show_gain(record, metrics)
    print(f"Train it again:\n  {_training_command(settings, dataset, best)}")


def _training_command(settings: StudySettings, dataset: DatasetName, trial: TrialRecord) -> str:
    """The command line that trains a trial of the study alone and gets the same numbers."""
    same = TrainingSettings(
        **trial.hyperparameters,  # type: ignore[arg-type]
        dataset=dataset,
        data_dir=settings.data_dir,
        val_fraction=settings.val_fraction,
        epochs=settings.epochs,
        precision=settings.precision,
        seed=trial.seed,
        split_seed=settings.seed,
        threads=settings.cpus_per_trial,
    )
    defaults = asdict(TrainingSettings())
    options = {name: value for name, value in asdict(same).items() if value != defaults[name]}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return shlex.join(["python", "training/run.py", *words])


def _show_gain(record: StudyRecord, best: EpochMetrics) -> None:
    baseline = next((trial for trial in record.ranked() if trial.is_baseline), None)
    start = record.best_epoch(baseline) if baseline else None
    if baseline is None or start is None:
        return
    gains = []
    for name in dict.fromkeys([record.metric, "test_accuracy"]):
        gain = getattr(best, name) - getattr(start, name)
        gains.append(f"{gain * 100:+.1f} points of {name}" if name.endswith("accuracy") else f"{gain:+.4f} {name}")
    so_far = (
        "" if baseline.status == "completed" else f", which ended {baseline.status} in epoch {len(baseline.epochs)}"
    )
    print(f"Gain over the tutorial's settings (trial {baseline.number}{so_far}):\n  {', '.join(gains)}")


def _show_best_five(measured: pd.DataFrame, space: SearchSpace, metric: str) -> None:
    metrics = list(dict.fromkeys([metric, "test_accuracy"]))
    table = measured[["trial_number", *space, *metrics]].head(5)
    formats = {name: "{:.4f}".format for name in metrics}
    print("\nThe best five")
    print(table.to_string(index=False, float_format=format_value, formatters=formats))


def _show_by_optimizer(measured: pd.DataFrame, metric: str, mode: str) -> None:
    if "optimizer" not in measured:
        return
    groups = measured.groupby("optimizer")[metric].agg(["count", mode, "median"]).reset_index()
    groups.columns = pd.Index(["optimizer", "trials", "best", "median"])
    groups = groups.sort_values("best", ascending=mode == "min")
    print(f"\n{metric} by optimizer")
    print(groups.to_string(index=False, float_format="{:.4f}".format))


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
