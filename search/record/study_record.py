"""The record of a study: an Optuna study in a database, with the configuration and metrics of every trial."""

import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from search.record.checkpoint_store import CheckpointStore
from search.record.database import NoRetry, StudyStorage, check_file, open_file
from search.record.file_names import STUDY_DB
from search.record.imported_trial import stored_trial
from search.record.metadata import StudyMetadata, read_metadata
from search.record.ranking import best_configurations, ended_trials
from search.record.reading import is_paused, read_trials, refuse_damage
from search.record.standings import Standings
from search.record.study_checkpoints import StudyCheckpoints
from search.record.trial import OPTUNA_STATE, Failure, MemoryUse, Metrics, Timing, TrialRecord, timed_json
from search.record.trial_storage import TrialStorage
from search.space.distributions import HyperparameterValue
from search.space.search_space import Point, SearchSpace, contains, starting_points
from search.task.metric_names import Mode

Result = TypeVar("Result")


def check_place(folder: Path, server: StudyStorage | None) -> None:
    """Raise a ValueError if the record of a study is not in its folder, or is there in spite of a server."""
    file = folder / STUDY_DB
    if server is None and not file.is_file():
        raise ValueError(f"no study in {folder}: it has no {STUDY_DB}")
    if server is not None and file.is_file():
        raise ValueError(f"study {folder.name} has its record in {file}: leave out --storage")


