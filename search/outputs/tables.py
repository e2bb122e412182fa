"""The record of a study as pandas tables, with our columns in our order."""

from dataclasses import asdict, fields
from typing import Any

import pandas as pd
from optuna.distributions import IntDistribution

from search.record.ranking import ranked
from search.record.study_record import StudyRecord
from search.record.trial import Timing, TrialRecord
from search.space.distributions import optuna_distribution
from training.console.terminal import spreadsheet_cell


def trial_columns(record: StudyRecord) -> list[str]:
    """The columns of `trials.csv`."""
    return [
        *("trial_number", "trial_id", "status"),
        *record.space,
        *("epochs", "best_epoch"),
        *record.metadata.task.metric_names,
        *("seconds", "seed", "error"),
    ]


def trial_table(record: StudyRecord) -> pd.DataFrame:
    """One row for each ended trial, best first; metrics are those of its best epoch."""
    rows, metric_names = [], record.metadata.task.metric_names
    for trial in ranked(record.trials):
        best = trial.best_epoch
        rows.append(
            {
                "trial_number": trial.number,
                "trial_id": trial.trial_id,
                "status": trial.status,
                **trial.hyperparameters,
                "epochs": len(trial.epochs),
                "best_epoch": best.epoch if best else None,
                **{name: getattr(best, name, None) for name in metric_names},
                "seconds": trial.seconds,
                "seed": trial.seed,
                "error": trial.failure.error if trial.failure else None,
            }
        )
    table = pd.DataFrame(rows, columns=trial_columns(record)).map(as_cell)
    whole = [name for name, part in record.space.items() if isinstance(optuna_distribution(part), IntDistribution)]
    return table.astype({name: "Int64" for name in ("best_epoch", *whole) if table[name].isna().any()})


def as_cell(value: object) -> object:
    """What goes into a cell: numbers as they are; texts in one line, an apostrophe before those like a formula."""
    return spreadsheet_cell(value) if isinstance(value, str) else value


def epoch_table(record: StudyRecord) -> pd.DataFrame:
    """One row for each ended trial and epoch, in order of trial number and epoch."""
    rows = [
        {"trial_number": trial.number, **asdict(metrics), **_run(trial, metrics.epoch)}
        for trial in record.trials
        if trial.status != "running"
        for metrics in trial.epochs
    ]
    columns = ["trial_number", *(field.name for field in (*fields(record.metadata.task.epoch_type), *fields(Timing)))]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("session", "node", "pid"), "Int64"))


def _run(trial: TrialRecord, epoch: int) -> dict[str, Any]:
    run = trial.timings.get(epoch)
    return asdict(run) if run else {}
