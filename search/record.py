"""The record of a study: an Optuna study in sqlite that holds everything proposed and measured."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage, get_storage
from optuna.trial import Trial, TrialState

from search.settings import MetricName, Mode
from search.space import HyperparameterValue
from training.loop import EpochMetrics

Status = Literal["running", "completed", "stopped_early", "diverged", "failed", "interrupted"]

MEASURED: tuple[Status, ...] = ("completed", "stopped_early", "interrupted")
"""Trials whose metrics stand: what they measured can be the best of the study."""

_OPTUNA_STATE: dict[Status, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped_early": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.FAIL,
}


@dataclass(frozen=True)
class Failure:
    """Why a trial ended without finishing its training."""

    status: Literal["diverged", "failed"]
    error: str
    """One line."""
    traceback: str = ""
    """The full text, as long as it is."""


@dataclass
class TrialRecord:
    """One trial: what was proposed, what was measured, how it ended."""

    number: int
    """Order of proposal, from 0."""
    trial_id: str
    """Ray's name of the trial."""
    hyperparameters: dict[str, HyperparameterValue]
    """The searched ones, by field of `TrialConfig`."""
    seed: int
    status: Status = "running"
    epochs: list[EpochMetrics] = field(default_factory=list)
    seconds: float | None = None
    """Wall clock in the worker, up to the last report."""
    failure: Failure | None = None


class StudyRecord:
    """All trials of a study, in memory for reading and in `study.db` for good; written by one process."""

    def __init__(self, folder: Path, metric: MetricName, mode: Mode, epochs: int) -> None:
        """Create `study.db` in `folder`, which exists; a full trial of the study takes `epochs` epochs."""
        self.folder = folder
        self.metric = metric
        self.mode = mode
        self.epochs = epochs
        self.trials: list[TrialRecord] = []
        self.storage: BaseStorage = get_storage(f"sqlite:///{folder / 'study.db'}")
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=folder.name,
            direction="minimize" if mode == "min" else "maximize",
        )
        self._running: dict[str, tuple[TrialRecord, Trial]] = {}

    def enqueue(self, hyperparameters: dict[str, HyperparameterValue]) -> None:
        """Have these values proposed before any of the sampler's own."""
        self.study.enqueue_trial(hyperparameters)

    def start(self, trial_id: str, proposal: Trial, seed: int) -> TrialRecord:
        """Record a trial that has just been proposed."""
        trial = TrialRecord(proposal.number, trial_id, dict(proposal.params), seed)
        proposal.set_user_attr("ray_trial_id", trial_id)
        proposal.set_user_attr("seed", seed)
        self.trials.append(trial)
        self._running[trial_id] = trial, proposal
        return trial

    def add_epoch(self, trial_id: str, metrics: EpochMetrics, seconds: float) -> None:
        """Record the metrics of one more epoch; `seconds` is the trial's wall clock so far."""
        trial, proposal = self._running[trial_id]
        trial.epochs.append(metrics)
        trial.seconds = seconds
        proposal.set_user_attr(f"epoch {metrics.epoch}", asdict(metrics))
        proposal.report(self.value(metrics), step=metrics.epoch)

    def add_failure(self, trial_id: str, failure: Failure, seconds: float | None = None) -> None:
        """Record why a trial is about to end; the first reason stands."""
        trial, _ = self._running[trial_id]
        trial.failure = trial.failure or failure
        trial.seconds = seconds or trial.seconds

    def finish(self, trial_id: str, *, interrupted: bool = False) -> TrialRecord:
        """Record that a trial ended, with the status that its reports add up to."""
        trial, proposal = self._running.pop(trial_id)
        if trial.failure:
            trial.status = trial.failure.status
            proposal.set_user_attr("error", trial.failure.error)
            proposal.set_user_attr("traceback", trial.failure.traceback)
        elif len(trial.epochs) >= self.epochs:
            trial.status = "completed"
        else:
            trial.status = "interrupted" if interrupted else "stopped_early"
        proposal.set_user_attr("status", trial.status)
        proposal.set_user_attr("seconds", trial.seconds)
        best = self.best_epoch(trial)
        self.study.tell(
            proposal,
            self.value(best) if best and trial.status == "completed" else None,
            state=_OPTUNA_STATE[trial.status],
        )
        return trial

    def interrupt_running(self) -> list[TrialRecord]:
        """Record that all trials still running were interrupted; returns them."""
        return [self.finish(trial_id, interrupted=True) for trial_id in list(self._running)]

    def value(self, metrics: EpochMetrics) -> float:
        """The metric of the study in one epoch."""
        return float(getattr(metrics, self.metric))

    def best_epoch(self, trial: TrialRecord) -> EpochMetrics | None:
        """The trial's best epoch by the metric, the earliest of equals; None before the first report."""
        sign = -1 if self.mode == "max" else 1
        return min(trial.epochs, key=lambda metrics: sign * self.value(metrics), default=None)

    def finished(self) -> list[TrialRecord]:
        """Ended trials, best first; those whose metrics do not stand come last, in order of proposal."""
        sign = -1 if self.mode == "max" else 1

        def rank(trial: TrialRecord) -> tuple[bool, float, int]:
            best = self.best_epoch(trial) if trial.status in MEASURED else None
            return best is None, sign * self.value(best) if best else 0.0, trial.number

        return sorted((trial for trial in self.trials if trial.status != "running"), key=rank)

    def best(self) -> TrialRecord | None:
        """The best ended trial whose metrics stand."""
        return next((trial for trial in self.finished() if trial.status in MEASURED and trial.epochs), None)
