"""Prints the summary of a study when it is over; the summary fits on one screen."""

import shlex
import sys
from collections import Counter
from dataclasses import asdict

import pandas as pd
from optuna.distributions import CategoricalDistribution

from search.analysis.findings import Findings
from search.analysis.gain import baseline_name, gain_over_start
from search.analysis.time_accounting import PART_NAMES, time_accounting, wall_seconds
from search.outputs.best_model import describe_use
from search.outputs.confirmation_text import show_confirmation
from search.outputs.tables import trial_table
from search.record.columns import hyperparameter_columns, metric_columns
from search.record.file_names import REPORT, STUDY_DB
from search.record.lookup import (
    code_paths,
    confirm_line,
    passed_paths,
    reproduce_line,
)
from search.record.ranking import baseline_trial, best_trial, ended_trials, has_measured, ranked, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.task.custom_metrics import metric_value
from training.console.terminal import (
    counted,
    format_metric,
    format_share,
    format_value,
    printable,
    short_path,
    text_width,
    wrapped,
)
from training.run import TrainingSettings
from training.typed_command import portable_line

BEST = 5
"""Number of trials in the table of the summary, the best ones."""


def show_summary(record: StudyRecord, findings: Findings, *, is_confirmed_next: bool = False) -> None:
    """Print the best trials of a study, its gain over the baseline, its first recommendation and its files.

    `is_confirmed_next` says that the same command confirms the study, so that no command for this is printed.
    """
    ended = ended_trials(record.trials)
    counts = Counter(trial.status for trial in ranked(record.trials))
    listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    trials = f"{len(ended)} of {counted(record.metadata.settings.num_samples, 'trial')}"
    time = f" in {duration(wall_seconds(record))}" if record.metadata.origin is None else ""
    title = f"{record.metadata.task.name}: {trials}{time}: {listed or 'none'}"
    print("\n" + wrapped(title, hanging="  "))
    _show_time(record)
    _show_memory(record)
    best = best_trial(record.trials)
    if best is None:
        print("No trial has valid metrics; the errors are in trials.csv and errors/.")
    else:
        _show_best(record, best)
        table = trial_table(record)
        measured = table[table["trial_number"].isin([trial.number for trial in valid_trials(record.trials)])]
        _show_best_trials(measured, record)
        _show_by_optimizer(measured, record)
        where = record.folder, record.address, record.metadata.settings
        if record.metadata.origin is None:
            print(f"Reproduce: {reproduce_line(*where, best.number)}")
        is_open = record.metadata.confirmation is None and can_be_confirmed(record)
        if len(measured) > 1 and is_open and not is_confirmed_next:
            print(f"Confirm: {confirm_line(*where)}")
    show_confirmation(record)
    if findings.recommendations:
        first, *others = findings.recommendations
        more = f" (the report has {counted(len(others), 'more recommendation')})" if others else ""
        print(wrapped(f"Next: {first.sentence}{more}", hanging="  "))
        if first.snippet and "\n" not in first.snippet:
            print(f"  {first.snippet}")
    _show_files(record)


def _chooses_by_test_data(record: StudyRecord) -> bool:
    return record.metric in record.metadata.task.test_metrics


def can_be_confirmed(record: StudyRecord) -> bool:
    """Whether the configurations of a study can be trained again from new seeds, and compared without test data."""
    return record.metadata.task.takes_new_seeds and not _chooses_by_test_data(record)


def _show_time(record: StudyRecord) -> None:
    seconds = time_accounting(record)
    if not seconds["whole"]:
        return
    parts = [(name, seconds[part]) for part, name in PART_NAMES.items() if seconds[part] > 0]
    listed = ", ".join(f"{name} {format_share(part / seconds['whole'])}" for name, part in parts)
    print(wrapped(f"Time: {listed}", hanging="  "))


def _show_memory(record: StudyRecord) -> None:
    """Print how many trials ran out of memory, and how many configurations were not tried for it; if any."""
    lost = sum(trial.failure is not None and trial.failure.kind == "out_of_memory" for trial in record.trials)
    redrawn = sum(trial.redrawn for trial in record.trials)
    if lost or redrawn:
        ran_out = f"Memory: {counted(lost, 'trial')} ran out of it"
        drawn = f"; {counted(redrawn, 'configuration')} {'was' if redrawn == 1 else 'were'} predicted not to fit"
        print(wrapped(f"{ran_out}{drawn + ', and drawn again' if redrawn else ''}.", hanging="  "))


def _show_best(record: StudyRecord, best: TrialRecord) -> None:
    metrics = best.best_epoch
    assert metrics is not None, "the best trial has valid metrics"
    names = record.metadata.task.displayed_metrics
    values = {name: metric_value(metrics, name) for name in names}
    measured = ", ".join(f"{name} {format_metric(value)}" for name, value in values.items() if value is not None)
    title = "Best of the search" if record.metadata.confirmation else "Best"
    print("\n" + wrapped(f"{title}: {describe_epoch(record, best)}: {measured}", hanging="  "))
    point = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
    print(wrapped(point, indent="  "))
    if _chooses_by_test_data(record):
        reason = f"{record.metric} is of test data, which therefore chose this trial, and its value is optimistic."
        print(wrapped(reason, indent="  "))
    line = _describe_gain(record, best, names)
    if line:
        print(wrapped(line, indent="  ", hanging="    "))


