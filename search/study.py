"""Builds and runs a study: Ray Tune over the record, from checked settings to files and summary."""

import itertools
import json
import logging
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import ray
import torch
from ray import tune

from search import progress, provenance
from search.record import Failure, StudyRecord, TrialRecord
from search.scheduler import build_scheduler
from search.searcher import StudySearch
from search.settings import StudySettings
from search.space import DEFAULT_SPACE, SearchSpace, describe, tutorial_baseline
from search.summary import show_summary
from search.trainable import trainable
from search.trial_table import write_atomically, write_tables
from training.data import ImageData, load_data
from training.loop import EpochMetrics

EXIT_OK, EXIT_NOTHING_COMPLETED, EXIT_INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Study:
    """A study that is ready to run: everything checked, data loaded, folder made."""

    settings: StudySettings
    space: SearchSpace
    data: ImageData
    folder: Path
    trials_at_once: int
    provenance: dict[str, Any]
    """What the study runs on, taken before the first trial."""


def prepare_study(settings: StudySettings, space: SearchSpace = DEFAULT_SPACE) -> Study:
    """Check what only the machine can tell, load the data and make the study's folder, in this order.

    Raises:
        ValueError: The settings ask for more than there is, or the data set is damaged; nothing was written.
        OSError: A folder cannot be read or written.
    """
    trials_at_once = _room_for_trials(settings)
    _check_writable(settings.results_dir)
    data, warning = load_data(settings, settings.seed)
    if warning:
        print(f"WARNING: {warning}\n", flush=True)
    origin = provenance.collect()
    return Study(settings, space, data, _make_folder(settings, data.name), trials_at_once, origin)


def run_study(study: Study) -> int:
    """Run the trials of a study; write its files as they end and print what happens.

    Returns:
        The exit status: 0 if a trial completed, 1 if none did, 130 after an interrupt.
    """
    started = time.time()
    settings, folder = study.settings, study.folder
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    progress.show_start(settings, folder, study.data, study.trials_at_once)
    record = StudyRecord(folder, settings.metric_name, settings.mode, settings.epochs)
    if settings.baseline:
        record.enqueue(tutorial_baseline(study.space))
    write_tables(record, study.space)
    _write_summary(study, record, started)
    _point_latest_to(folder)
    with suppress(KeyboardInterrupt):  # Ray handles most of them itself: its fit() returns
        _run_trials(study, record)
    for trial in record.interrupt_running():
        _write_error(record, trial)
    write_tables(record, study.space)
    _write_summary(study, record, started)
    show_summary(settings, study.data.name, record, study.space, time.time() - started)
    if len(record.trials) < settings.num_samples or any(trial.status == "interrupted" for trial in record.trials):
        return EXIT_INTERRUPTED
    completed = any(trial.status == "completed" for trial in record.trials)
    return EXIT_OK if completed else EXIT_NOTHING_COMPLETED


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
        seconds = round(result["time_total_s"], 3)
        if "failure" in result:
            self._record.add_failure(trial.trial_id, Failure(**result["failure"]), seconds)
        else:
            metrics = EpochMetrics(**{field.name: result[field.name] for field in fields(EpochMetrics)})
            self._record.add_epoch(trial.trial_id, metrics, seconds)

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
        _write_error(self._record, trial)
        write_tables(self._record, self._space)
        self._lines.show(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles callbacks into its scratch folder


def _run_trials(study: Study, record: StudyRecord) -> None:
    settings = study.settings
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
                    metric=settings.metric_name,
                    mode=settings.mode,
                    num_samples=settings.num_samples,
                    max_concurrent_trials=study.trials_at_once,
                    search_alg=StudySearch(record, study.space, settings.seed),
                    scheduler=build_scheduler(settings, tutorial_baseline(study.space)),
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


def _write_error(record: StudyRecord, trial: TrialRecord) -> None:
    if trial.failure and trial.failure.traceback:
        errors = record.folder / "errors"
        errors.mkdir(exist_ok=True)
        write_atomically(errors / f"trial-{trial.number:04}.txt", trial.failure.traceback)


def _write_summary(study: Study, record: StudyRecord, started: float) -> None:
    """Write `study.json`: everything that is true of the study as a whole."""
    settings, data = study.settings, study.data
    best = record.best()
    summary = {
        "name": study.folder.name,
        "settings": {
            name: provenance.project_path(value) if isinstance(value, Path) else value
            for name, value in (asdict(settings) | {"metric": settings.metric_name}).items()
        },
        "space": describe(study.space),
        "dataset": {
            "name": data.name,
            "sha256": data.sha256,
            "classes": data.classes,
            "training_images": len(data.train),
            "validation_images": len(data.val),
            "test_images": len(data.test),
        },
        "trials_at_once": study.trials_at_once,
        "started": datetime.fromtimestamp(started).astimezone().isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "trials": dict(Counter(trial.status for trial in record.trials)),
        "best_trial": best.number if best else None,
        **study.provenance,
    }
    write_atomically(study.folder / "study.json", json.dumps(summary, indent=2) + "\n")
