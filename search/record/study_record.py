"""The record of a study: an Optuna study in a database that holds everything proposed and measured."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import optuna
from optuna.storages import get_storage
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from search.record import database
from search.record.confirmation import Plan
from search.record.metadata import check_facts
from search.record.reading import damage_told, read_trials
from search.record.task import Subject, subject_of
from search.record.trial import MEASURED, OPTUNA_STATE, Failure, Metrics, Run, TrialRecord, with_run
from search.settings import Mode
from search.space.distributions import HyperparameterValue
from search.space.search_space import SearchSpace, contains, parse, starting_points
from training.checkpoint import Checkpoint
from training.config import TrialConfig

Result = TypeVar("Result")


class StudyRecord:
    """All trials of a study, in memory for reading and in a database for good; written by one process."""

    def __init__(self, folder: Path, study: optuna.Study, facts: dict[str, Any]) -> None:
        """Use `create` or `open` instead."""
        self.folder = folder
        self.study = study
        self.storage = study._storage
        self.facts = facts
        self.metric: str = facts["settings"]["metric"]
        self.mode: Mode = "min" if study.direction == StudyDirection.MINIMIZE else "max"
        self.epochs: int = facts["settings"]["epochs"]
        self.trials: list[TrialRecord] = []
        self._best_epochs: dict[int, Metrics] = {}
        """By number of the trial; known, because all trials are ranked each time one ends."""
        self._running: dict[str, tuple[TrialRecord, Trial]] = {}

    @classmethod
    def create(
        cls,
        folder: Path,
        mode: Mode,
        facts: dict[str, Any],
        *,
        name: str | None = None,
        server: database.EnduringStorage | None = None,
        fill: Callable[["StudyRecord"], None] = lambda _: None,
    ) -> "StudyRecord":
        """Begin the record of a new study, in one transaction.

        Args:
            folder: Where the study's files go; `study.db` too, unless there is a server.
            mode: Whether the metric is maximised or minimised.
            facts: What is true of the study as a whole, as plain data; its `settings` hold `metric` and `epochs`.
            name: Name of the study; by default the folder's.
            server: A database on a server that knows no study of this name.
            fill: Puts into the record what a new study begins with.
        """
        if server is None:
            (folder / database.FILE_NAME).touch()
        kept = server or database.open_file(folder / database.FILE_NAME, new=True)
        name = name or folder.name

        def begin() -> "StudyRecord":
            direction = StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
            study = optuna.create_study(storage=get_storage(kept), study_name=name, direction=direction)
            for fact, value in facts.items():
                study.set_user_attr(fact, value)
            record = cls(folder, study, facts)
            fill(record)
            return record

        return kept.change(begin)

    @classmethod
    def open(cls, folder: Path, server: database.EnduringStorage | None = None) -> Self:
        """Read the record of a study, wherever it was written; trials that were running are interrupted ones.

        Nothing is changed; who wants to go on with the study calls `take_up` first.

        Args:
            folder: The study's folder.
            server: The database on a server that holds the record; by default `study.db` in the folder does.

        Raises:
            ValueError: There is no record of a study, or two of them, or it is damaged.
        """
        file = folder / database.FILE_NAME
        if server is None and not file.is_file():
            raise ValueError(f"no study in {folder}: it has no {database.FILE_NAME}")
        if server is not None and file.is_file():
            raise ValueError(f"study {folder.name} has its record in {file}: leave out --storage")
        with damage_told(folder):
            if server is None:
                database.check_file(file)
            kept = get_storage(server or database.open_file(file, new=False))
            (name,) = [folder.name] if server else optuna.get_all_study_names(kept)
            study = optuna.load_study(study_name=name, storage=kept)
            record = cls(folder, study, study.user_attrs)
            check_facts(record.facts, record.mode)
            for trial in read_trials(record):
                record.trials.append(trial)
                for metrics in trial.epochs:
                    record._see(trial, metrics)
        return record

    def take_up(self) -> None:
        """Let the trials that were running when the last process ended wait, so that they are asked for first."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

        def let_wait() -> None:
            for stored in running:
                self.storage.set_trial_state_values(stored._trial_id, TrialState.WAITING)

        self.change(let_wait)

    def take_evidence(self, earlier: "StudyRecord", space: SearchSpace) -> int:
        """Let the sampler know the trials of another study; they are no trials of this one.

        Returns:
            How many it took: those that ended in a way that says something about their hyperparameters, which this
            space holds.
        """
        taken = [
            trial
            for trial in earlier.trials
            if trial.status in ("completed", "stopped_early", "diverged") and contains(space, trial.hyperparameters)
        ]
        for trial in taken:
            best = earlier.best_epoch(trial) if trial.status == "completed" else None
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=OPTUNA_STATE[trial.status],
                    value=earlier.value(best) if best else None,
                    params=dict(trial.hyperparameters),
                    distributions=space.distributions(trial.hyperparameters),
                    intermediate_values={metrics.epoch: earlier.value(metrics) for metrics in trial.epochs},
                    user_attrs={"evidence": f"trial {trial.number} of {earlier.folder.name}"},
                )
            )
        return len(taken)

    @property
    def _backend(self) -> database.EnduringStorage:
        return self.storage._backend  # type: ignore[attr-defined,no-any-return]

    def be_patient(self, patience: database.NoPatience) -> None:
        """Have this asked what to do when the record cannot be written; before, that is an error."""
        self._backend.patience = patience

    @property
    def address(self) -> str | None:
        """The database server that holds the record, without a password; None if `study.db` does."""
        return self._backend.address

    def change(self, make: Callable[[], Result]) -> Result:
        """Change the record in one transaction, as `EnduringStorage.change` does."""
        return self._backend.change(make)

    def close(self) -> None:
        """Let go of the database, and of the lock that a server holds."""
        self._backend.engine.dispose()

    def set_facts(self, facts: dict[str, Any]) -> None:
        """Change what is true of the study as a whole."""
        self.facts = self.facts | facts

        def write() -> None:
            for name, value in facts.items():
                self.study.set_user_attr(name, value)

        self.change(write)

    def enqueue_starting_points(self, space: SearchSpace, most: int) -> None:
        """Have the starting points of a space proposed before any of the sampler's, the baseline first."""
        kind = self.subject.config_type()
        if kind is None:
            return  # there are no defaults to begin with
        defaults = asdict(kind())
        for point in starting_points(space, defaults)[:most]:
            self.study.enqueue_trial(point, user_attrs={"baseline": point == space.point(defaults)})

    def enqueue(self, hyperparameters: dict[str, HyperparameterValue], seed: int) -> None:
        """Have a configuration trained from a seed; it may have been trained from others."""
        self.study.enqueue_trial(hyperparameters, user_attrs={"seed": seed})

    def start(self, trial_id: str, proposal: Trial, seed: int) -> TrialRecord:
        """Record a trial that has just been proposed, or one that goes on after an interruption; part of a `change`.

        The seed is that of a trial that was not enqueued with one.
        """
        trial = next((trial for trial in self.trials if trial.number == proposal.number), None)
        if trial is None:
            seed = proposal.user_attrs.get("seed", seed)
            trial = TrialRecord(proposal.number, trial_id, {}, seed, proposal.user_attrs.get("baseline", False))
            self.trials.append(trial)
        trial.trial_id, trial.status, trial.hyperparameters = trial_id, "running", dict(proposal.params)
        self._set(proposal, "seed", trial.seed)
        self._set(proposal, "ray_trial_id", trial_id)
        self._running[trial_id] = trial, proposal
        return trial

    def add_epoch(self, trial_id: str, metrics: Metrics, run: Run | None = None) -> None:
        """Record the metrics of one more epoch, and where and when it was run."""
        trial, proposal = self._running[trial_id]
        trial.add_epoch(metrics, run)
        self._see(trial, metrics)

        def write() -> None:
            self._set(proposal, f"epoch {metrics.epoch}", with_run(metrics, run))
            self.storage.set_trial_intermediate_value(proposal._trial_id, metrics.epoch, self.value(metrics))

        self.change(write)

    def add_failure(self, trial_id: str, failure: Failure, run: Run | None = None) -> None:
        """Record why a trial is about to end, and where and when that was; the first reason stands."""
        self.running(trial_id).add_failure(failure, run)

    def add_death(self, trial_id: str) -> int:
        """Record that a trial's worker died without a word; returns how often this has happened to it."""
        trial, proposal = self._running[trial_id]
        trial.deaths += 1
        self.change(lambda: self._set(proposal, "deaths", trial.deaths))
        return trial.deaths

    def finish(self, trial_id: str, *, interrupted: bool = False) -> TrialRecord:
        """Record that a trial ended, with the status that its reports add up to; `interrupted`: it is to go on."""
        trial, proposal = self._running.pop(trial_id)
        if trial.failure:
            trial.status = trial.failure.status
        elif len(trial.epochs) >= self.epochs:
            trial.status = "completed"
        else:
            trial.status = "interrupted" if interrupted else "stopped_early"
        self.change(lambda: self._write_end(trial, proposal))
        if trial.status != "interrupted":
            self._clear_checkpoints()
        return trial

    def running(self, trial_id: str) -> TrialRecord:
        """The running trial that Ray calls by this name."""
        return self._running[trial_id][0]

    def running_ids(self) -> list[str]:
        """Ray's names of the trials that run now."""
        return list(self._running)

    def interrupt_running(self) -> None:
        """Record that all trials still running were interrupted."""
        for trial_id in self.running_ids():
            self.finish(trial_id, interrupted=True)

    def checkpoint(self, trial: TrialRecord) -> Path:
        """Where a worker keeps what it needs to go on with a trial, while the trial has not ended."""
        return self.folder / "checkpoints" / f"trial-{trial.number:04}.pt"

    @cached_property
    def space(self) -> SearchSpace:
        """What is searched."""
        return parse(self.facts["space"])

    @property
    def plan(self) -> Plan | None:
        """What is trained again, if the trials are those by which another study is confirmed."""
        return Plan(**self.facts["plan"]) if "plan" in self.facts else None

    @property
    def trainings_planned(self) -> int | None:
        """Trainings of a confirmation that have been enqueued so far; None if the trials are those of a search."""
        plan = self.plan
        if plan is None:
            return None
        return plan.all_trainings if "winner" in self.facts else plan.choosing

    @property
    def subject(self) -> Subject:
        """What the trials train and measure."""
        return subject_of(self.facts)

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric of the study is an accuracy."""
        return self.subject.is_accuracy(self.metric)

    def metrics_of(self, result: dict[str, Any]) -> Metrics:
        """The metrics in a worker's report; the first one of a training function says which there are."""
        if "metric_names" in result and "metrics" not in self.facts:
            self.set_facts({"metrics": result["metric_names"]})
        epoch_type = self.subject.epoch_type
        return epoch_type(**{field.name: result.get(field.name) for field in fields(epoch_type)})

    def config(self, trial: TrialRecord) -> TrialConfig:
        """All that a trial on images was trained with; imports the network's file, if it has one.

        Raises:
            ValueError: The network cannot be imported, or does not take these hyperparameters any more.
        """
        kind = self.subject.config_type()
        assert kind is not None, "a network has one"
        given = self.subject.fixed | self.space.with_fixed(trial.hyperparameters)
        config: TrialConfig = kind(**given, seed=trial.seed)
        return config

    def value(self, metrics: Metrics) -> float:
        """The metric of the study in one epoch."""
        return float(getattr(metrics, self.metric))

    def to_minimize(self, metrics: Metrics) -> float:
        """The metric of the study in one epoch, negated if it is to be maximised."""
        return self.value(metrics) if self.mode == "min" else -self.value(metrics)

    def best_epoch(self, trial: TrialRecord) -> Metrics | None:
        """The trial's best epoch by the metric, the earliest of equals; None before the first report."""
        return self._best_epochs.get(trial.number)

    def best_value(self, trial: TrialRecord) -> float:
        """The metric of the study in the best epoch of a trial that has reported."""
        return self.value(self._best_epochs[trial.number])

    def measured(self) -> list[TrialRecord]:
        """Trials that have reported and whose metrics stand, in order of proposal."""
        return [trial for trial in self.trials if trial.status in MEASURED and trial.epochs]

    def baseline(self) -> TrialRecord | None:
        """The trial that was given the tutorial's settings."""
        return next((trial for trial in self.trials if trial.is_baseline), None)

    @property
    def baseline_name(self) -> str:
        """What the settings of the baseline are called: those of the tutorial, if nothing was changed."""
        same = self.subject.network == TrialConfig.network and len(self.space) == len(self.space.cases)
        return "tutorial's settings" if same else "default settings"

    def epochs_run(self) -> int:
        """Epochs of all trials."""
        return sum(len(trial.epochs) for trial in self.trials)

    def epochs_saved(self) -> int:
        """Epochs that trials did not run because they were stopped early."""
        return sum(self.epochs - len(trial.epochs) for trial in self.trials if trial.status == "stopped_early")

    def ended(self) -> list[TrialRecord]:
        """Trials that will not go on."""
        return [trial for trial in self.trials if trial.has_ended]

    def ranked(self) -> list[TrialRecord]:
        """Trials that are not running, best first; those whose metrics do not stand come last, in order of proposal."""

        def rank(trial: TrialRecord) -> tuple[bool, float, int]:
            best = self.best_epoch(trial) if trial.status in MEASURED else None
            return best is None, self.to_minimize(best) if best else 0.0, trial.number

        return sorted((trial for trial in self.trials if trial.status != "running"), key=rank)

    def best(self) -> TrialRecord | None:
        """The best trial that is not running and whose metrics stand."""
        return next((trial for trial in self.ranked() if trial.status in MEASURED and trial.epochs), None)

    def best_configurations(self, most: int) -> list[TrialRecord]:
        """The best trials, none with the hyperparameters of another; one that was stopped early may be among them."""
        chosen: list[TrialRecord] = []
        for trial in self.ranked():
            stands = trial.status in MEASURED and trial.epochs
            if stands and all(trial.hyperparameters != other.hyperparameters for other in chosen):
                chosen.append(trial)
        return chosen[:most]

    def _see(self, trial: TrialRecord, metrics: Metrics) -> None:
        """Note an epoch if it is the trial's best so far."""
        best = self.best_epoch(trial)
        if best is None or self.to_minimize(metrics) < self.to_minimize(best):
            self._best_epochs[trial.number] = metrics

    def _write_end(self, trial: TrialRecord, proposal: Trial) -> None:
        self._set(proposal, "status", trial.status)
        if trial.failure:
            self._set(proposal, "failure", with_run(trial.failure, trial.runs.get(len(trial.epochs) + 1)))
        if trial.status == "interrupted":  # it waits, with its values and its curve; the next ask goes on with it
            self.storage.set_trial_state_values(proposal._trial_id, TrialState.WAITING)
            return
        value, best = None, self.best_epoch(trial)
        if best and trial.status == "completed":
            value = self.value(best)
            self._set(proposal, "last_value", self.value(trial.epochs[-1]))
        elif best and trial.status == "stopped_early":
            value = self.value(trial.epochs[-1])
        # not by Study.tell, which reads the trial twice to find out what is known here
        state = OPTUNA_STATE[trial.status]
        self.storage.set_trial_state_values(proposal._trial_id, state, None if value is None else [value])

    def _set(self, proposal: Trial, name: str, value: Any) -> None:
        self.storage.set_trial_user_attr(proposal._trial_id, name, value)

    def _clear_checkpoints(self) -> None:
        """Keep of the trials that have ended only the best epoch of the best one."""
        best = next((trial for trial in self.ranked() if trial.status in MEASURED and trial.has_ended), None)
        kept = {file.name for file in Checkpoint(self.checkpoint(best)).best_files()} if best else set()
        going_on = {self.checkpoint(trial).stem for trial in self.trials if not trial.has_ended}
        for file in (self.folder / "checkpoints").glob("trial-*"):
            if file.name not in kept and re.split(r"-epoch|\.", file.name)[0] not in going_on:
                with suppress(OSError):  # it only takes room
                    file.unlink()
