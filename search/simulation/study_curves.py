"""Learning curves of a study's own trials, for a replay with another scheduler or fewer trials."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from search.record.trial import FAILED, Failure, Status
from search.simulation.learning_curves import METRICS, Curve, numbers_of, read_csv
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


def is_study(table: pd.DataFrame) -> bool:
    """Whether a table has the columns of a study's `epochs.csv`."""
    return {"trial_number", "epoch", *METRICS} <= {*table.columns}


def read_study(file: Path, epochs: pd.DataFrame) -> list[StudyTrial]:
    """Read the trials of a study from its `epochs.csv` and the `trials.csv` beside it, in order of number.

    Trials that failed before they measured anything are left out. A ValueError says how the files are damaged.
    """
    trials_file = file.with_name("trials.csv")
    trials = read_csv(trials_file)
    if not {"trial_number", "status", "epochs", "seconds"} <= {*trials.columns}:
        raise ValueError(f"{trials_file} is not the trials.csv of a study")
    numbers_of(trials_file, trials, ("trial_number", "epochs"))
    measured = [name for name in METRICS if not epochs[name].isna().all()]  # val_ only with a validation split
    curves: dict[int, list[EpochMetrics]] = {}
    for number, epoch, *values in numbers_of(file, epochs, ("trial_number", "epoch", *measured)).tolist():
        metrics: dict[str, Any] = dict.fromkeys(METRICS) | dict(zip(measured, values, strict=True))
        curves.setdefault(int(number), []).append(EpochMetrics(epoch=int(epoch), evaluation_seconds=0.0, **metrics))
    rows = sorted(trials.to_dict("records"), key=lambda row: row["trial_number"])
    expected = [(int(row["trial_number"]), epoch) for row in rows for epoch in range(1, int(row["epochs"]) + 1)]
    if expected != [(number, metrics.epoch) for number, curve in sorted(curves.items()) for metrics in curve]:
        raise ValueError(f"{file} is damaged, or {trials_file} is of another study: their trials and epochs differ")
    study = [_trial(trials_file, row, curves.get(int(row["trial_number"]), [])) for row in rows]
    return [trial for trial in study if trial.curve]


def _trial(file: Path, row: dict[Hashable, Any], curve: Sequence[EpochMetrics]) -> StudyTrial:
    """Combine the rows of both files for a trial."""
    if row["status"] not in get_args(Status):
        raise ValueError(f"{file} is damaged: no trial has status {row['status']}")
    steps: Curve = curve
    if row["status"] in FAILED and row["seconds"] > 0:  # no seconds if the trial failed at once
        seconds = max(0.0, float(row["seconds"]) - sum(metrics.seconds for metrics in curve))
        steps = [*curve, Failure("diverged" if row["status"] == "diverged" else "exception", "", seconds=seconds)]
    searched = ({field.name for field in fields(TrialConfig)} - {"epochs", "seed"}) & row.keys()
    is_baseline = all(row[name] == getattr(TrialConfig(), name) for name in searched if not pd.isna(row[name]))
    return StudyTrial(int(row["trial_number"]), row["status"], is_baseline, steps)
