"""What the terminal shows when a study is over: no more than a screen."""

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from textwrap import fill

import pandas as pd

from search.analysis.findings import Findings
from search.analysis.gain import baseline_name, gain_over_baseline
from search.analysis.time_accounting import PART_NAMES, time_accounting, wall_seconds
from search.outputs.confirmation_text import show_confirmation
from search.outputs.error_analysis import exported_best
from search.outputs.tables import trial_table
from search.record.file_names import REPORT, STUDY_DB
from search.record.lookup import code_paths, study_args
from search.record.ranking import baseline_trial, best_trial, ended_trials, ranked, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings
from training.config import NETWORKS
from training.console.command_line import without_password
from training.console.terminal import format_value, short_path
from training.run import TrainingSettings

WIDTH = 80
"""Characters of a line; of the hyperparameters as many are shown in the table as have room."""


def show_summary(settings: StudySettings, record: StudyRecord, findings: Findings) -> None:
    """Print what the study found, how much it gained over the tutorial's settings, and where to look further."""
    ended = ended_trials(record.trials)
    counts = Counter(trial.status for trial in ranked(record.trials))
    listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    seconds = wall_seconds(record)
    print(
        f"\n{record.metadata.task.name}: {len(ended)} of {settings.num_samples} trials in {duration(seconds)}: "
        f"{listed or 'none ended'}"
    )
    _show_time(record)
    best = best_trial(record.trials)
    if best is None:
        print("No trial measured anything that stands; the errors are in trials.csv and errors/.")
    else:
        _show_best(record, best)
        table = trial_table(record)
        measured = table[table["trial_number"].isin([trial.number for trial in valid_trials(record.trials)])]
        _show_best_five(measured, record)
        _show_by_optimizer(measured, record.metric, settings.direction)
        if record.metadata.task.has_images:
            print(f"Train it again: {reproduce_command(settings, record, best)}")
    show_confirmation(record)
    if findings.recommendations:
        first, *others = findings.recommendations
        print(f"Next: {first.sentence}" + (f" ({len(others)} more in the report)" if others else ""))
        if first.snippet and "\n" not in first.snippet:
            print(f"  {first.snippet}")
    _show_files(record)


def _show_time(record: StudyRecord) -> None:
    seconds = time_accounting(record)
    if not seconds["whole"]:
        return
    shares = {name: 100 * seconds[part] / seconds["whole"] for part, name in PART_NAMES.items() if seconds[part]}
    print(f"Time: {', '.join(f'{name} {share:.0f}%' for name, share in shares.items())}")


def _show_best(record: StudyRecord, best: TrialRecord) -> None:
    metrics = best.best_epoch
    assert metrics is not None, "the best trial has reported"
    names = record.metadata.task.displayed_metrics
    measured = ", ".join(f"{name} {getattr(metrics, name):.4f}" for name in names)
    print(f"\nBest: trial {best.number}, epoch {metrics.epoch}: {measured}")
    values = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
    print(fill(values, WIDTH, initial_indent="  ", subsequent_indent="  "))
    if record.metric.startswith("test_") and record.metadata.task.has_images:
        print("  chosen by the test set, as there is no validation split: the best value is optimistic")
    baseline = baseline_trial(record.trials)
    gains = [gain for name in names if (gain := gain_over_baseline(record, metrics, name))]
    if baseline and gains:
        so_far = "" if baseline.status == "completed" else f" ({baseline.status} in epoch {len(baseline.epochs)})"
        print(f"  over the {baseline_name(record.metadata)}{so_far}: {', '.join(gains)}")


def training_command(settings: StudySettings, record: StudyRecord, trial: TrialRecord) -> str:
    """The command line that trains a trial of the study alone and gets the same numbers."""
    values = {
        **record.metadata.task.fixed,
        **record.space.with_fixed(trial.hyperparameters),
        "seed": trial.seed,
        "dataset": record.metadata.settings.dataset,
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


def _show_best_five(measured: pd.DataFrame, record: StudyRecord) -> None:
    metrics = record.metadata.task.displayed_metrics
    formats = {name: "{:.4f}".format for name in metrics}
    for shown in range(len(record.space), -1, -1):
        columns = ["trial_number", *list(record.space)[:shown], *metrics]
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
    code = [argument for option in code_paths(settings).items() for argument in option]
    study, *storage = study_args(record.folder, record.address)
    words = [str(short_path(Path(study))), str(trial.number), *storage, *code]
    return shlex.join(["python", "search/reproduce.py", *words])


def show_early_end(reason: str, settings: StudySettings, record: StudyRecord, *, can_go_on: bool) -> None:
    """Print why a study ended before all its trials had, and the command that goes on with it."""
    args = ["--resume", *study_args(record.folder, record.address)]
    if settings.log:
        args += ["--log", *settings.log]
    if settings.mlflow_uri is not None:
        args += ["--mlflow-uri", without_password(settings.mlflow_uri)]
    print(f"\n{reason}" + (f" To go on: python search/run.py {shlex.join(args)}" if can_go_on else ""), flush=True)


def _show_files(record: StudyRecord) -> None:
    folder = short_path(record.folder)
    model = exported_best(record)
    if model:
        trust = "" if record.metadata.task.network in NETWORKS else " --trust-network"
        print(f"Use it: python training/predict.py {shlex.quote(str(short_path(model)))} IMAGE{trust}")
    print(f"Report: {folder / REPORT} (the folder holds {disk_use(record.folder)})")
    address = record.address or f"sqlite:///{folder / STUDY_DB}"
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
