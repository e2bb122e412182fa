"""What the terminal shows when a study is over: no more than a screen."""

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from textwrap import fill

import pandas as pd

from search.analysis.findings import Findings
from search.analysis.time_accounting import PART_NAMES, time_ledger, wall_seconds
from search.monitoring.terminal import as_typed, format_value, gain_over_baseline
from search.outputs.confirmation_text import show_confirmation
from search.outputs.error_analysis import shipped_best
from search.outputs.tables import trial_table
from search.record.lookup import code_places
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings
from search.space.search_space import SearchSpace
from training.config import NETWORKS, PROJECT
from training.run import TrainingSettings

WIDTH = 80
"""Characters of a line; of the hyperparameters as many are shown in the table as have room."""


def show_summary(settings: StudySettings, record: StudyRecord, space: SearchSpace, findings: Findings) -> None:
    """Print what the study found, how much it gained over the tutorial's settings, and where to look further."""
    ended = record.ended()
    counts = Counter(trial.status for trial in record.ranked())
    listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    seconds = wall_seconds(record)
    print(
        f"\n{record.subject.name}: {len(ended)} of {settings.num_samples} trials in {duration(seconds)}: "
        f"{listed or 'none ended'}"
    )
    _show_time(record)
    best = record.best()
    if best is None:
        print("No trial measured anything that stands; the errors are in trials.csv and errors/.")
    else:
        _show_best(record, best)
        table = trial_table(record, space)
        measured = table[table["trial_number"].isin([trial.number for trial in record.measured()])]
        _show_best_five(measured, space, record)
        _show_by_optimizer(measured, record.metric, settings.direction)
        if record.subject.has_images:
            print(f"Train it again: {reproduce_command(settings, record, best)}")
    show_confirmation(record)
    if findings.advice:
        first, *others = findings.advice
        print(f"Next: {first.sentence}" + (f" ({len(others)} more in the report)" if others else ""))
        if first.snippet and "\n" not in first.snippet:
            print(f"  {first.snippet}")
    _show_files(record)


def _show_time(record: StudyRecord) -> None:
    ledger = time_ledger(record)
    if ledger is None or not ledger["whole"]:
        return
    shares = {name: 100 * ledger[part] / ledger["whole"] for part, name in PART_NAMES.items() if ledger[part]}
    print(f"Time: {', '.join(f'{name} {share:.0f}%' for name, share in shares.items())}")


def _show_best(record: StudyRecord, best: TrialRecord) -> None:
    metrics = record.best_epoch(best)
    assert metrics is not None, "the best trial has reported"
    names = record.subject.told_metrics
    measured = ", ".join(f"{name} {getattr(metrics, name):.4f}" for name in names)
    print(f"\nBest: trial {best.number}, epoch {metrics.epoch}: {measured}")
    values = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
    print(fill(values, WIDTH, initial_indent="  ", subsequent_indent="  "))
    if record.metric.startswith("test_") and record.subject.has_images:
        print("  chosen by the test set, as there is no validation split: the best value is optimistic")
    baseline = record.baseline()
    gains = [gain for name in names if (gain := gain_over_baseline(record, metrics, name))]
    if baseline and gains:
        so_far = "" if baseline.status == "completed" else f" ({baseline.status} in epoch {len(baseline.epochs)})"
        print(f"  over the {record.baseline_name}{so_far}: {', '.join(gains)}")


def training_command(settings: StudySettings, record: StudyRecord, trial: TrialRecord) -> str:
    """The command line that trains a trial of the study alone and gets the same numbers."""
    values = {
        **record.subject.fixed,
        **record.space.with_fixed(trial.hyperparameters),
        "seed": trial.seed,
        "dataset": record.facts["settings"]["dataset"],
        "image_size": settings.image_size,
        "data_dir": settings.data_dir,
        "val_fraction": settings.val_fraction,
        "split_seed": settings.seed,
        "threads": settings.cpus_per_trial,
    }
    defaults = asdict(TrainingSettings())
    words = [_option(name, value) for name, value in values.items() if name not in defaults or value != defaults[name]]
    return shlex.join(["python", "training/run.py", *words])


def _option(name: str, value: object) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={value}"


def _show_best_five(measured: pd.DataFrame, space: SearchSpace, record: StudyRecord) -> None:
    metrics = record.subject.told_metrics
    formats = {name: "{:.4f}".format for name in metrics}
    for shown in range(len(space), -1, -1):
        columns = ["trial_number", *list(space)[:shown], *metrics]
        table = measured[columns].head(5)
        lines = table.to_string(index=False, na_rep="", float_format=format_value, formatters=formats)
        if len(lines.partition("\n")[0]) <= WIDTH:
            break
    print("\n" + lines)


def _show_by_optimizer(measured: pd.DataFrame, metric: str, mode: str) -> None:
    if "optimizer" not in measured:
        return
    groups = measured.groupby("optimizer")[metric].agg(["count", mode]).sort_values(mode, ascending=mode == "min")
    listed = [f"{name} {best:.4f} ({trials})" for name, trials, best in groups.itertuples()]
    print(f"Best by optimizer (trials): {', '.join(listed)}")


def reproduce_command(settings: StudySettings, record: StudyRecord, trial: TrialRecord) -> str:
    """The command line that trains a trial again from the record, and compares; it names the code that is run."""
    folder = record.folder
    study = folder.name if folder.parent == PROJECT / "results" else str(as_typed(folder))
    storage = ["--storage", record.address] if record.address else []
    code = [word for option in code_places(settings).items() for word in option]
    return shlex.join(["python", "search/reproduce.py", study, str(trial.number), *storage, *code])


def _show_files(record: StudyRecord) -> None:
    folder = as_typed(record.folder)
    model = shipped_best(record)
    if model:
        trust = "" if record.subject.network in NETWORKS else " --trust-network"
        print(f"Use it: python training/predict.py {shlex.quote(str(as_typed(model)))} IMAGE{trust}")
    print(f"Report: {folder / 'report.html'} (the folder holds {disk_use(record.folder)})")
    address = record.address or f"sqlite:///{folder / 'study.db'}"
    print(f"Browse: optuna-dashboard {shlex.quote(address)}")


def disk_use(folder: Path) -> str:
    """The size of all files in a folder, in words."""
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return f"{megabytes:.1f} MB"


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
