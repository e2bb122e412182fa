"""Learning curves of a study's own trials, for a replay with another scheduler or fewer trials."""

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd

from search.record.trial import FAILED, Failure, Status
from search.simulation.learning_curves import METRICS, Curve, numbers_of, read_csv
from search.task.custom_metrics import CustomMetrics
from search.task.metric_names import Mode, check_metric_name
from training.config import TrialConfig
from training.metrics import EpochMetrics


@dataclass(frozen=True)
class StudyTrial:
    """A trial of a recorded study."""

    number: int
    status: Status
    is_baseline: bool
    """Whether the trial has the tutorial's own settings."""
    curve: Curve


@dataclass(frozen=True)
class OtherStudy:
    """The trials of a study that is not on images: of a training function, of a program, or imported."""

    trials: list[StudyTrial]
    metric: str
    mode: Mode
    has_seconds: bool
    """Whether the times of the epochs are known; otherwise each counts as one second."""


def is_other_study(table: pd.DataFrame) -> bool:
    """Whether a table has the columns of the `epochs.csv` of a study that is not on images."""
    return {"trial_number", "epoch", "seconds", "evaluation_seconds"} <= {*table.columns} and not is_study(table)


def is_study(table: pd.DataFrame) -> bool:
    """Whether a table has the columns of a study's `epochs.csv`."""
    return {"trial_number", "epoch", *METRICS} <= {*table.columns}


def read_study(file: Path, epochs: pd.DataFrame) -> list[StudyTrial]:
    """Read the trials of a study from its `epochs.csv` and the `trials.csv` beside it, in order of number.

    Trials that failed before they measured anything are left out. A ValueError says how the files are damaged.
    """
    measured = [name for name in METRICS if not epochs[name].isna().all()]  # val_ only with a validation split
    curves: dict[int, list[EpochMetrics]] = {}
    for number, epoch, *values in numbers_of(file, epochs, ("trial_number", "epoch", *measured)).tolist():
        metrics: dict[str, Any] = dict.fromkeys(METRICS) | dict(zip(measured, values, strict=True))
        curves.setdefault(int(number), []).append(EpochMetrics(epoch=int(epoch), evaluation_seconds=0.0, **metrics))
    return _trials(file, curves)


def read_other_study(file: Path, epochs: pd.DataFrame) -> OtherStudy:
    """Read the trials of a study that is not on images, as `read_study` does; `study.json` names its metric."""
    metric, mode = _metric_and_mode(file.with_name("study.json"))
    column = metric if metric in epochs.columns else f"metric_{metric}"
    if column not in epochs.columns:
        raise ValueError(f"{file} has no column {metric}, the metric that study.json names")
    has_seconds = not epochs["seconds"].isna().any()
    timed = epochs if has_seconds else epochs.assign(seconds=1.0)
    numbers = numbers_of(file, timed, ("trial_number", "epoch", "seconds")).tolist()
    values = pd.to_numeric(epochs[column], errors="coerce").tolist()
    curves: dict[int, list[CustomMetrics]] = {}
    for (number, epoch, seconds), value in zip(numbers, values, strict=True):
        measured = {metric: None if math.isnan(value) else value}
        curves.setdefault(int(number), []).append(CustomMetrics(epoch=int(epoch), seconds=seconds, values=measured))
    return OtherStudy(_trials(file, curves), metric, mode, has_seconds)


def _metric_and_mode(file: Path) -> tuple[str, Mode]:
    """The metric of a study and its mode, as `study.json` names them."""
    try:
        settings = json.loads(file.read_text())["settings"]
        metric, mode = str(settings["metric"]), settings["mode"]
        check_metric_name(metric)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file}, which names the metric of the study, cannot be read: {type(error).__name__}"
        ) from None
    if mode not in get_args(Mode):
        raise ValueError(f"{file} is damaged: no metric has mode {mode!r:.80}")
    return metric, cast(Mode, mode)


def _trials(file: Path, curves: dict[int, Any]) -> list[StudyTrial]:
    """The trials of a study: their curves by number, and what the `trials.csv` beside them says."""
    trials_file = file.with_name("trials.csv")
    trials = read_csv(trials_file)
    if not {"trial_number", "status", "epochs", "seconds"} <= {*trials.columns}:
        raise ValueError(f"{trials_file} is not the trials.csv of a study")
    numbers_of(trials_file, trials, ("trial_number", "epochs"))
    rows = sorted(trials.to_dict("records"), key=lambda row: row["trial_number"])
    expected = [(int(row["trial_number"]), epoch) for row in rows for epoch in range(1, int(row["epochs"]) + 1)]
    if expected != [(number, metrics.epoch) for number, curve in sorted(curves.items()) for metrics in curve]:
        raise ValueError(f"{file} is damaged, or {trials_file} is of another study: their trials and epochs differ")
    study = [_trial(trials_file, row, curves.get(int(row["trial_number"]), [])) for row in rows]
    return [trial for trial in study if trial.curve]


def _trial(file: Path, row: dict[Hashable, Any], curve: Sequence[Any]) -> StudyTrial:
    """Combine the rows of both files for a trial."""
    if row["status"] not in get_args(Status):
        raise ValueError(f"{file} is damaged: no trial has status {row['status']}")
    steps: Curve = [metrics for metrics in curve if is_measured(metrics)]
    if row["status"] in FAILED and row["seconds"] > 0:  # no seconds if the trial failed at once
        seconds = max(0.0, float(row["seconds"]) - sum(metrics.seconds for metrics in curve))
        steps = [*steps, Failure("diverged" if row["status"] == "diverged" else "exception", "", seconds=seconds)]
    searched = ({field.name for field in fields(TrialConfig)} - {"epochs", "seed"}) & row.keys()
    if curve and isinstance(curve[0], CustomMetrics):
        return StudyTrial(int(row["trial_number"]), row["status"], is_baseline=False, curve=steps)
    is_baseline = all(row[name] == getattr(TrialConfig(), name) for name in searched if not pd.isna(row[name]))
    return StudyTrial(int(row["trial_number"]), row["status"], is_baseline, steps)


def is_measured(metrics: Any) -> bool:
    """Whether an epoch has its metric, which a training function may leave out."""
    return not isinstance(metrics, CustomMetrics) or None not in metrics.values.values()
