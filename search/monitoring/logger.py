"""What a logger is, and the names and numbers that all loggers show."""

from dataclasses import asdict
from typing import Protocol

from search.record.study_record import StudyRecord
from search.record.trial import Metrics, TrialRecord


class Logger(Protocol):
    """Shows one study elsewhere.

    It only reads the record. It may be told a trial's epochs and its end more than once, also by a later start of the
    study, and it writes what is missing.
    """

    def epoch(self, trial: TrialRecord) -> None:
        """A trial has more epochs than before."""

    def ended(self, trial: TrialRecord) -> None:
        """A trial has ended, and will not go on."""

    def close(self) -> None:
        """The study is over, and its files are written."""


def measured(metrics: Metrics) -> dict[str, float]:
    """What was measured in an epoch, by name; the epoch itself is the step at which it is shown."""
    return {name: value for name, value in asdict(metrics).items() if name != "epoch" and value is not None}


def best_name(record: StudyRecord) -> str:
    """What the best value of a trial, or of the study, is called elsewhere."""
    return f"best_{record.metric}"


def best_epoch(trial: TrialRecord) -> Metrics | None:
    """The best epoch of a trial; None if its metrics are not valid."""
    return trial.best_epoch if trial.is_valid else None
