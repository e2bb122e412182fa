"""A trial in the record: its hyperparameters, its metrics and how it ended."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from optuna.trial import TrialState

from search.space.distributions import HyperparameterValue
from search.task.custom_metrics import metric_value
from search.task.metric_names import Mode
from training.console.terminal import printable, shorten, shorten_middle

Metrics: TypeAlias = Any
"""The metrics of one epoch: an `EpochMetrics` or a `CustomMetrics`."""
Status = Literal["running", "completed", "stopped_early", "paused", "diverged", "failed", "interrupted"]
FailureKind = Literal["diverged", "exception", "out_of_memory", "worker_died", "timeout"]

CountedEpoch = Literal["best", "last"]
"""The epoch of which a trial has its value: the best one, or the last one, as in some studies that were imported."""

VALID: tuple[Status, ...] = ("completed", "stopped_early", "paused", "interrupted")
"""Statuses of trials whose metrics are valid: the best trial has one of them."""

FAILED: tuple[Status, ...] = ("diverged", "failed")
"""Statuses of trials that ended with a `Failure`."""

OPTUNA_STATE: dict[Status, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped_early": TrialState.PRUNED,
    "paused": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
"""The state in Optuna of a trial that has ended, or as which a paused trial counts for a sampler."""

ENDED_BY_RAY = "the memory was full, and Ray ended its worker"
"""The error of a trial whose worker, and perhaps another process besides, has filled the memory of the machine."""

LONGEST_ERROR, LONGEST_TEXT = 1000, 100_000
"""Characters of an error that are kept, in one line and with its traceback."""
MOST_SECONDS = 1e9
"""No study takes longer than this, which is thirty years."""

LARGEST_MEMORY = 10**9
"""No trial takes more megabytes than this, which are a petabyte."""


@dataclass(frozen=True)
class Objective:
    """The objective of a study: a metric that is maximised or minimised."""

    metric: str
    mode: Mode
    counted: CountedEpoch = "best"

    def prefers(self, later: Metrics, earlier: Metrics) -> bool:
        """Whether a later epoch of a trial counts instead of an earlier one."""
        return self.counted == "last" or self.minimized(later) < self.minimized(earlier)

    def chosen(self, epochs: Iterable[Metrics]) -> Metrics | None:
        """The epoch that counts of those of a trial; None if none of them has measured the metric."""
        chosen = None
        for metrics in self.measured(epochs):
            if chosen is None or self.prefers(metrics, chosen):
                chosen = metrics
        return chosen

    def value(self, metrics: Metrics) -> float:
        """The metric in one epoch, which must have measured it."""
        value = metric_value(metrics, self.metric)
        if value is None:
            raise ValueError(f"epoch {metrics.epoch} has no {self.metric}")
        return float(value)

    def measured(self, epochs: Iterable[Metrics]) -> list[Metrics]:
        """The epochs that have measured the metric; a training function may leave it out in some epochs."""
        return [metrics for metrics in epochs if metric_value(metrics, self.metric) is not None]

    def minimized(self, metrics: Metrics) -> float:
        """The metric in one epoch, negated if it is maximised."""
        return self.value(metrics) if self.mode == "min" else -self.value(metrics)


@dataclass(frozen=True)
class Failure:
    """Why a trial ended without finishing its training."""

    kind: FailureKind
    error: str
    """The error in one line."""
    traceback: str = ""
    """The full traceback."""
    seconds: float = 0.0
    """Time from the trial's last epoch to its failure; 0 where it is not known, because the worker died."""

    def __post_init__(self) -> None:
        """Make the error one printable line, and cut long texts: the user's code may have written them."""
        error = " ".join(shorten(self.error, LONGEST_TEXT).split())
        object.__setattr__(self, "error", shorten(printable(error), LONGEST_ERROR))
        object.__setattr__(self, "traceback", shorten_middle(self.traceback, LONGEST_TEXT))

    @property
    def status(self) -> Literal["diverged", "failed"]:
        """The status of a trial that ended like this."""
        return "diverged" if self.kind == "diverged" else "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Where and when a worker ran an epoch, or the part of an epoch before a failure."""

    session: int
    """Number of the session of the study, from 0."""
    node: int
    """Number of the machine in the cluster, from 0 in the order of the first reports."""
    pid: int
    waiting_seconds: float
    """Time besides the epoch since the worker's last report, or since it got the trial: to build the network, to save
    the checkpoint, to wait for the answer to its last report."""
    reported: float
    """Time of the report in seconds since the session began, by the clock of the process that runs the study."""

    def __post_init__(self) -> None:
        """Refuse times that no clock shows."""
        seconds = (self.waiting_seconds, self.reported)
        if self.session < 0 or not all(0 <= part <= MOST_SECONDS for part in seconds):
            raise ValueError(f"a timing cannot be {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryUse:
    """How much memory a trial took at most, in megabytes of a million bytes; None where nothing was measured."""

    peak_mb: int | None = None
    """Resident memory of its worker, libraries included, and of the processes that it started."""
    peak_gpu_mb: int | None = None
    """What torch had reserved on GPUs, and what processes that its worker started had."""
    micro_batch_size: int | None = None
    """How many images went through the network at a time, where the memory did not suffice for whole batches."""

    def __post_init__(self) -> None:
        """Refuse sizes that nothing has."""
        for name in ("peak_mb", "peak_gpu_mb", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= LARGEST_MEMORY:
                raise ValueError(f"{name} cannot be {value}")

    def with_later(self, later: "MemoryUse") -> "MemoryUse":
        """That of a trial with what was measured later, perhaps in another worker."""
        return MemoryUse(
            peak_mb=_larger(self.peak_mb, later.peak_mb),
            peak_gpu_mb=_larger(self.peak_gpu_mb, later.peak_gpu_mb),
            micro_batch_size=later.micro_batch_size or self.micro_batch_size,
        )


@dataclass(slots=True)
class TrialRecord:
    """A trial: its hyperparameters, its metrics and how it ended."""

    number: int
    """Order of proposal, from 0; after a warm start from the number of warm-start trials."""
    trial_id: str
    """Ray's name of the trial; the newest name, if the trial was resumed."""
    hyperparameters: dict[str, HyperparameterValue]
    """The searched hyperparameters, by field of `TrialConfig`."""
    known_seed: int | None
    """The seed; None where nobody knows it, in a study that was imported."""
    objective: Objective
    """The objective of the study."""
    is_baseline: bool = False
    """Whether the trial has the tutorial's own settings."""
    status: Status = "running"
    epochs: list[Metrics] = field(default_factory=list)
    best_epoch: Metrics | None = None
    """The best epoch by the objective, the earliest of equals; None before the first report of its metric."""
    timings: dict[int, Timing] = field(default_factory=dict)
    """The timing of each epoch; a failure has the timing of the epoch in which it happened. An epoch that was trained
    in one session and reported in the next has no timing."""
    failure: Failure | None = None
    ended_by_itself: bool = False
    """Whether the training returned before the last epoch of the study."""
    worker_failures: int = 0
    """How often a worker of the trial died without a report."""
    memory: MemoryUse = MemoryUse()
    redrawn: int = 0
    """How many configurations were drawn before this one that were predicted not to fit into the memory."""
    whole_seconds: float | None = None
    """Wall clock of the whole trial where that of its epochs is not known, as in a study that was imported."""

    def add_epoch(self, metrics: Metrics, timing: Timing | None) -> None:
        """Add the metrics of one more epoch."""
        self.epochs.append(metrics)
        for measured in self.objective.measured([metrics]):
            if self.best_epoch is None or self.objective.prefers(measured, self.best_epoch):
                self.best_epoch = measured
        if timing:
            self.timings[metrics.epoch] = timing

    def add_failure(self, failure: Failure, timing: Timing | None) -> None:
        """Add the failure that is about to end the trial; a second failure is ignored."""
        if self.failure is None:
            self.failure = failure
            if timing:
                self.timings[len(self.epochs) + 1] = timing

    @property
    def seed(self) -> int:
        """The seed of a trial that can be trained again, which therefore is known."""
        assert self.known_seed is not None, "only the seeds of trials that were imported are not known"
        return self.known_seed

    @property
    def has_ended(self) -> bool:
        """Whether the trial will not go on, unless it is paused and the scheduler promotes it."""
        return self.status not in ("running", "interrupted")

    @property
    def may_continue(self) -> bool:
        """Whether the trial may still report: it runs, or waits to go on."""
        return self.status in ("running", "interrupted", "paused")

    @property
    def is_valid(self) -> bool:
        """Whether the trial has reported the metric, and its metrics are valid, so that it can be the best of all."""
        return self.status in VALID and self.best_epoch is not None

    @property
    def curve(self) -> dict[int, float]:
        """The objective's metric by epoch; epochs that have not measured it are left out."""
        return {metrics.epoch: self.objective.value(metrics) for metrics in self.objective.measured(self.epochs)}

    def reached(self, epochs: float) -> bool:
        """Whether the trial ran this number of epochs, or ended by itself, so that it would not have got better."""
        return self.ended_by_itself or len(self.epochs) >= epochs

    @property
    def best_value(self) -> float:
        """The objective's metric in the best epoch; the trial must have reported it."""
        return self.objective.value(self.best_epoch)

    @property
    def epoch_seconds(self) -> float | None:
        """Mean wall clock of an epoch; None if it is not known."""
        seconds = [metrics.seconds for metrics in self.epochs if metrics.seconds]
        return sum(seconds) / len(seconds) if seconds else None

    @property
    def seconds(self) -> float | None:
        """Wall clock of all epochs and of the failure; None if the trial died before its first epoch."""
        if self.whole_seconds is not None:
            return self.whole_seconds
        if any(metrics.seconds is None for metrics in self.epochs):
            return None
        failure_seconds = self.failure.seconds if self.failure else 0.0
        if not self.epochs and not failure_seconds:
            return None
        seconds: float = sum(metrics.seconds for metrics in self.epochs) + failure_seconds
        return round(seconds, 6)


def _larger(one: int | None, other: int | None) -> int | None:
    return max((size for size in (one, other) if size is not None), default=None)


def timed_json(measured: Metrics | Failure, timing: Timing | None) -> dict[str, Any]:
    """The metrics of an epoch, or a failure, with their timing as values for JSON; `reading` reads them back."""
    return asdict(measured) | ({"timing": asdict(timing)} if timing else {})