class StudyRecord:
    """Writes all trials of a study into a database, and keeps them in memory; one process writes a study.

    Questions about the trials are functions in `search.record.ranking`.
    """

    def __init__(
        self, folder: Path, study: optuna.Study, storage: TrialStorage, database: StudyStorage, metadata: StudyMetadata
    ) -> None:
        """Use `create` or `open` instead."""
        self.folder = folder
        self.study = study
        self.storage = storage
        """What Optuna uses: the trials in memory, before the database."""
        self._database = database
        self.metadata = metadata
        self.objective = metadata.objective
        self.trials: list[TrialRecord] = []
        self.standings = Standings(self.trials)
        self._running: dict[str, tuple[TrialRecord, Trial]] = {}
        self.checkpoints = StudyCheckpoints(folder)
        self._together = False
        """Whether epochs wait for others, to be recorded in one transaction."""

    @classmethod
    def create(
        cls,
        folder: Path,
        metadata: StudyMetadata,
        *,
        name: str | None = None,
        server: StudyStorage | None = None,
        fill: Callable[["StudyRecord"], None] = lambda _: None,
    ) -> "StudyRecord":
        """Begin the record of a new study, in one transaction.

        Args:
            folder: Where the study's files go; `study.db` too, unless there is a server.
            metadata: Metadata of the study.
            name: Name of the study; by default the name of the folder.
            server: A database on a server without a study of this name.
            fill: Puts the first trials of a new study into the record.
        """
        if server is None:
            (folder / STUDY_DB).touch()
        database = server or open_file(folder / STUDY_DB, new=True)
        storage = TrialStorage(database) if isinstance(database, StudyStorage) else database
        name = name or folder.name

        def begin() -> "StudyRecord":
            direction = StudyDirection.MINIMIZE if metadata.objective.mode == "min" else StudyDirection.MAXIMIZE
            study = optuna.create_study(storage=storage, study_name=name, direction=direction)
            with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
                study.set_metric_names([metadata.objective.metric])  # which optuna-dashboard shows
            for key, value in metadata.to_json().items():
                study.set_user_attr(key, value)
            record = cls(folder, study, storage, database, metadata)
            fill(record)
            return record

        return storage.change(begin)

    @classmethod
    def open(cls, folder: Path, server: StudyStorage | None = None) -> Self:
        """Read the record of a study and change nothing; trials that were running are interrupted.

        A process that goes on with the study calls `requeue_interrupted` first.

        Args:
            folder: The study's folder.
            server: The database on a server that holds the record; by default `study.db` in the folder does.

        Raises:
            ValueError: There is no record of a study, or two of them, or it is damaged.
        """
        check_place(folder, server)
        file = folder / STUDY_DB
        with refuse_damage(folder):
            if server is None:
                check_file(file)
            database = server or open_file(file, new=False)
            storage = TrialStorage(database)

            def look() -> tuple[optuna.Study, dict[str, Any], StudyDirection]:
                (name,) = [folder.name] if server else optuna.get_all_study_names(storage)
                study = optuna.load_study(study_name=name, storage=storage)
                study.get_trials(deepcopy=False)  # which the storage keeps
                return study, study.user_attrs, study.direction

            study, attributes, direction = database.read(look)
            metadata = read_metadata(attributes, folder)
            if (direction == StudyDirection.MINIMIZE) != (metadata.objective.mode == "min"):
                raise ValueError(f"metric {metadata.objective.metric} cannot have mode {direction.name.lower()}")
            record = cls(folder, study, storage, database, metadata)
            record.trials += read_trials(study, metadata)
            storage.forget_epochs()
        return record

    def retry_writes_with(self, retry: NoRetry) -> None:
        """Set the policy for failed writes; without this call, a failed write is an error."""
        self._database.retry = retry

    def use_store(self) -> None:
        """Use the store of the study, if it has one, because this process runs the study or brings its results back."""
        if self.metadata.store is not None:
            self.checkpoints.use_store(CheckpointStore(*self.metadata.store), self._ended_numbers())

    def fetch_from_store(self) -> None:
        """Bring back what stays of a study whose trials have ended: the best epoch, and the folders of the trials."""
        self.checkpoints.finish(self._ended_numbers(), self._kept_numbers())

    @property
    def address(self) -> str | None:
        """The database server that holds the record, without a password; None if `study.db` does."""
        return self._database.address

    def change(self, make: Callable[[], Result]) -> Result:
        """Change the record in one transaction, as `StudyStorage.change` does."""
        return self.storage.change(make)

    @contextmanager
    def epochs_together(self) -> Iterator[None]:
        """Record all epochs that are added in this context in one transaction: with the next change, or at the end."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self.storage.make_later_changes()

    def when_recorded(self, call: Callable[[], object]) -> None:
        """Call a function as soon as the epochs that were added are recorded: nobody sees what may be lost."""
        if self._together:
            self.storage.call_later(call)
        else:
            call()

    def close(self) -> None:
        """Close the database, and release the lock that a server holds."""
        self.checkpoints.close()
        self._database.close()

    @property
    def metric(self) -> str:
        """The metric of the objective."""
        return self.objective.metric

    @property
    def mode(self) -> Mode:
        """Whether the metric is maximised or minimised."""
        return self.objective.mode

    @property
    def epoch_limit(self) -> int | None:
        """Largest number of epochs of a trial; None if the training alone knows when it ends."""
        return self.metadata.settings.epochs

    @property
    def num_samples(self) -> int:
        """Number of trials after which the study is complete; a user may change it while the study runs."""
        return self.metadata.settings.num_samples

    @property
    def epochs(self) -> int:
        """Number of epochs of a trial that is not stopped early; without a limit that of the longest one so far."""
        if self.epoch_limit is not None:
            return self.epoch_limit
        standings = self.standings
        return standings.longest_by_itself if standings.any_ended_by_itself else standings.longest + 1

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.metadata.space

    def update(self, **changes: Any) -> None:
        """Change fields of the metadata."""
        self.metadata = replace(self.metadata, **changes)
        values = self.metadata.to_json()

        def write() -> None:
            for name in changes:
                self.study.set_user_attr(name, values[name])

        self.change(write)

    def requeue_interrupted(self) -> None:
        """Queue the trials that were running when the last process ended, so that they are proposed first."""
        unfinished = self.numbers_of_running()

        def requeue() -> None:
            for number in unfinished:
                self._let_wait(number)

        self.change(requeue)

    def add_warm_start(self, earlier: "StudyRecord") -> int:
        """Add trials of another study as warm-start trials, from which only the sampler learns.

        Returns:
            The number of added trials: completed, stopped, paused and diverged trials with points of this space.
        """
        usable = [
            trial
            for trial in earlier.trials
            if trial.status in ("completed", "stopped_early", "paused", "diverged")
            and contains(self.space, trial.hyperparameters)
        ]
        for trial in usable:
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=OPTUNA_STATE[trial.status],
                    value=trial.best_value if trial.status == "completed" else None,
                    params=dict(trial.hyperparameters),
                    distributions=self.space.optuna_distributions(trial.hyperparameters),
                    intermediate_values=trial.curve,
                    user_attrs={"warm_start": f"trial {trial.number} of {earlier.folder.name}"},
                )
            )
        return len(usable)

    def add_imported(self, trials: Sequence[TrialRecord]) -> None:
        """Add the trials of another program to a record without trials; those that had not ended are interrupted."""
        study_id = self._database.get_study_id_from_name(self.study.study_name)
        self._database.add_trials(study_id, [stored_trial(trial, self.space) for trial in trials])
        self.trials += trials

    def enqueue_starting_points(self, most: int) -> list[Point]:
        """Queue the starting points of the space before all points of the sampler, the baseline first; return them."""
        task = self.metadata.task
        defaults = task.defaults()
        baseline = self.space.point(defaults)
        if task.config_type() is None and not contains(self.space, baseline):
            return []  # a parameter, unlike a field, may have no default, or one that only says that there is none
        points = starting_points(self.space, defaults)[:most]
        for point in points:
            self.study.enqueue_trial(point, user_attrs={"baseline": point == baseline})
        return points

    def enqueue(self, hyperparameters: Mapping[str, HyperparameterValue], seed: int | None = None) -> None:
        """Queue the training of a configuration; without a seed, it has the one of its number.

        The sampler chooses the hyperparameters that are missing.
        """
        self.study.enqueue_trial(dict(hyperparameters), user_attrs={} if seed is None else {"seed": seed})

    def queued(self) -> list[int]:
        """The numbers of the trials that were queued and have not begun."""
        begun = {trial.number for trial in self.trials}
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [trial.number for trial in waiting if trial.number not in begun]

    def next_number(self) -> int:
        """The number of the trial that is queued or proposed next."""
        return len(self.study.get_trials(deepcopy=False))

    def numbers_of_running(self) -> list[int]:
        """The numbers of the trials that run in the process that writes this record now."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [stored.number for stored in running if not is_paused(stored)]

    def start(self, trial_id: str, proposal: Trial, seed: int, *, redrawn: int = 0) -> TrialRecord:
        """Record that a new trial or an interrupted one begins; the caller does this in a `change`.

        Args:
            trial_id: Ray's name of the trial.
            proposal: The trial in Optuna's study.
            seed: The seed of the trial unless it was enqueued with one.
            redrawn: How many configurations were drawn before this one that were predicted not to fit into the memory.
        """
        trial = self.standings.open_trial(proposal.number)
        if trial is None:
            seed = proposal.user_attrs.get("seed", seed)
            is_baseline = proposal.user_attrs.get("baseline", False)
            trial = TrialRecord(proposal.number, trial_id, {}, seed, self.objective, is_baseline)
            self.trials.append(trial)
        trial.trial_id, trial.status, trial.hyperparameters = trial_id, "running", dict(proposal.params)
        if redrawn:
            trial.redrawn = redrawn
            proposal.set_user_attr("redrawn", redrawn)
        proposal.set_user_attr("seed", trial.seed)
        proposal.set_user_attr("ray_trial_id", trial_id)
        self._running[trial_id] = trial, proposal
        return trial

    def read_metrics(self, result: dict[str, Any]) -> Metrics:
        """The metrics in a worker's report; the names of metrics that were never reported before are recorded."""
        metrics = self.metadata.task.epoch_type(**result["metrics"])
        known = self.metadata.metrics
        if new := [name for name in self.metadata.task.reported_names(metrics) if name not in known]:
            self.update(metrics=[*known, *new])
        return metrics

    def add_epoch(self, trial_id: str, metrics: Metrics, timing: Timing | None = None) -> None:
        """Record the metrics of another epoch, and where and when it was run."""
        trial, proposal = self._running[trial_id]
        trial.add_epoch(metrics, timing)

        def write() -> None:
            proposal.set_user_attr(f"epoch {metrics.epoch}", timed_json(metrics, timing))
            for measured in self.objective.measured([metrics]):
                # not proposal.report: it ignores an epoch that it has seen, also if the commit failed after that
                self.storage.set_trial_intermediate_value(
                    proposal._trial_id, metrics.epoch, self.objective.value(measured)
                )

        if self._together:
            self.storage.change_later(write)
        else:
            self.change(write)

    def add_failure(self, trial_id: str, failure: Failure, timing: Timing | None = None) -> None:
        """Store the failure that is about to end a trial; `finish` records it."""
        self.running(trial_id).add_failure(failure, timing)

    def end_by_itself(self, trial_id: str) -> None:
        """Record that a training has returned before the last epoch of the study, so that it is complete."""
        trial, proposal = self._running[trial_id]
        trial.ended_by_itself = True
        self.change(lambda: proposal.set_user_attr("ended_by_itself", True))

    def add_worker_failure(self, trial_id: str) -> int:
        """Record that a worker of a trial died; returns how many have died."""
        trial, proposal = self._running[trial_id]
        trial.worker_failures += 1
        self.change(lambda: proposal.set_user_attr("worker_failures", trial.worker_failures))
        return trial.worker_failures

    def add_memory(self, trial_id: str, memory: MemoryUse) -> None:
        """Note the memory of a trial by now; `finish` records it."""
        trial = self.running(trial_id)
        trial.memory = trial.memory.with_later(memory)

    def finish(self, trial_id: str, *, interrupted: bool = False, stopped: bool = False) -> TrialRecord:
        """Record that a trial ended, with the status by its reports.

        An `interrupted` trial can go on later. One that was `stopped` cannot, even if the scheduler pauses trials.
        """
        trial, proposal = self._running.pop(trial_id)
        if trial.failure:
            trial.status = trial.failure.status
        elif trial.ended_by_itself or (self.epoch_limit is not None and len(trial.epochs) >= self.epoch_limit):
            trial.status = "completed"
        else:
            pauses = self.metadata.settings.scheduler == "promotion" and not stopped
            trial.status = "interrupted" if interrupted else "paused" if pauses else "stopped_early"
        self.change(lambda: self._write_end(trial, proposal))
        if trial.status != "interrupted":
            self._clear_checkpoints([] if trial.may_continue else [trial])
            self.checkpoints.begin_to_fetch_folder(trial.number)
        return trial

    def promote(self, trial: TrialRecord) -> None:
        """Queue a paused trial, so that it is proposed next and continues."""
        trial.status = "interrupted"

        def write() -> None:
            self.storage.set_trial_user_attr(self._stored_id(trial.number), "status", trial.status)
            self._let_wait(trial.number)

        self.change(write)

    def stop_waiting(self, trials: list[TrialRecord]) -> None:
        """Record that these trials, which are paused or interrupted, will not continue."""
        interrupted = [trial for trial in trials if trial.status == "interrupted"]

        def write() -> None:
            for trial in interrupted:  # for Optuna they wait, and only what runs can end
                self.storage.set_trial_state_values(self._stored_id(trial.number), TrialState.RUNNING)
            for trial in trials:
                trial.status = "stopped_early"
                self.storage.set_trial_user_attr(self._stored_id(trial.number), "status", trial.status)
                self._tell(trial)

        self.change(write)
        self._clear_checkpoints(trials)

    def running(self, trial_id: str) -> TrialRecord:
        """The running trial with this name in Ray."""
        return self._running[trial_id][0]

    def epoch_seconds(self, stored: FrozenTrial) -> float | None:
        """How long an epoch of a trial of Optuna's study takes on average; None if that is not known."""
        place = bisect_left(self.trials, stored.number, key=lambda trial: trial.number)
        is_own = place < len(self.trials) and self.trials[place].number == stored.number
        return self.trials[place].epoch_seconds if is_own else None

    def running_ids(self) -> list[str]:
        """Ray's names of the trials that run now."""
        return list(self._running)

    def interrupt_running(self) -> None:
        """Record that all trials still running were interrupted."""
        for trial_id in self.running_ids():
            self.finish(trial_id, interrupted=True)

    def _write_end(self, trial: TrialRecord, proposal: Trial) -> None:
        proposal.set_user_attr("status", trial.status)
        if trial.memory != MemoryUse():
            proposal.set_user_attr("memory", asdict(trial.memory))
        if trial.failure:
            timing = trial.timings.get(len(trial.epochs) + 1)
            proposal.set_user_attr("failure", timed_json(trial.failure, timing))
        if trial.status == "interrupted":  # it waits, with its values and its curve; the next ask goes on with it
            self._let_wait(trial.number)
            return
        if trial.status == "paused":  # for Optuna it runs, and a sampler sees it as pruned
            return
        if trial.status == "completed":
            proposal.set_user_attr("last_value", [*trial.curve.values()][-1])
        self._tell(trial)

    def _tell(self, trial: TrialRecord) -> None:
        """Let a trial end for Optuna; its value is the best one, or the last one if it was stopped early.

        Optuna's own `tell` does the same in ten times the time.
        """
        values = [trial.best_value] if trial.status == "completed" else [*trial.curve.values()][-1:]
        if trial.status not in ("completed", "stopped_early"):
            values = []
        self.storage.set_trial_state_values(self._stored_id(trial.number), OPTUNA_STATE[trial.status], values or None)

    def _let_wait(self, number: int) -> None:
        self.storage.set_trial_state_values(self._stored_id(number), TrialState.WAITING)

    def _stored_id(self, number: int) -> int:
        """The database's name of a trial."""
        study_id = self.study._study_id
        return self.storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def _ended_numbers(self) -> list[int]:
        return [trial.number for trial in self.trials if not trial.may_continue]

    def _kept_numbers(self) -> list[int]:
        """The numbers of the trials whose best epoch is kept, or the folder of a program: the best one.

        A confirmation without a final training keeps that of the best training of each configuration: one of them will
        be the winner.
        """
        plan = self.metadata.plan
        if plan is not None and plan.final_seed is None:
            ended = ended_trials(self.trials)
            return [trial.number for trial in best_configurations(ended, len(ended))]
        best = self.standings.best_ended
        return [best.number] if best else []

    def _clear_checkpoints(self, ended: Sequence[TrialRecord]) -> None:
        """Remove the checkpoints of ended trials but for what is kept; `ended` are those that have ended just now."""
        open_trials = [trial.number for trial in self.standings.may_continue()]
        self.checkpoints.clear([trial.number for trial in ended], kept=self._kept_numbers(), open_trials=open_trials)
