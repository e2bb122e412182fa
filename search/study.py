"""Builds and runs a study: Ray Tune over the record, from checked settings to files and summary."""

import itertools
import logging
import os
import platform
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import ray
import torch
from filelock import FileLock, Timeout
from ray import tune

from search import progress, provenance
from search.record import Failure, StudyRecord
from search.scheduler import build_scheduler
from search.searcher import StudySearch
from search.settings import StudySettings
from search.space import DEFAULT_SPACE, SearchSpace, describe, parse, tutorial_baseline
from search.study_files import write_study_json, write_tables
from search.summary import show_summary
from search.trainable import trainable
from training.data import ImageData, load_data
from training.loop import EpochMetrics

EXIT_OK, EXIT_NOTHING_COMPLETED, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 130, 143


@dataclass(frozen=True)
class Study:
    """A study that is ready to run: everything checked, data loaded, record open and locked."""

    settings: StudySettings
    space: SearchSpace
    data: ImageData
    record: StudyRecord
    trials_at_once: int
    lock: FileLock
    """Held while this process may write the record; the system lets go of it when the process ends, however it ends."""

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        return self.record.folder

    @property
    def trials_to_run(self) -> int:
        """Trials of the wanted total that have not ended yet."""
        return self.settings.num_samples - len(self.record.ended())