def describe_epoch(record: StudyRecord, best: TrialRecord) -> str:
    """The number of a trial, and its best epoch where there are several."""
    epoch = best.best_epoch.epoch if best.best_epoch and record.metadata.has_curves else None
    return f"trial {best.number}" + ("" if epoch is None else f", epoch {epoch}")


def _describe_gain(record: StudyRecord, best: TrialRecord, names: list[str]) -> str | None:
    """Describe the gain over the settings with which the study started, or why there is none."""
    if gain := gain_over_start(record, best):
        return (
            f"gain over the {gain.over}: {', '.join(filter(None, (gain.difference(record, name) for name in names)))}"
        )
    baseline = baseline_trial(record.trials)
    if baseline is None or not baseline.has_ended:
        return None
    if baseline.failure:
        return f"The {baseline_name(record.metadata)} {baseline.status}, so no gain over them is known."
    return "No trial was better than the settings with which the study started."


def training_command(record: StudyRecord, trial: TrialRecord) -> str | None:
    """Build the command line that trains one trial of a study without the study; its metrics are the same.

    None if a Python program passed the network or the images, which no command finds.

    The images are expected in the default data folder, because the command is passed on with the model.
    """
    settings = record.metadata.settings
    if passed_paths(settings):
        return None
    values = {
        **record.metadata.task.fixed,
        **record.space.add_fixed(trial.hyperparameters),
        "seed": trial.seed,
        "dataset": settings.dataset,
        "image_size": settings.image_size,
        "val_fraction": settings.val_fraction,
        "split_seed": settings.seed,
        "threads": settings.cpus_per_trial,
    }
    defaults = asdict(TrainingSettings())
    args = [_option(name, value) for name, value in values.items() if name not in defaults or value != defaults[name]]
    return portable_line("training/run.py", *args)


def _option(name: str, value: object) -> str:
    inner = name.strip("_")
    option = name.replace(inner, inner.replace("_", "-"))  # as tyro writes it, with `lambda_` as it is
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={value}"


def _show_best_trials(measured: pd.DataFrame, record: StudyRecord) -> None:
    metrics = [metric_columns(record)[name] for name in record.metadata.task.displayed_metrics]
    hyperparameters, trials = [*hyperparameter_columns(record).values()], len(ranked(record.trials))
    formats = dict.fromkeys(map(printable, metrics), format_metric)
    for shown in range(len(hyperparameters), -1, -1):
        columns = ["trial_number", *hyperparameters[:shown], *metrics]
        table = measured[columns].head(BEST).map(lambda value: "" if value is pd.NA else value)
        lines = table.rename(columns=printable).to_string(
            index=False, na_rep="", float_format=format_value, formatters=formats
        )
        if len(lines.partition("\n")[0]) <= text_width():
            break
    print(f"Best {len(table)} of {counted(trials, 'trial')} (trials.csv has all):" if trials > len(table) else "")
    print(lines)
    if hidden := hyperparameters[shown:]:
        names = ", ".join(map(printable, hidden))
        print(wrapped(f"The lines are too short for {names}; trials.csv has all columns.", indent="  "))


def _show_by_optimizer(measured: pd.DataFrame, record: StudyRecord) -> None:
    if not isinstance(record.space.get("optimizer"), CategoricalDistribution):
        return
    optimizer, metric = hyperparameter_columns(record)["optimizer"], metric_columns(record)[record.metric]
    groups = measured.groupby(optimizer)[metric].agg(["count", record.mode])
    groups = groups.sort_values(record.mode, ascending=record.mode == "min")
    sizes = [counted(int(groups["count"].iloc[0]), "trial"), *map(str, groups["count"].iloc[1:])]
    bests = zip(groups.index, map(format_metric, groups[record.mode]), sizes, strict=True)
    listed = [f"{name} {best} ({size})" for name, best, size in bests]
    print(wrapped(f"Best by optimizer: {', '.join(listed)}", hanging="  "))


def show_early_end(reason: str, record: StudyRecord, command: str | None, *, has_same_error: bool) -> None:
    """Print why a study or a confirmation ended before all its trials had ended, and how to continue it.

    Args:
        reason: Why it ended, in one sentence.
        record: Its record.
        command: The command that continues it; None if there is nothing to continue.
        has_same_error: Whether it ended because every trial raised the same error.
    """
    first = " Correct the cause of this error first." if has_same_error else ""
    print(f"\n{reason}" + (f"{first} To continue: {command}" if command else ""))
    settings = record.metadata.settings
    if command and has_same_error and has_measured(record.trials) and code_paths(settings):
        if record.metadata.plan:
            remedy = f"remove {short_path(record.folder)}, because its trainings ran with the old code"
        else:
            option = "accept_changes=True" if passed_paths(settings) else "--accept-changes"
            remedy = f"add {option}, if it changes none of the numbers that trials have measured"
        print(wrapped(f"If the correction changes your code, {remedy}."))
    sys.stdout.flush()


def _show_files(record: StudyRecord) -> None:
    folder = short_path(record.folder)
    if line := describe_use(record):
        print(line)
    megabytes = sum(file.stat().st_size for file in record.folder.rglob("*") if file.is_file()) / 1e6
    if (record.folder / REPORT).is_file():
        print(f"Report: {folder / REPORT} (the folder holds {megabytes:.1f} MB)")
    address = record.address or f"sqlite:///{record.folder.resolve() / STUDY_DB}"
    print(f"Browse: optuna-dashboard {shlex.quote(address)}")


def duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds, for example 1 h 2 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
