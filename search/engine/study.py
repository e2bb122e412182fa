"""Prepares a study: from checked settings to loaded data, an open record and a locked folder."""

import itertools
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna

from search.algorithms.memory_prediction import MemoryLimit
from search.engine.cluster import Cluster, SharedPlace
from search.engine.concurrency import Machines, find_machines
from search.engine.local_ray import LocalRay, check_system
from search.engine.runners import Runner, runner_of
from search.engine.shared_data import SharedData
from search.monitoring.loggers import check_packages
from search.record import folder as study_folder
from search.record import provenance
from search.record.checkpoint_store import folder_name
from search.record.confirmation import Plan
from search.record.file_names import STUDY_DB
from search.record.folder import StudyFolder
from search.record.lookup import check_same_study, confirm_line, find_study
from search.record.metadata import (
    StudyMetadata,
    changed_code,
    check_comparable,
    collect_metadata,
)
from search.record.postgresql import ServerStorage, open_server
from search.record.ranking import ended_trials, has_measured
from search.record.requests import is_stopped
from search.record.study_record import StudyRecord, check_place
from search.record.warm_start import check_warm_start, start_from
from search.settings import StudySettings
from search.space.search_space import SearchSpace
from search.space.toml_file import active_space
from training.config import absolute_dataset
from training.console.progress_bar import progress_bar
from training.console.terminal import show_event
from training.images.image_data import ImageData


@dataclass(frozen=True)
class Study:
    """A study that is ready to run: settings are checked, data are loaded, the record is open, the folder is locked."""

    settings: StudySettings
    data: ImageData | None
    """None if the study has no images."""
    record: StudyRecord
    folder: StudyFolder
    machines: Machines
    began: float
    """When the command began, by `time.monotonic`."""
    ray: LocalRay
    """Ray on this machine, which runs the trials if there is no cluster."""
    shared_data: SharedData | None = None
    """The data that a training function has loaded for all trials; None if it has not."""
    working_folder: Path = field(default_factory=Path.cwd)
    """The folder of the command, in which code of the user runs."""

    @property
    def memory_limit(self) -> MemoryLimit:
        """What is known of the memory that a trial can have."""
        machine = self.machines.largest_memory_mb
        return MemoryLimit(of_trial_mb=self.settings.memory_per_trial_mb, of_machine_mb=machine)

    @property
    def trials_to_run(self) -> int:
        """Number of trials that must still end until the study is complete."""
        return self.record.num_samples - len(ended_trials(self.record.trials))

    @property
    def confirmed_next(self) -> tuple[int, int] | None:
        """How many configurations, from how many seeds, the same command confirms after the trials.

        None if the command does not say so, or a user has asked the study to end.
        """
        metadata = self.record.metadata
        stopped = is_stopped(metadata.requests, len(metadata.sessions) - 1)
        return None if stopped else self.settings.confirm_size


@dataclass(frozen=True)
class Repetition:
    """Configurations of a study that are trained again from new seeds, instead of a search."""

    parent: StudyRecord
    """The study of the configurations."""
    plan: Plan


