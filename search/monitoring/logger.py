"""The protocol of a logger, and functions that all loggers use."""

from dataclasses import asdict
from typing import Protocol

from search.record.study_record import StudyRecord
from search.record.trial import Metrics, TrialRecord


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


def metric_values(metrics: Metrics) -> dict[str, float]:
    """List the metrics of an epoch by name; the epoch itself is not among them, because it is the step."""
    return {name: value for name, value in asdict(metrics).items() if name != "epoch" and value is not None}


def best_name(record: StudyRecord) -> str:
    """Name the best value of a trial, or of the study."""
    return f"best_{record.metric}"


def best_epoch(trial: TrialRecord) -> Metrics | None:
    """Find the best epoch of a trial; None if its metrics are not valid."""
    return trial.best_epoch if trial.is_valid else None
