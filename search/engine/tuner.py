"""Runs the trials of a study with Ray Tune."""

from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.trainable import wrap_function

from search.algorithms.samplers import build_sampler
from search.algorithms.schedulers import InterruptingScheduler, build_scheduler
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.engine.cluster import this_node_drains
from search.engine.passed_code import code_for_workers
from search.engine.recording_callback import RecordingCallback, main_sentence
from search.engine.shared_data import pass_tensors_without_copy
from search.engine.study import Study
from search.engine.trainable import TrainableOptions, trainable
from search.engine.tune_controller import controlled
from search.record.study_record import StudyRecord
from search.space.encoding import SpaceEncoding
from search.space.toml_file import read_point
from training.console.terminal import show_event

MOST_TRIALS = 10_000
"""More trials do not run at the same time on any cluster."""
MAX_CRASHES = 3
"""After this number of crashes of Ray Tune in a row, without progress between them, the study ends."""


def run_trials(study: Study, callback: RecordingCallback, stopper: StudyStopper, num_ended: int | None) -> None:
    """Run trials until `num_ended` trials of the study have ended, or the study ends early; None for `num_samples`.

    Ray Tune itself may crash, for example when a worker is killed because the memory is full. The record knows which
    trials were running, so another Tuner continues them.
    """
    record, worker = study.record, _worker(study)
    crashes, state_before = 0, None
    while not stopper.starts_no_trial():
        algorithm = _search_algorithm(study, callback, stopper, num_ended)
        try:
            _fit(study, worker, algorithm, callback, stopper)
            callback.look_around(at_once=True)  # while Ray ended, somebody may have added trials
            if not stopper.starts_no_trial() and algorithm.nothing_left():
                callback.stop_paused()
                return
        except Exception as error:
            if stopper.stop_all():
                return  # the study was about to end
            _interrupt_after_crash(callback, record, error)
            state = [(len(trial.epochs), trial.worker_failures, trial.status) for trial in record.trials]
            crashes, state_before = (crashes + 1 if state == state_before else 1), state
            if crashes >= MAX_CRASHES:
                stopper.repeated_failure = f"Ray Tune crashed {crashes} times in a row: {main_sentence(str(error))}."


def _search_algorithm(
    study: Study, callback: RecordingCallback, stopper: StudyStopper, num_ended: int | None
) -> SearchAlgorithm:
    """Proposes configurations from now on."""
    settings, record = study.settings, study.record
    prior = {}
    if settings.prior:
        expected = read_point(record.space, settings.prior, record.metadata.task.config_type(), word="prior")
        prior = SpaceEncoding(record.space).encode_part(expected)
    sampler = build_sampler(
        settings.sampler, settings.seed, len(record.trials), settings.epochs, record.epoch_seconds, prior=prior
    )
    return SearchAlgorithm(
        record,
        sampler,
        seed=settings.seed,
        num_ended=num_ended,
        stopper=stopper,
        before_proposal=callback.look_around,
        memory_limit=study.memory_limit,
    )


def _fit(
    study: Study, worker: Any, algorithm: SearchAlgorithm, callback: RecordingCallback, stopper: StudyStopper
) -> None:
    """Run trials with one Tuner, until the algorithm proposes none any more or the stopper says so."""
    scheduler = build_scheduler(study.settings, study.record)
    with TemporaryDirectory(prefix="tunesmith-") as scratch, controlled(study.record):
        tune.Tuner(
            worker,
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the search algorithm says when there are enough
                # the search algorithm allows fewer, and a cluster may grow
                max_concurrent_trials=MOST_TRIALS if study.machines.cluster else study.machines.capacity,
                search_alg=algorithm,
                scheduler=InterruptingScheduler(scheduler, stopper),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="scratch",
                storage_path=scratch,
                callbacks=[callback],
                stop=stopper,
                progress_reporter=tune.CLIReporter(),  # silent; that for notebooks clears the cell's output
                verbose=0,
            ),
        ).fit()


def _worker(study: Study) -> Any:
    """The class of the actors that run the trials of a study, with all that its trials have in common."""
    settings, record = study.settings, study.record
    if study.shared_data:
        pass_tensors_without_copy()
    options = TrainableOptions(
        task=record.metadata.task,
        objective=record.objective,
        threads=settings.cpus_per_trial,
        device="cuda" if settings.gpus_per_trial else "cpu",
        timeout=settings.trial_timeout_seconds,
        working_folder=study.working_folder,
        passed=code_for_workers(settings),
        leaves=this_node_drains if study.machines.cluster else bool,
    )
    run = tune.with_parameters(trainable, options=options, images=study.data, shared_data=study.shared_data)
    memory = (settings.memory_per_trial_mb or 0.0) * 1e6
    resources = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial, "memory": memory}
    return worker_class(run, record.folder.name, resources, settings.node_labels)


def worker_class(
    run: Callable[[dict[str, Any]], None], study: str, resources: dict[str, float], labels: dict[str, str]
) -> Any:
    """The class of the actors that run trials, as Ray's dashboard shows it; an actor is called after its study.

    Ray Tune gives a trial the worker of an earlier one if both need the same placement group. So a trial that begins
    after a node is avoided gets no worker that is there.
    """

    def placement(sample: dict[str, Any]) -> tune.PlacementGroupFactory:
        avoided = ",".join(sample["nodes_avoided"])
        elsewhere = {"ray.io/node-id": f"!in({avoided})"} if avoided else {}
        return tune.PlacementGroupFactory([resources], bundle_label_selector=[labels | elsewhere])

    worker = tune.with_resources(wrap_function(run, name=f"study {study}: its log names its trials"), placement)
    worker.__name__ = worker.__qualname__ = "TrialWorker"
    return worker


def _interrupt_after_crash(callback: RecordingCallback, record: StudyRecord, error: Exception) -> None:
    """Interrupt the trials that ran when Ray Tune crashed, so that another Tuner continues them."""
    if isinstance(error.__cause__, OutOfMemoryError):
        callback.memory_ran_out(str(error))
    else:
        record.interrupt_running()  # first: if the record cannot be written, the study does not go on
        show_event(f"Ray Tune crashed ({main_sentence(str(error))}); the study continues")
