"""Converts the record of a study to pandas tables; the columns are listed here, in their order."""

from dataclasses import asdict, fields
from typing import Any

import pandas as pd
from optuna.distributions import IntDistribution

from search.record.ranking import ranked
from search.record.study_record import StudyRecord
from search.record.trial import Timing, TrialRecord
from search.space.distributions import optuna_distribution
from training.console.terminal import spreadsheet_cell


def trial_table(record: StudyRecord) -> pd.DataFrame:
    """Build `trials.csv`: one row for each ended trial, best first; metrics are those of its best epoch."""
    metric_names, rows = record.metadata.task.metric_names, []
    columns = ["trial_number", "trial_id", "status", *record.space, "epochs", "best_epoch"]
    columns += [*metric_names, "seconds", "seed", "error"]
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
    table = pd.DataFrame(rows, columns=columns).map(as_cell)
    integers = [name for name, part in record.space.items() if isinstance(optuna_distribution(part), IntDistribution)]
    return table.astype({name: "Int64" for name in ("best_epoch", *integers) if table[name].isna().any()})


def as_cell(value: object) -> object:
    """Make a value safe for a spreadsheet: a text becomes one line, with an apostrophe if it looks like a formula."""
    return spreadsheet_cell(value) if isinstance(value, str) else value


def epoch_table(record: StudyRecord) -> pd.DataFrame:
    """Build `epochs.csv`: one row for each ended trial and epoch, in order of trial number and epoch."""
    rows = [
        {"trial_number": trial.number, **asdict(metrics), **_timing(trial, metrics.epoch)}
        for trial in record.trials
        if trial.status != "running"
        for metrics in trial.epochs
    ]
    columns = ["trial_number", *(field.name for field in (*fields(record.metadata.task.epoch_type), *fields(Timing)))]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("session", "node", "pid"), "Int64"))


def _timing(trial: TrialRecord, epoch: int) -> dict[str, Any]:
    timing = trial.timings.get(epoch)
    return asdict(timing) if timing else {}
