"""One trial as the record holds it: what was proposed, what was measured, how it ended."""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from optuna.trial import FrozenTrial

from search.plain_data import check_fields, check_type, from_plain
from search.space import HyperparameterValue
from training.config import TrialConfig
from training.loop import EpochMetrics
from training.terminal import printable

Status = Literal["running", "completed", "stopped_early", "diverged", "failed", "interrupted"]
FailureKind = Literal["diverged", "exception", "out_of_memory", "worker_died", "timeout"]

MEASURED: tuple[Status, ...] = ("completed", "stopped_early", "interrupted")
"""Trials whose metrics stand: what they measured can be the best of the study."""

FAILED: tuple[Status, ...] = ("diverged", "failed")
"""Trials that ended with a `Failure`."""


@dataclass(frozen=True)
class Failure:
    """Why a trial ended without finishing its training."""

    kind: FailureKind
    error: str
    """One line."""
    traceback: str = ""
    """The full text, as long as it is."""
    seconds: float = 0.0
    """From its last epoch to its failure."""

    def __post_init__(self) -> None:
        """Make one printable line of the error: it comes from the network's code and goes to terminals and tables."""
        object.__setattr__(self, "error", printable(" ".join(self.error.split())))

    @property
    def status(self) -> Literal["diverged", "failed"]:
        """The status of a trial that ended like this."""
        return "diverged" if self.kind == "diverged" else "failed"


@dataclass
class TrialRecord:
    """One trial: what was proposed, what was measured, how it ended."""

    number: int
    """Order of proposal, from 0; after a warm start from the number of earlier trials taken."""
    trial_id: str
    """Ray's name of the trial; the last one, if it was run in several parts."""
    hyperparameters: dict[str, HyperparameterValue]
    """The searched ones, by field of `TrialConfig`."""
    seed: int
    is_baseline: bool = False
    """It was given the tutorial's own settings."""
    status: Status = "running"
    epochs: list[EpochMetrics] = field(default_factory=list)
    failure: Failure | None = None
    deaths: int = 0
    """How often its worker died without a word."""

    @property
    def has_ended(self) -> bool:
        """Whether it will not go on."""
        return self.status not in ("running", "interrupted")

    @property
    def seconds(self) -> float | None:
        """Wall clock of its epochs, and from the last of them to its failure; None if it died before the first."""
        if not self.epochs and not self.failure:
            return None
        seconds = sum(metrics.seconds for metrics in self.epochs) + (self.failure.seconds if self.failure else 0)
        return round(seconds, 3) or None


def read_trial(stored: FrozenTrial) -> TrialRecord:
    """Read one trial back from Optuna's study; one that has not ended counts as interrupted.

    Raises:
        ValueError: It holds what no trial of ours can.
        KeyError: Something is missing.
    """
    facts = stored.user_attrs
    epochs = [_epoch_metrics(metrics) for name, metrics in facts.items() if name.startswith("epoch ")]
    ended = stored.state.is_finished()  # else the process ended first, perhaps while it was writing how the trial did
    return TrialRecord(
        stored.number,
        check_type("ray_trial_id", facts["ray_trial_id"], str),
        check_fields(TrialConfig, stored.params),
        check_type("seed", facts["seed"], int),
        check_type("baseline", facts.get("baseline", False), bool),
        check_type("status", facts["status"], Status) if ended else "interrupted",
        sorted(epochs, key=lambda metrics: metrics.epoch),
        from_plain(Failure, facts["failure"]) if ended and "failure" in facts else None,
        check_type("deaths", facts.get("deaths", 0), int),
    )


def _epoch_metrics(stored: object) -> EpochMetrics:
    metrics = from_plain(EpochMetrics, stored)
    for name, value in asdict(metrics).items():
        if value is not None and not 0 <= value <= (1 if name.endswith("accuracy") else math.inf):
            raise ValueError(f"{name} cannot be {value}")
    return metrics