def prepare_study(
    settings: StudySettings,
    began: float | None = None,
    *,
    runs_now: bool = False,
    repetition: Repetition | None = None,
) -> Study:
    """Check the settings against this machine, load the data, and create or open the record, in this order.

    Args:
        settings: Settings of the study.
        began: When the command began, by `time.monotonic`; None for now.
        runs_now: Whether the study will run at once: then Ray starts while the data are loaded.
        repetition: The configurations that are trained again, if this study confirms another study.

    Raises:
        ValueError: The machine is too small, the data set is damaged or is not that of the study, or another process
            runs the study; no study was created or changed.
        OSError: A folder cannot be read or written.
    """
    began = time.monotonic() if began is None else began
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings.task.check_can_train()
    settings = replace(settings, data_dir=settings.data_dir.absolute(), dataset=absolute_dataset(settings.dataset))
    check_packages(settings)
    if not settings.address:
        check_system()
    machines = find_machines(settings)
    _check_places(settings, machines.cluster)
    # before the data are loaded, which may take minutes
    server = open_server(settings.storage) if settings.storage is not None else None
    if settings.resume:
        _check_free(Path(settings.resume), server)
    earlier = [] if settings.resume else _earlier_records(settings, server)
    space = None if settings.resume else _new_space(settings, earlier, repetition)
    runner = runner_of(settings.task)
    _check_training(settings, runner, space)
    ray = LocalRay(dashboard=settings.dashboard, workers=machines.max_concurrent_trials)
    starts_ray = runs_now and not machines.cluster
    name = _name_without_data(settings)
    if name and starts_ray:
        ray.begin(name)
    data, warning = runner.load_images(settings)
    shared_data = runner.load_shared_data(settings.seed)
    name = name or study_folder.new_name(settings, data.name if data else "")
    if starts_ray:
        with progress_bar("Starting Ray"):
            ray.wait(name)
    if warning:
        print(f"WARNING: {warning}\n", flush=True)
    if space is None:
        path, is_repetition = Path(str(settings.resume)), repetition is not None
        folder, record = _resume_record(path, settings, data, server, is_repetition=is_repetition)
    else:
        metadata = collect_metadata(settings, space, data)
        folder, record = _new_record(settings, name, metadata, server=server, earlier=earlier, repetition=repetition)
    _begin_session(record, settings, machines)
    return Study(settings, data, record, folder, machines, began, ray, shared_data)


def _check_places(settings: StudySettings, joined: Cluster | None) -> None:
    """Check that the results can be written, and the checkpoints, by each node of a cluster."""
    existing = study_folder.check_writable(settings.results_dir)
    if joined:
        joined.check(existing, settings.checkpoints_dir)
    elif settings.checkpoints_dir:
        with SharedPlace(existing, settings.checkpoints_dir):
            pass


def _begin_session(record: StudyRecord, settings: StudySettings, machines: Machines) -> None:
    """Note in the record that this command runs the study now, and where."""
    session = provenance.new_session(
        machines.cluster.size() if machines.cluster else None,
        max_concurrent_trials=machines.max_concurrent_trials,
        cpus_per_trial=settings.cpus_per_trial,
    )
    record.use_store()
    record.update(sessions=[*record.metadata.sessions, session])


def _check_free(path: Path, server: ServerStorage | None) -> None:
    """Refuse a study that another process runs, here or on any machine that uses the same server."""
    if server:
        server.lock(path.name)
    study_folder.check_free(path)


def _earlier_records(settings: StudySettings, server: ServerStorage | None) -> list[StudyRecord]:
    """Read the earlier studies of a warm start, from the `study.db` in their folders or else from the server."""
    found = [find_study(study, settings.results_dir, settings.storage).resolve() for study in settings.warm_start]
    return [StudyRecord.open(one, None if (one / STUDY_DB).exists() else server) for one in dict.fromkeys(found)]


def _new_space(settings: StudySettings, earlier: list[StudyRecord], repetition: Repetition | None) -> SearchSpace:
    """Choose the search space of a new study."""
    if repetition:
        return repetition.parent.space
    return active_space(settings, earlier[0].space if settings.fork else None)


def _check_training(settings: StudySettings, runner: Runner[Any], space: SearchSpace | None) -> None:
    """Check that what is trained can be called; `space` is that of a new study."""
    if settings.confirm is not None and space and "seed" in space.order:
        raise ValueError("confirm trains again from new seeds, so seed cannot be a hyperparameter of the search space")
    runner.check(space, confirms=settings.confirm is not None)


def _name_without_data(settings: StudySettings) -> str | None:
    """Name the study before the data are loaded; None if the name depends on which data set can be downloaded."""
    if settings.resume:
        return Path(settings.resume).name
    short_name = settings.name or settings.task.short_name(settings.data_dir)
    return None if short_name is None else study_folder.new_name(settings, short_name)


