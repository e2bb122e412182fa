"""Learning curves of a study's own trials, so that it can be replayed with another scheduler or fewer trials."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import pandas as pd

from search.curves import METRICS, Curve, numbers_of, read_csv
from search.trial_record import FAILED, Failure, Status
from training.config import TrialConfig
from training.loop import EpochMetrics


@dataclass(frozen=True)
class StudyTrial:
    """One trial of a study that was run."""

    number: int
    status: Status
    is_baseline: bool
    """It had the tutorial's own settings."""
    curve: Curve


def is_study(table: pd.DataFrame) -> bool:
    """Whether a table has the columns of a study's `epochs.csv`."""
    return {"trial_number", "epoch", *METRICS} <= {*table.columns}


def read_study(file: Path, epochs: pd.DataFrame) -> list[StudyTrial]:
    """Take the trials of a study from its `epochs.csv` and the `trials.csv` beside it, in order of their number.

    Trials that took no time, because their worker died first, are left out.

    Raises:
        ValueError: A file is damaged, or they are not of one study.
    """
    beside = file.with_name("trials.csv")
    trials = read_csv(beside)
    if not {"trial_number", "status", "epochs", "seconds"} <= {*trials.columns}:
        raise ValueError(f"{beside} is not the trials.csv of a study")
    numbers_of(beside, trials, ("trial_number", "epochs"))
    measured = [name for name in METRICS if not epochs[name].isna().all()]  # val_ only with a validation split
    curves: dict[int, list[EpochMetrics]] = {}
    for number, epoch, *values in numbers_of(file, epochs, ("trial_number", "epoch", *measured)).tolist():
        metrics = dict.fromkeys(METRICS) | dict(zip(measured, values, strict=True))
        curves.setdefault(int(number), []).append(EpochMetrics(epoch=int(epoch), **metrics))
    expected = {int(row.trial_number): list(range(1, int(row.epochs) + 1)) for row in trials.itertuples()}
    found = dict.fromkeys(expected, []) | {
        number: [metrics.epoch for metrics in curve] for number, curve in curves.items()
    }
    if found != expected:
        raise ValueError(f"{file} is damaged, or {beside} is of another study: their trials and epochs differ")
    study = [_trial(beside, row, curves.get(int(row["trial_number"]), [])) for _, row in trials.iterrows()]
    return sorted((trial for trial in study if trial.curve), key=lambda trial: trial.number)


def _trial(file: Path, row: "pd.Series[object]", curve: list[EpochMetrics]) -> StudyTrial:
    if row["status"] not in get_args(Status):
        raise ValueError(f"{file} is damaged: no trial has status {row['status']}")
    steps: Curve = curve
    if row["status"] in FAILED and pd.notna(row["seconds"]):
        left = float(str(row["seconds"])) - sum(metrics.seconds for metrics in curve)
        kind = "diverged" if row["status"] == "diverged" else "exception"
        steps = [*curve, Failure(kind, str(row.get("error")), seconds=max(0.0, left))]
    searched = {field.name for field in fields(TrialConfig)} - {"epochs", "seed"} & {*map(str, row.index)}
    is_baseline = all(row[name] == getattr(TrialConfig(), name) for name in searched)
    return StudyTrial(int(str(row["trial_number"])), row["status"], is_baseline, steps)  # type: ignore[arg-type]
