"""A trial as an object for other programs; it needs no analysis, whose imports take seconds."""

from dataclasses import dataclass
from typing import Any

from search.record.study_record import StudyRecord
from search.record.trial import Metrics, Status, TrialRecord
from search.space.distributions import HyperparameterValue
from search.task.custom_metrics import metric_value


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A trial: what `trials.csv` says of it."""

    trial_number: int
    trial_id: str
    """Ray's name of the trial."""
    status: Status
    hyperparameters: dict[str, HyperparameterValue | None]
    """The searched hyperparameters by name; one whose condition does not hold is missing."""
    seed: int | None
    """null where nobody knows it, in a study that was imported."""
    epochs: int
    """Number of finished epochs."""
    best_epoch: int | None
    """The epoch with the best value of the study's metric; null before the first one that has measured it."""
    metrics: dict[str, float | None]
    """All metrics in the best epoch by name; null where nothing was measured, or the value is not finite."""
    seconds: float | None
    """Time of all epochs, and until a failure; null where nothing was measured."""
    peak_memory_mb: int | None
    """The largest memory of its worker and of the processes that it started, in megabytes; null if not measured."""
    peak_gpu_memory_mb: int | None
    """The largest memory on GPUs in megabytes: what torch had reserved, and what processes that it started had; null if
    not measured."""
    micro_batch_size: int | None
    """On images, how many went through the network at a time if the memory did not suffice for a whole batch."""
    error: str | None
    """The error in one line, if the trial diverged or failed."""


def metric_values(record: StudyRecord, metrics: Metrics | None) -> dict[str, float | None]:
    """All metrics of an epoch by name; there are none without an epoch."""
    names = record.metadata.task.metric_names if metrics else []
    return {name: metric_value(metrics, name) for name in names}


def trial_values(record: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """The fields of a `TrialResult`."""
    best = trial.best_epoch
    return {
        "trial_number": trial.number,
        "trial_id": trial.trial_id,
        "status": trial.status,
        "hyperparameters": {**trial.hyperparameters},
        "seed": trial.known_seed,
        "epochs": len(trial.epochs),
        "best_epoch": best.epoch if best else None,
        "metrics": metric_values(record, best),
        "seconds": trial.seconds,
        "peak_memory_mb": trial.memory.peak_mb,
        "peak_gpu_memory_mb": trial.memory.peak_gpu_mb,
        "micro_batch_size": trial.memory.micro_batch_size,
        "error": trial.failure.error if trial.failure else None,
    }


def trial_result(record: StudyRecord, trial: TrialRecord) -> TrialResult:
    """A trial as an object."""
    return TrialResult(**trial_values(record, trial))