def _new_record(
    settings: StudySettings,
    name: str,
    metadata: StudyMetadata,
    *,
    server: ServerStorage | None,
    earlier: list[StudyRecord],
    repetition: Repetition | None,
) -> tuple[StudyFolder, StudyRecord]:
    """Create the folder of a new study, and its record in the folder or on the server."""
    for study in earlier:
        check_warm_start(study, metadata)
    if repetition:
        _check_repetition(repetition, metadata)
        metadata = replace(metadata, plan=repetition.plan)

    def fill(record: StudyRecord) -> None:
        if repetition:
            _enqueue_repetition(record, repetition)
        else:
            start_from(record, earlier, starting_points=settings.baseline)

    def make(folder: Path, name: str) -> None:
        stored = replace(metadata, checkpoint_folder=_folder_in_store(settings, name, repetition))
        StudyRecord.create(folder, stored, name=name, server=server, fill=fill).close()

    folder = StudyFolder(study_folder.make_folder(settings, name, make, server))
    return folder, StudyRecord.open(folder.path, server)


def _folder_in_store(settings: StudySettings, name: str, repetition: Repetition | None) -> str | None:
    """A new folder of a store for the checkpoints of a study; None if there is no store."""
    if settings.checkpoints_dir is None:
        return None
    return folder_name(f"{repetition.plan.study}-{name}" if repetition else name)


def _check_repetition(repetition: Repetition, metadata: StudyMetadata) -> None:
    """Refuse to train configurations again on other data; changed code is only reported."""
    parent = repetition.parent.metadata
    now, then = (one.dataset.sha256 if one.dataset else None for one in (metadata, parent))
    if now != then:
        raise ValueError(
            f"study {repetition.plan.study} was run on other images than those of {metadata.task.name} now"
        )
    if parent.code != metadata.code:
        show_event("the training code has changed since the study was run, which may explain a part of the optimism")


def _enqueue_repetition(record: StudyRecord, repetition: Repetition) -> None:
    """Enqueue the trainings that choose the winner, seed by seed, so that all configurations progress equally."""
    by_number = {trial.number: trial for trial in repetition.parent.trials}
    for seed, number in itertools.product(repetition.plan.seeds, repetition.plan.trials):
        record.enqueue(by_number[number].hyperparameters, seed)


def _check_same_place(study: str, stored: StudyMetadata, settings: StudySettings) -> None:
    """Refuse to move the checkpoints of a study from its folder into a store, or back."""
    if (stored.store is None) != (settings.checkpoints_dir is None):
        where = "its folder" if stored.store is None else f"the store {stored.settings.checkpoints_dir}"
        raise ValueError(f"study {study} has its checkpoints in {where}: leave checkpoints_dir out, or fork the study")


def _resume_record(
    path: Path,
    settings: StudySettings,
    data: ImageData | None,
    server: ServerStorage | None,
    *,
    is_repetition: bool,
) -> tuple[StudyFolder, StudyRecord]:
    """Open the folder and the record of a study that is resumed; a study that cannot be resumed is not changed."""
    check_place(path, server)
    path.mkdir(parents=True, exist_ok=True)  # it may be missing if the record is on a server
    with ExitStack() as unless_resumed:
        folder = StudyFolder(path)
        unless_resumed.callback(folder.close)
        record = StudyRecord.open(path, server)  # not before the lock, or another process may change it
        unless_resumed.callback(record.close)
        metadata = _metadata_to_go_on(path, record, settings, data, is_repetition=is_repetition)
        record.requeue_interrupted()
        record.update(settings=metadata.settings, space=metadata.space, code=metadata.code)
        unless_resumed.pop_all()
    return folder, record


def _metadata_to_go_on(
    path: Path, record: StudyRecord, settings: StudySettings, data: ImageData | None, *, is_repetition: bool
) -> StudyMetadata:
    """The metadata of a study from now on; a ValueError says why these settings cannot go on with it."""
    stored = record.metadata
    if not is_repetition:
        if stored.plan:
            go_on = confirm_line(path.parent, record.address, stored.settings)
            raise ValueError(f"{path} is the confirmation of study {stored.plan.study}; to continue it: {go_on}")
        check_same_study(stored.settings, settings)
    space = record.space if is_repetition else active_space(settings, record.space)
    metadata = collect_metadata(settings, space, data)
    _check_same_place(path.name, stored, settings)
    accepts_changes = settings.accept_changes or not has_measured(record.trials)
    check_comparable(path.name, stored, metadata, accepts_changes=accepts_changes)
    if changed := changed_code(stored, metadata):
        show_event(f"the study continues with changed code: {', '.join(changed)}")
    return metadata
