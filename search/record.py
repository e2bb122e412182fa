"""The record of a study: an Optuna study in sqlite that holds everything proposed and measured."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import optuna
from optuna.storages import get_storage
from optuna.trial import FrozenTrial, Trial, TrialState

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
    """Wall clock of its epochs, and from the last of them to its failure."""
    failure: Failure | None = None


class StudyRecord:
    """All trials of a study, in memory for reading and in `study.db` for good; written by one process."""

    def __init__(self, folder: Path, study: optuna.Study, facts: dict[str, Any]) -> None:
        """Use `create` or `open` instead."""
        self.folder = folder
        self.study = study
        self.storage = study._storage
        self.facts = facts
        self.metric: MetricName = facts["settings"]["metric"]
        self.mode: Mode = "min" if study.direction == optuna.study.StudyDirection.MINIMIZE else "max"
        self.epochs: int = facts["settings"]["epochs"]
        self.trials: list[TrialRecord] = []
        self._running: dict[str, tuple[TrialRecord, Trial]] = {}

    @classmethod
    def create(cls, folder: Path, mode: Mode, facts: dict[str, Any]) -> Self:
        """Begin the record of a new study.

        Args:
            folder: Where `study.db` is made.
            mode: Whether the metric is maximised or minimised.
            facts: What is true of the study as a whole, as plain data; its `settings` hold `metric` and `epochs`.
        """
        study = optuna.create_study(
            storage=get_storage(_address(folder)),
            study_name=folder.name,
            direction="minimize" if mode == "min" else "maximize",
        )
        record = cls(folder, study, facts)
        record.set_facts(facts)
        return record

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the record in `folder`, wherever it was written; trials that were running are interrupted ones.

        Nothing is changed; who wants to go on with the study calls `take_up` first.

        Raises:
            ValueError: There is no record of a study in `folder`.
        """
        if not (folder / "study.db").is_file():
            raise ValueError(f"no study in {folder}: it has no study.db")
        storage = get_storage(_address(folder))
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage)
        record = cls(folder, study, study.user_attrs)
        for stored in study.get_trials(deepcopy=False):
            if "ray_trial_id" in stored.user_attrs:
                record.trials.append(_trial_record(stored))
        return record

    def take_up(self) -> None:
        """Let the trials that were running when the last process ended wait, so that they are asked for first."""
        for stored in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.storage.set_trial_state_values(stored._trial_id, TrialState.WAITING)

    def set_facts(self, facts: dict[str, Any]) -> None:
        """Change what is true of the study as a whole."""
        self.facts = self.facts | facts
        for name, value in facts.items():
            self.study.set_user_attr(name, value)

    def enqueue(self, hyperparameters: dict[str, HyperparameterValue]) -> None:
        """Have these values proposed before any of the sampler's own."""
        self.study.enqueue_trial(hyperparameters)

    def start(self, trial_id: str, proposal: Trial, seed: int) -> TrialRecord:
        """Record a trial that has just been proposed, or one that goes on after an interruption."""
        trial = next((trial for trial in self.trials if trial.number == proposal.number), None)
        if trial is None:
            trial = TrialRecord(proposal.number, trial_id, dict(proposal.params), seed)
            self.trials.append(trial)
        trial.trial_id, trial.status = trial_id, "running"
        proposal.set_user_attr("ray_trial_id", trial_id)
        proposal.set_user_attr("seed", trial.seed)
        self._running[trial_id] = trial, proposal
        return trial

    def add_epoch(self, trial_id: str, metrics: EpochMetrics) -> None:
        """Record the metrics of one more epoch."""
        trial, proposal = self._running[trial_id]
        trial.epochs.append(metrics)
        trial.seconds = round((trial.seconds or 0) + metrics.seconds, 3)
        proposal.set_user_attr(f"epoch {metrics.epoch}", asdict(metrics))
        proposal.set_user_attr("seconds", trial.seconds)
        proposal.report(self.value(metrics), step=metrics.epoch)

    def add_failure(self, trial_id: str, failure: Failure, seconds: float | None = None) -> None:
        """Record why a trial is about to end, `seconds` after its last epoch; the first reason stands."""
        trial, _ = self._running[trial_id]
        trial.failure = trial.failure or failure
        if seconds is not None:
            trial.seconds = round((trial.seconds or 0) + seconds, 3)

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
        if trial.status == "interrupted":  # it waits, with its values and its curve; the next ask goes on with it
            self.storage.set_trial_state_values(proposal._trial_id, TrialState.WAITING)
        else:
            value = self.value(best) if best and trial.status == "completed" else None
            self.study.tell(proposal, value, state=_OPTUNA_STATE[trial.status])
            self.checkpoint(trial).unlink(missing_ok=True)
        return trial

    def interrupt_running(self) -> list[TrialRecord]:
        """Record that all trials still running were interrupted; returns them."""
        return [self.finish(trial_id, interrupted=True) for trial_id in list(self._running)]

    def checkpoint(self, trial: TrialRecord) -> Path:
        """Where a worker keeps what it needs to go on with a trial, while the trial has not ended."""
        return self.folder / "checkpoints" / f"trial-{trial.number:04}.pt"

    def value(self, metrics: EpochMetrics) -> float:
        """The metric of the study in one epoch."""
        return float(getattr(metrics, self.metric))

    def best_epoch(self, trial: TrialRecord) -> EpochMetrics | None:
        """The trial's best epoch by the metric, the earliest of equals; None before the first report."""
        sign = -1 if self.mode == "max" else 1
        return min(trial.epochs, key=lambda metrics: sign * self.value(metrics), default=None)

    def ended(self) -> list[TrialRecord]:
        """Trials that will not go on."""
        return [trial for trial in self.trials if trial.status not in ("running", "interrupted")]

    def ranked(self) -> list[TrialRecord]:
        """Trials that are not running, best first; those whose metrics do not stand come last, in order of proposal."""
        sign = -1 if self.mode == "max" else 1

        def rank(trial: TrialRecord) -> tuple[bool, float, int]:
            best = self.best_epoch(trial) if trial.status in MEASURED else None
            return best is None, sign * self.value(best) if best else 0.0, trial.number

        return sorted((trial for trial in self.trials if trial.status != "running"), key=rank)

    def best(self) -> TrialRecord | None:
        """The best trial that is not running and whose metrics stand."""
        return next((trial for trial in self.ranked() if trial.status in MEASURED and trial.epochs), None)


def _address(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def _trial_record(stored: FrozenTrial) -> TrialRecord:
    """Read one trial back from the study; one that has not ended counts as interrupted."""
    facts = stored.user_attrs
    epochs = sorted(
        (EpochMetrics(**metrics) for name, metrics in facts.items() if name.startswith("epoch ")),
        key=lambda metrics: metrics.epoch,
    )
    ended = stored.state.is_finished()  # else the process ended first, perhaps while it was writing how the trial did
    status: Status = facts["status"] if ended else "interrupted"
    failure = Failure(facts["status"], facts["error"], facts["traceback"]) if ended and "error" in facts else None
    return TrialRecord(
        stored.number,
        facts["ray_trial_id"],
        dict(stored.params),
        facts["seed"],
        status,
        epochs,
        facts.get("seconds"),
        failure,
    )
