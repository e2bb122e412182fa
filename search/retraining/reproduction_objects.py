"""A repeated training as an object for other programs: the document of `search/reproduce.py --json`."""

from dataclasses import dataclass
from typing import Literal

from search.outputs.trial_objects import metric_values
from search.record.study_record import StudyRecord
from search.record.trial import Status
from search.retraining.reproduction import Reproduction
from search.space.distributions import HyperparameterValue


@dataclass(frozen=True, kw_only=True)
class ReproducedEpoch:
    """An epoch of the record and of the repeated training."""

    epoch: int
    recorded: dict[str, float | None] | None
    """The metrics by name; null if the trial had failed or ended by then."""
    retrained: dict[str, float | None]
    deviations: dict[str, float | None]
    """The deviation of each metric that differs; null where only one of the two has it."""


@dataclass(frozen=True, kw_only=True)
class ReproductionOfTrial:
    """The document of `search/reproduce.py`."""

    type: Literal["reproduction"] = "reproduction"
    name: str
    """The name of the study."""
    folder: str
    trial_number: int
    status: Status
    hyperparameters: dict[str, HyperparameterValue | None]
    seed: int
    agrees: bool
    """Whether all metrics equal the recorded ones to the last digit, and the training ended in the same way."""
    epochs: list[ReproducedEpoch]
    error: str | None
    """The error of the repeated training."""
    differences: list[str]
    """How the training differs from the record, in sentences."""
    changes: list[str]
    """Versions, parts of the machine and files of code that have changed since the trial was run."""
    reasons: list[str]
    """What else may be a reason for a difference."""


def reproduction_of_trial(record: StudyRecord, reproduction: Reproduction) -> ReproductionOfTrial:
    """The document about a training that was repeated."""
    trial = reproduction.trial
    return ReproductionOfTrial(
        name=record.folder.name,
        folder=str(record.folder.resolve()),
        trial_number=trial.number,
        status=trial.status,
        hyperparameters={**trial.hyperparameters},
        seed=trial.seed,
        agrees=reproduction.agrees(),
        epochs=[
            ReproducedEpoch(
                epoch=pair.retrained.epoch,
                recorded=metric_values(record, pair.recorded) if pair.recorded else None,
                retrained=metric_values(record, pair.retrained),
                deviations={**pair.deviations()},
            )
            for pair in reproduction.pairs
        ],
        error=reproduction.failure.error if reproduction.failure else None,
        differences=reproduction.differences(),
        changes=reproduction.changes(),
        reasons=reproduction.reasons(),
    )
