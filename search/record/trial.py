"""One trial as the record holds it: what was proposed, what was measured, how it ended."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from optuna.trial import TrialState

from search.settings import Mode
from search.space.distributions import HyperparameterValue
from training.console.terminal import printable

Metrics: TypeAlias = Any
"""What was measured in one epoch: an `EpochMetrics`, or a `CustomMetrics`, whose fields only its study knows."""
Status = Literal["running", "completed", "stopped_early", "diverged", "failed", "interrupted"]
FailureKind = Literal["diverged", "exception", "out_of_memory", "worker_died", "timeout"]

VALID: tuple[Status, ...] = ("completed", "stopped_early", "interrupted")
"""Trials whose metrics are valid: what they measured can be the best of the study."""

FAILED: tuple[Status, ...] = ("diverged", "failed")
"""Trials that ended with a `Failure`."""

OPTUNA_STATE: dict[Status, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped_early": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
"""What a trial that has ended is to Optuna."""

MOST_SECONDS = 1e9
"""More than a study takes: thirty years."""


@dataclass(frozen=True)
class Objective:
    """What a study searches for: a metric, and whether it is to be high or low."""

    metric: str
    mode: Mode

    def value(self, metrics: Metrics) -> float:
        """The metric in one epoch."""
        return float(getattr(metrics, self.metric))

    def to_minimize(self, metrics: Metrics) -> float:
        """The metric in one epoch, negated if it is to be maximised."""
        return self.value(metrics) if self.mode == "min" else -self.value(metrics)


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


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Where and when a worker ran what it reports: an epoch, or a part of one that ended in a failure."""

    session: int
    """Which session of the study, from 0."""
    node: int
    """Which machine of the cluster, from 0 in the order of their first reports."""
    pid: int
    waiting_seconds: float
    """What the worker did besides the epoch since its last report, or since the trial came to it: build the network,
    save the checkpoint, wait for an answer to that report."""
    reported: float
    """When the report came, in seconds since the session began, by the clock of the process that runs the study."""

    def __post_init__(self) -> None:
        """Refuse what no clock shows."""
        seconds = (self.waiting_seconds, self.reported)
        if self.session < 0 or not all(0 <= part <= MOST_SECONDS for part in seconds):
            raise ValueError(f"a timing cannot be {self}")


@dataclass
class TrialRecord:
    """One trial: what was proposed, what was measured, how it ended."""

    number: int
    """Order of proposal, from 0; after a warm start from the number of earlier trials taken."""
    trial_id: str
    """Ray's name of the trial; the last one, if it was run in several parts."""
    hyperparameters: dict[str, HyperparameterValue]
    """Those that are searched, by field of `TrialConfig`."""
    seed: int
    objective: Objective
    """That of its study."""
    is_baseline: bool = False
    """It was given the tutorial's own settings."""
    status: Status = "running"
    epochs: list[Metrics] = field(default_factory=list)
    best_epoch: Metrics | None = None
    """The best epoch by the objective, the earliest of equals; None before the first report."""
    timings: dict[int, Timing] = field(default_factory=dict)
    """By epoch, and that of a failure by the epoch in which it came; none of an epoch that was trained in one session
    and reported in the next."""
    failure: Failure | None = None
    worker_failures: int = 0
    """How often its worker died without a report of why."""

    def add_epoch(self, metrics: Metrics, timing: Timing | None) -> None:
        """Add the metrics of one more epoch."""
        self.epochs.append(metrics)
        if self.best_epoch is None or self.objective.to_minimize(metrics) < self.objective.to_minimize(self.best_epoch):
            self.best_epoch = metrics
        if timing:
            self.timings[metrics.epoch] = timing

    def add_failure(self, failure: Failure, timing: Timing | None) -> None:
        """Add the reason for which the trial is about to end; a second reason is ignored."""
        if self.failure is None:
            self.failure = failure
            if timing:
                self.timings[len(self.epochs) + 1] = timing

    @property
    def has_ended(self) -> bool:
        """Whether it will not go on."""
        return self.status not in ("running", "interrupted")

    @property
    def is_valid(self) -> bool:
        """Whether it has reported and its metrics are valid: its best epoch can be the best of the study."""
        return self.status in VALID and bool(self.epochs)

    @property
    def best_value(self) -> float:
        """The objective's metric in the best epoch; only of a trial that has reported."""
        return self.objective.value(self.best_epoch)

    @property
    def seconds(self) -> float | None:
        """Wall clock of its epochs, and from the last of them to its failure; None if it died before the first."""
        if not self.epochs and not self.failure:
            return None
        seconds = sum(metrics.seconds for metrics in self.epochs) + (self.failure.seconds if self.failure else 0)
        return round(seconds, 3) or None


def with_timing(measured: Metrics | Failure, timing: Timing | None) -> dict[str, Any]:
    """An epoch or a failure with its timing, as JSON can hold it; `reading` reads it back."""
    return asdict(measured) | ({"timing": asdict(timing)} if timing else {})
