"""Converts the record of a study to pandas tables; the columns are listed here, in their order."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

import pandas as pd
from optuna.distributions import IntDistribution

from search.record.columns import hyperparameter_columns, metric_columns
from search.record.ranking import ranked
from search.record.study_record import StudyRecord
from search.record.trial import Metrics, Timing, TrialRecord
from search.space.distributions import optuna_distribution
from search.task.custom_metrics import metric_value
from training.console.terminal import spreadsheet_cell

MEMORY_COLUMNS = ("peak_memory_mb", "peak_gpu_memory_mb", "micro_batch_size")
"""The columns of a `MemoryUse`."""


def trial_table(record: StudyRecord) -> pd.DataFrame:
    """Build `trials.csv`: one row for each ended trial, best first; metrics are those of its best epoch."""
    metrics, hyperparameters, rows = metric_columns(record), hyperparameter_columns(record), []
    columns = ["trial_number", "trial_id", "status", *hyperparameters.values(), "epochs", "best_epoch"]
    columns += [*metrics.values(), "seconds", *MEMORY_COLUMNS, "seed", "error"]
    for trial in ranked(record.trials):
        best = trial.best_epoch
        rows.append(
            {
                "trial_number": trial.number,
                "trial_id": trial.trial_id,
                "status": trial.status,
                **{hyperparameters[name]: value for name, value in trial.hyperparameters.items()},
                "epochs": len(trial.epochs),
                "best_epoch": best.epoch if best else None,
                **{column: metric_value(best, name) if best else None for name, column in metrics.items()},
                "seconds": trial.seconds,
                **dict(zip(MEMORY_COLUMNS, astuple(trial.memory), strict=True)),
                "seed": trial.known_seed,
                "error": trial.failure.error if trial.failure else None,
            }
        )
    table = pd.DataFrame(rows, columns=columns).map(as_cell)
    integers = [
        hyperparameters[name]
        for name, distribution in record.space.items()
        if isinstance(optuna_distribution(distribution), IntDistribution)
    ]
    integers += ["best_epoch", *MEMORY_COLUMNS]
    return table.astype({name: "Int64" for name in integers if table[name].isna().any()})


def as_cell(value: object) -> object:
    """Make a value safe for a spreadsheet: a text becomes one line, with an apostrophe if it looks like a formula."""
    return spreadsheet_cell(value) if isinstance(value, str) else value


def epoch_columns(record: StudyRecord) -> list[str]:
    """The columns of `epochs.csv`."""
    columns = metric_columns(record)
    names = [field.name for field in fields(record.metadata.task.epoch_type) if field.name != "values"]
    names += [column for column in columns.values() if column not in names]
    return ["trial_number", *names, *(field.name for field in fields(Timing))]


def epoch_table(record: StudyRecord, trials: Sequence[TrialRecord] | None = None) -> pd.DataFrame:
    """Build `epochs.csv`, or its rows of some trials: one for each ended trial and epoch, in order of both."""
    columns = metric_columns(record)
    rows = [
        {"trial_number": trial.number, **_epoch_cells(metrics, columns), **_timing(trial, metrics.epoch)}
        for trial in (record.trials if trials is None else trials)
        if trial.status != "running"
        for metrics in trial.epochs
    ]
    table = pd.DataFrame(rows, columns=epoch_columns(record))
    return table.astype(dict.fromkeys(("session", "node", "pid"), "Int64"))


def _epoch_cells(metrics: Metrics, columns: Mapping[str, str]) -> dict[str, Any]:
    cells = asdict(metrics)
    return cells | {columns[name]: value for name, value in cells.pop("values", {}).items()}


def _timing(trial: TrialRecord, epoch: int) -> dict[str, Any]:
    timing = trial.timings.get(epoch)
    return asdict(timing) if timing else {}
