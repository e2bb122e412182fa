"""One trial as the record holds it: what was proposed, what was measured, how it ended."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from optuna.trial import TrialState

from search.space.distributions import HyperparameterValue
from training.console.terminal import printable

Metrics: TypeAlias = Any
"""What was measured in one epoch: an `EpochMetrics`, or an `OwnMetrics`, whose fields only its study knows."""
Status = Literal["running", "completed", "stopped_early", "diverged", "failed", "interrupted"]
FailureKind = Literal["diverged", "exception", "out_of_memory", "worker_died", "timeout"]

MEASURED: tuple[Status, ...] = ("completed", "stopped_early", "interrupted")
"""Trials whose metrics stand: what they measured can be the best of the study."""

FAILED: tuple[Status, ...] = ("diverged", "failed")
"""Trials that ended with a `Failure`."""

OPTUNA_STATE: dict[Status, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped_early": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
"""What a trial that has ended is to Optuna."""


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


MOST_SECONDS = 1e9
"""More than a study takes: thirty years."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and when a worker ran what it reports: an epoch, or a part of one that ended in a failure."""

    start: int
    """Which start of the study, from 0."""
    node: int
    """Which machine of the cluster, from 0 in the order of their first reports."""
    pid: int
    waiting_seconds: float
    """What the worker did besides the epoch since its last report, or since the trial came to it: build the network,
    save the checkpoint, wait for an answer to that report."""
    reported: float
    """When the report came, in seconds since that start, by the clock of the process that runs the study."""

    def __post_init__(self) -> None:
        """Refuse what no clock shows."""
        if self.start < 0 or not all(0 <= seconds <= MOST_SECONDS for seconds in (self.waiting_seconds, self.reported)):
            raise ValueError(f"a run cannot be {self}")


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
    epochs: list[Metrics] = field(default_factory=list)
    runs: dict[int, Run] = field(default_factory=dict)
    """By epoch, and that of a failure by the epoch in which it came; none of an epoch that was trained in one start of
    the study and reported in the next."""
    failure: Failure | None = None
    deaths: int = 0
    """How often its worker died without a word."""

    def add_epoch(self, metrics: Metrics, run: Run | None) -> None:
        """Take note of one more epoch."""
        self.epochs.append(metrics)
        if run:
            self.runs[metrics.epoch] = run

    def add_failure(self, failure: Failure, run: Run | None) -> None:
        """Take note of why it is about to end; the first reason stands."""
        if self.failure is None:
            self.failure = failure
            if run:
                self.runs[len(self.epochs) + 1] = run

    @property
    def has_ended(self) -> bool:
        """Whether it will not go on."""
        return self.status not in ("running", "interrupted")

    @property
    def stands(self) -> bool:
        """Whether it has reported and its metrics stand: its best can be the best of the study."""
        return self.status in MEASURED and bool(self.epochs)

    @property
    def seconds(self) -> float | None:
        """Wall clock of its epochs, and from the last of them to its failure; None if it died before the first."""
        if not self.epochs and not self.failure:
            return None
        seconds = sum(metrics.seconds for metrics in self.epochs) + (self.failure.seconds if self.failure else 0)
        return round(seconds, 3) or None


def with_run(measured: Metrics | Failure, run: Run | None) -> dict[str, Any]:
    """As plain data, which `read_trial` reads."""
    return asdict(measured) | ({"run": asdict(run)} if run else {})