def prepare_study(settings: StudySettings, space: SearchSpace = DEFAULT_SPACE) -> Study:
    """Check what only the machine can tell, load the data, and make or take up the record, in this order.

    Raises:
        ValueError: The settings ask for more than there is, the data set is damaged or not that of the study, or
            another process runs the study; nothing was written.
        OSError: A folder cannot be read or written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials_at_once = _room_for_trials(settings)
    _check_writable(settings.results_dir)
    old_folder = Path(settings.resume) if settings.resume else None
    old_lock = _lock(old_folder) if old_folder else None  # before the data: to be told at once
    data, warning = load_data(settings, settings.seed)
    if warning:
        print(f"WARNING: {warning}\n", flush=True)
    folder = old_folder or _make_folder(settings, data.name)
    lock = old_lock or _lock(folder)
    record = _old_record(folder, settings, data) if old_folder else _new_record(folder, settings, space, data)
    record.set_facts({"starts": [*record.facts.get("starts", []), provenance.collect()]})
    return Study(settings, parse(record.facts["space"]), data, record, trials_at_once, lock)


def _new_record(folder: Path, settings: StudySettings, space: SearchSpace, data: ImageData) -> StudyRecord:
    record = StudyRecord.create(folder, settings.mode, _facts(settings, space, data))
    if settings.baseline:
        record.enqueue(tutorial_baseline(space))
    return record


def _old_record(folder: Path, settings: StudySettings, data: ImageData) -> StudyRecord:
    record = StudyRecord.open(folder)
    if record.facts["dataset"]["sha256"] != data.sha256:
        raise ValueError(f"study {folder.name} was started on other data than {data.name} in {settings.data_dir}")
    record.take_up()
    record.set_facts(_facts(settings, parse(record.facts["space"]), data))
    return record


def run_study(study: Study) -> int:
    """Run the trials of a study that have not ended; write its files as they end and print what happens.

    Returns:
        The exit status: 0 if a trial completed, 1 if none did, 130 or 143 after an interrupt.
    """
    started, seconds_before = time.time(), study.record.facts.get("seconds", 0.0)
    settings, folder, record = study.settings, study.folder, study.record
    progress.show_start(settings, folder, study.data, study.trials_at_once)
    if record.trials:
        progress.show_resumed(record, study.trials_to_run)
    write_tables(record, study.space)
    write_study_json(record)
    _point_latest_to(folder)
    signals: list[int] = []
    if study.trials_to_run > 0:
        with suppress(KeyboardInterrupt):  # Ray handles most of them itself: its fit() returns
            _run_trials(study, signals)
    record.interrupt_running()
    record.set_facts({"seconds": round(seconds_before + time.time() - started, 1)})
    write_tables(record, study.space)
    write_study_json(record)
    show_summary(settings, study.data.name, record, study.space, record.facts["seconds"])
    if study.trials_to_run > 0:
        print(f"\nInterrupted. To go on: python search/run.py --resume {folder.name}")
        return EXIT_TERMINATED if signals else EXIT_INTERRUPTED
    completed = any(trial.status == "completed" for trial in record.trials)
    return EXIT_OK if completed else EXIT_NOTHING_COMPLETED


def _facts(settings: StudySettings, space: SearchSpace, data: ImageData) -> dict[str, Any]:
    """What is true of the study as a whole, as plain data."""
    values = asdict(settings) | {"metric": settings.metric_name, "dataset": data.name, "resume": None}
    return {
        "settings": {
            name: provenance.project_path(value) if isinstance(value, Path) else value for name, value in values.items()
        },
        "space": describe(space),
        "dataset": {
            "name": data.name,
            "sha256": data.sha256,
            "classes": list(data.classes),
            "training_images": len(data.train),
            "validation_images": len(data.val),
            "test_images": len(data.test),
        },
    }


class RecordTrials(tune.Callback):  # type: ignore[misc]
    """Brings what Ray's trials report into the record, the tables and the terminal."""

    def __init__(self, record: StudyRecord, space: SearchSpace) -> None:
        self._record = record
        self._space = space
        self._lines = progress.TrialLines(record, space)

    def setup(self, **_: Any) -> None:
        """Print the heading of the trials' lines."""
        self._lines.show_heading()

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Record an epoch, or the reason for which the trial is about to end."""
        if "failure" in result:
            self._record.add_failure(trial.trial_id, Failure(**result["failure"]), result["time_this_iter_s"])
        else:
            metrics = EpochMetrics(**{field.name: result[field.name] for field in fields(EpochMetrics)})
            self._record.add_epoch(trial.trial_id, metrics)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Record a trial that ended by itself or was stopped by the scheduler."""
        self._end(trial.trial_id)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Record a trial that raised, or whose worker died without a word."""
        text = Path(trial.error_file).read_text() if trial.error_file else "no word from Ray"
        reason = text.strip().splitlines()[-1].partition(". ")[0]
        self._record.add_failure(trial.trial_id, Failure("failed", f"worker died: {reason}", text))
        self._end(trial.trial_id)

    def _end(self, trial_id: str) -> None:
        trial = self._record.finish(trial_id)
        write_tables(self._record, self._space)
        self._lines.show(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles callbacks into its scratch folder


def _run_trials(study: Study, signals: list[int]) -> None:
    settings, record = study.settings, study.record
    context = ray.init(
        address="local",
        num_cpus=provenance.available_cpus(),
        num_gpus=torch.cuda.device_count(),
        include_dashboard=settings.dashboard,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )
    progress.show_dashboard(context.dashboard_url)
    _treat_sigterm_as_interrupt(signals)
    run = tune.with_parameters(
        trainable,
        data=study.data,
        epochs=settings.epochs,
        threads=settings.cpus_per_trial,
        device="cuda" if settings.gpus_per_trial else "cpu",
    )
    try:
        with TemporaryDirectory(prefix="tunesmith-") as scratch:
            tune.Tuner(
                tune.with_resources(run, {"cpu": settings.cpus_per_trial, "gpu": settings.gpus_per_trial}),
                tune_config=tune.TuneConfig(
                    num_samples=study.trials_to_run,
                    max_concurrent_trials=study.trials_at_once,
                    search_alg=StudySearch(record, study.space, settings.seed),
                    scheduler=build_scheduler(settings.scheduler, record, tutorial_baseline(study.space)),
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=study.folder.name,
                    storage_path=scratch,
                    callbacks=[RecordTrials(record, study.space)],
                    verbose=0,
                ),
            ).fit()
    finally:
        ray.shutdown()


def _room_for_trials(settings: StudySettings) -> int:
    """Trials that can run at the same time, as many as asked for or as many as fit."""
    cpus, gpus = provenance.available_cpus(), torch.cuda.device_count()
    if settings.cpus_per_trial > cpus:
        raise ValueError(f"cpus_per_trial is {settings.cpus_per_trial}, but this machine has {cpus}")
    if settings.gpus_per_trial > gpus:
        raise ValueError(f"gpus_per_trial is {settings.gpus_per_trial:g}, but torch finds {gpus} on this machine")
    room = cpus // settings.cpus_per_trial
    if settings.gpus_per_trial >= 1:
        room = min(room, gpus // int(settings.gpus_per_trial))
    elif settings.gpus_per_trial > 0:
        room = min(room, gpus * int(1 / settings.gpus_per_trial))  # a fraction does not span two GPUs
    return min(room, settings.num_samples, settings.max_concurrent or room)


def _check_writable(folder: Path) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ValueError(f"the results folder cannot be written: {folder}")


def _make_folder(settings: StudySettings, dataset: str) -> Path:
    name = settings.name or f"{dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = settings.results_dir.resolve() / name
    for number in itertools.count(2):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            if settings.name:
                raise ValueError(f"name {name} is taken: {folder}") from None
            folder = folder.with_name(f"{name}-{number}")  # another study started in the same second
    return folder


def _point_latest_to(folder: Path) -> None:
    draft = folder.parent / f".latest.{folder.name}"
    draft.symlink_to(folder.name)
    draft.replace(folder.parent / "latest")


def _lock(folder: Path) -> FileLock:
    lock, owner = FileLock(folder / ".lock"), folder / ".owner"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"study {folder.name} is being run by {owner.read_text()}") from None
    owner.write_text(f"process {os.getpid()} on {platform.node()}")
    return lock


def _treat_sigterm_as_interrupt(signals: list[int]) -> None:
    """Have SIGTERM do what Ctrl-C does, and note it; only after ray.init, which sets a handler of its own."""

    def interrupt(number: int, _frame: object) -> None:
        signals.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)
