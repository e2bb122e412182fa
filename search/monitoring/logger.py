"""The protocol of a logger, and functions that all loggers use."""

from typing import Protocol

from search.record.columns import distinct_columns, hyperparameter_columns, metric_columns
from search.record.study_record import StudyRecord
from search.record.trial import Metrics, TrialRecord
from search.space.distributions import HyperparameterValue
from search.task.custom_metrics import metric_value


class Logger(Protocol):
    """Shows one study in another program; a logger only reads the record.

    A logger may receive the epochs and the end of a trial more than once, also in a later session of the study, and it
    writes only what is missing.
    """

    def epoch(self, trial: TrialRecord) -> None:
        """Write the new epochs of a trial."""

    def ended(self, trial: TrialRecord) -> None:
        """Write the end of a trial, which will not go on."""

    def close(self) -> None:
        """End the log, after the files of the study are written."""


def metric_values(record: StudyRecord, metrics: Metrics) -> dict[str, float]:
    """List the metrics of an epoch by column; the epoch itself is not among them, because it is the step."""
    measured = {column: metric_value(metrics, name) for name, column in metric_columns(record).items()}
    measured |= {"seconds": metrics.seconds, "evaluation_seconds": metrics.evaluation_seconds}
    return {column: value for column, value in measured.items() if value is not None}


def hyperparameters_and_seed(record: StudyRecord, trial: TrialRecord) -> dict[str, HyperparameterValue]:
    """List the hyperparameters of a trial by column, and its seed."""
    columns = hyperparameter_columns(record)
    return {columns[name]: value for name, value in trial.hyperparameters.items()} | {"seed": trial.seed}


def best_name(record: StudyRecord) -> str:
    """Name the best value of a trial, or of the study."""
    return distinct_columns("best", [f"best_{record.metric}"], metric_columns(record).values())[f"best_{record.metric}"]


def best_epoch(trial: TrialRecord) -> Metrics | None:
    """Find the best epoch of a trial; None if its metrics are not valid."""
    return trial.best_epoch if trial.is_valid else None
