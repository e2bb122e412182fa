"""Confirms a study: trains its best configurations again from new seeds, and then the winner on all training images.

A training function or a program brings its own data, so its winner is not trained on more of them.
"""

import itertools
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

from search.algorithms.stopping import StudyStopper
from search.engine.runners import runner_of
from search.engine.study import Repetition, Study, prepare_study
from search.engine.study_run import EXIT_NOTHING_COMPLETED, StudyRun
from search.outputs.best_model import describe_use
from search.outputs.confirmation_text import describe_epochs, show_confirmation
from search.outputs.files import StudyFiles
from search.outputs.report import images_of, write_outputs
from search.outputs.summary import show_early_end
from search.record import folder as study_folder
from search.record.configuration import Configuration, largest_value, measure, measure_again, rank
from search.record.confirmation import BestTraining, Confirmation, Final, Plan
from search.record.database import RecordUnwritableError
from search.record.estimate import FEWEST_SEEDS
from search.record.file_names import CONFIRM, REPORT, STUDY_DB
from search.record.folder import StudyFolder
from search.record.lookup import stored_settings
from search.record.postgresql import open_server
from search.record.ranking import best_configurations, best_trial, ended_trials
from search.record.study_record import StudyRecord
from search.record.trial import Metrics
from search.retraining.final_training import discard_training_state, train_final
from search.retraining.settings import ConfirmSettings
from search.settings import StudySettings
from search.space.search_space import Point
from search.task.custom_metrics import metric_value
from training.config import MAX_SEED, DataConfig
from training.console.terminal import short_path
from training.images.image_data import ImageData, load_data
from training.loop import TrainingDivergedError
from training.threads import use_threads


@dataclass(frozen=True)
class ConfirmationRun:
    """A confirmation that is ready to run: everything is checked, and the study is locked."""

    parent: StudyRecord
    """The study that is confirmed."""
    settings: StudySettings
    """Settings of the study that is confirmed."""
    lock: StudyFolder
    study: Study | None
    """The study of the trainings from new seeds; None if all of them have ended."""


def fresh_seeds(record: StudyRecord, number: int) -> list[int]:
    """Choose seeds that no trial of a study has, from the largest used seed upwards."""
    used = {trial.seed for trial in record.trials}
    after = max(used, default=-1) + 1
    unused = (seed for seed in itertools.chain(range(after, MAX_SEED + 1), range(after)) if seed not in used)
    return [*itertools.islice(unused, number)]


def prepare_confirmation(folder: Path, options: ConfirmSettings, began: float) -> ConfirmationRun:
    """Check the study, lock it, and make or open the record of its confirmation.

    Args:
        folder: The folder of the study.
        options: Options of the confirmation; an option that is None is as in the study.
        began: When the command began, by `time.monotonic`.

    Raises:
        ValueError: There is nothing to confirm, the study runs or has gone on, or its images have changed.
        OSError: A folder cannot be read or written.
    """
    server = open_server(options.storage) if options.storage is not None else None
    if server:
        server.lock(folder.name)
    study_folder.check_free(folder)
    settings = stored_settings(folder, options.storage)
    if options.data_dir is not None:
        settings = replace(settings, data_dir=options.data_dir)
    plan = _plan(StudyRecord.open(folder, server), options)
    confirm_folder = folder / CONFIRM
    earlier = StudyRecord.open(confirm_folder) if (confirm_folder / STUDY_DB).exists() else None
    if earlier:
        _check_same(earlier, plan)
    folder.mkdir(parents=True, exist_ok=True)  # it may be missing, because its record is on a server
    lock = StudyFolder(folder)
    parent = StudyRecord.open(folder, server)  # again: until the lock, another process may have changed it
    parent.use_store()
    if earlier and _is_over(earlier, parent):
        return ConfirmationRun(parent, settings, lock, None)
    ended = len(ended_trials(earlier.trials)) if earlier else 0
    study = prepare_study(
        _settings(settings, folder, plan, options, has_begun=earlier is not None),
        began,
        runs_now=ended < plan.all_trainings,
        repetition=Repetition(parent, plan),
    )
    return ConfirmationRun(parent, settings, lock, study)


def confirm(confirmation: ConfirmationRun, command: str) -> int:
    """Run the rest of a confirmation, write its result into the study and print it.

    Args:
        confirmation: From `prepare_confirmation`.
        command: The command line that resumes the confirmation.

    Returns:
        The exit status: 0 with a result, 1 without, 128 and the signal after SIGINT or SIGTERM.
    """
    parent, study = confirmation.parent, confirmation.study
    with closing(confirmation.lock), closing(parent):
        if study is None:
            with closing(StudyRecord.open(parent.folder / CONFIRM)) as record:
                record.use_store()
                record.fetch_from_store()
                return _publish(confirmation, record, None)
        with StudyRun(study, command) as run:
            with run.trials() as run_until:
                run_until(_plan_of(study.record).choosing_trainings)
                if _enqueue_winner(study.record, parent):
                    run_until(_plan_of(study.record).all_trainings)
            try:
                is_finished = _finish(study, parent, run.stopper)
            except (TrainingDivergedError, ValueError) as error:
                print(f"\nThere is no result: {error}.")
                return run.stopper.exit_status(EXIT_NOTHING_COMPLETED)
            if not is_finished:
                stopper = run.stopper
                show_early_end(stopper.reason, study.record, command, has_same_error=stopper.has_same_error)
                return run.stopper.exit_status(EXIT_NOTHING_COMPLETED)
            return run.stopper.exit_status(_publish(confirmation, study.record, study.data))
        return run.stopper.exit_status(EXIT_NOTHING_COMPLETED)  # the record could not be written


def _plan(record: StudyRecord, options: ConfirmSettings) -> Plan:
    name, task = record.folder.name, record.metadata.task
    task.check_can_train()
    if record.metadata.plan:
        study = record.metadata.plan.study
        raise ValueError(f"{record.folder} is the confirmation of study {study}: name {study} instead")
    if record.metric in task.test_metrics:
        raise ValueError(
            f"study {name} was searched by {record.metric}: the test data would choose the winner, and could not "
            "confirm it without bias; search by a metric of validation data, with images by a val_fraction above 0"
        )
    if "seed" in record.space.order:
        raise ValueError(
            f"study {name} has seed among its hyperparameters, so a training from a new seed would be another "
            "configuration; a study without it can be confirmed"
        )
    task.check_takes_new_seeds()
    chosen = best_configurations(record.trials, options.top)
    if not chosen:
        raise ValueError(f"study {name} has nothing to confirm: none of its trials has valid metrics")
    *seeds, final_seed = fresh_seeds(record, 2 * options.seeds + 1)
    return Plan(
        study=name,
        top=options.top,
        trials=[trial.number for trial in chosen],
        values=[trial.best_value for trial in chosen],
        seeds=seeds[: options.seeds],
        winner_seeds=seeds[options.seeds :],
        final_seed=final_seed if task.trains_on_all_data else None,
        takes_seed=runner_of(task).takes_seed(record.space.order),
    )


def _is_over(record: StudyRecord, parent: StudyRecord) -> bool:
    """Whether a confirmation has a result, so that nothing is left to train."""
    plan = _plan_of(record)
    if plan.final_seed is not None:
        return record.metadata.final is not None
    if len(ended_trials(record.trials)) < plan.all_trainings:
        return False
    winner, *_ = _ranked(record, parent)
    return winner.is_measured and _confirmed(record, winner).is_measured


def _check_same(earlier: StudyRecord, plan: Plan) -> None:
    """Refuse to resume a confirmation of other configurations, or of another size."""
    before, folder = earlier.metadata.plan, earlier.folder
    if before is None:
        raise ValueError(f"{folder} holds a study that is not a confirmation: remove it or rename it")
    if (before.top, len(before.seeds)) != (plan.top, len(plan.seeds)):
        raise ValueError(
            f"study {plan.study} is confirmed with --top {before.top} --seeds {len(before.seeds)}; a change "
            f"after you have seen numbers would bias them; to begin again, remove {folder}"
        )
    if before.trials != plan.trials:
        now, then = (", ".join(map(str, trials)) for trials in (plan.trials, before.trials))
        raise ValueError(
            f"study {plan.study} has continued since its confirmation began: its best trials are now {now} and not "
            f"{then}; to confirm the new ones, remove {folder}"
        )


def _settings(
    study: StudySettings, folder: Path, plan: Plan, options: ConfirmSettings, *, has_begun: bool
) -> StudySettings:
    """Build the settings of the trainings: those of the study, but without a scheduler."""
    if has_begun:
        settings = stored_settings(folder / CONFIRM)
    else:
        settings = replace(study, name=CONFIRM, results_dir=folder, resume=None, scheduler="none", baseline=False)
    return replace(
        settings,
        num_samples=plan.all_trainings,
        data_dir=study.data_dir,
        address=options.address,
        max_concurrent=options.max_concurrent or settings.max_concurrent,
        time_budget=options.time_budget,
        quiet=options.quiet,
        dashboard=options.dashboard,
    )


def _enqueue_winner(record: StudyRecord, parent: StudyRecord) -> bool:
    """Enqueue the trainings that measure the winner, after the trainings that choose it have ended.

    Returns:
        Whether the trainings are enqueued, now or by an earlier process.
    """
    if record.metadata.winner is not None:
        return True
    winner, *_ = _ranked(record, parent)
    if len(ended_trials(record.trials)) < _plan_of(record).choosing_trainings or not winner.is_measured:
        return False

    def enqueue() -> None:
        record.update(winner=winner.trial)
        for seed in _plan_of(record).winner_seeds:
            record.enqueue(winner.hyperparameters, seed)

    record.change(enqueue)
    return True


def _finish(study: Study, parent: StudyRecord, stopper: StudyStopper) -> bool:
    """Check that the winner was measured, and train it on all images; returns False if this ended early.

    Raises:
        TrainingDivergedError: A loss of the training on all images is not finite.
        ValueError: Too few trainings completed, or the network cannot be built any more.
    """
    record = study.record
    if len(ended_trials(record.trials)) < _plan_of(record).choosing_trainings:
        return False
    winner, *_ = _ranked(record, parent)
    enough = f"completed its training from at least {FEWEST_SEEDS}"
    errors = "; ".join(dict.fromkeys(trial.failure.error for trial in record.trials if trial.failure))
    if not winner.is_measured:
        raise ValueError(f"no configuration {enough} seeds ({errors})")
    if study.trials_to_run > 0:
        return False
    if not _confirmed(record, winner).is_measured:
        raise ValueError(f"the winner, trial {winner.trial}, has not {enough} of the further seeds ({errors})")
    if _plan_of(record).final_seed is not None and record.metadata.final is None:
        final = _train_winner(study, parent, winner, stopper)
        if final is None:
            return False
        record.update(final=final)
    return True


def _train_winner(study: Study, parent: StudyRecord, winner: Configuration, stopper: StudyStopper) -> Final | None:
    """Train the winner on the training and the validation images, in this process; None if it ended early."""
    settings, seed = study.settings, _plan_of(study.record).final_seed
    assert seed is not None, "the winner is trained on all images"
    values = {field.name: getattr(settings, field.name) for field in fields(DataConfig)} | {"val_fraction": 0.0}
    data, _ = load_data(DataConfig(**values), settings.seed)
    print(
        f"\nThe winner is trial {winner.trial}. It is now trained on all {len(data.train):,} training images for "
        f"{describe_epochs(winner.epochs)} with seed {seed}.",
        flush=True,
    )
    use_threads(settings.cpus_per_trial)
    (trial,) = (trial for trial in parent.trials if trial.number == winner.trial)
    config = replace(parent.metadata.trial_config(trial), seed=seed)
    data = data.to("cuda" if settings.gpus_per_trial else "cpu")
    return train_final(study.record.folder, winner.trial, config, data, stopper, epochs=winner.epochs)


def _ranked(record: StudyRecord, parent: StudyRecord) -> list[Configuration]:
    """Measure each configuration by the trainings that choose the winner; the winner comes first."""
    plan = _plan_of(record)
    by_number = {trial.number: trial for trial in parent.trials}
    dataset, configurations, largest = record.metadata.dataset, [], _largest_values(record, parent)
    for number, value in zip(plan.trials, plan.values, strict=True):
        hyperparameters = by_number[number].hyperparameters
        trainings = _trainings(record, hyperparameters, plan.seeds)
        one = measure(number, hyperparameters, value, trainings, objective=record.objective, task=record.metadata.task)
        one = replace(one, largest_values=largest)
        if dataset:
            one = replace(one, validation_images=dataset.validation_images, test_images=dataset.test_images)
        configurations.append(one)
    return rank(configurations)


def _largest_values(record: StudyRecord, parent: StudyRecord) -> dict[str, float]:
    """The largest possible value of each metric that is a part of a whole, by all trials; none are needed for images.

    Each metric has the values of all epochs in the study and in its confirmation.
    """
    task = record.metadata.task
    if task.network is not None:
        return {}
    epochs = [metrics for trial in [*parent.trials, *record.trials] for metrics in trial.epochs]
    bounds = {}
    for name in (record.metric, *task.test_metrics):
        values = [value for metrics in epochs if (value := metric_value(metrics, name)) is not None]
        largest = largest_value(name, values)
        if largest is not None:
            bounds[name] = largest
    return bounds


def _confirmed(record: StudyRecord, winner: Configuration) -> Configuration:
    """Measure the winner by the trainings that did not choose it."""
    trainings = _trainings(record, winner.hyperparameters, _plan_of(record).winner_seeds)
    return measure_again(winner, trainings, objective=record.objective, task=record.metadata.task)


def _best_training(record: StudyRecord, winner: Configuration) -> BestTraining:
    """The best of all trainings of the winner, whose checkpoint is kept."""
    best = best_trial(trial for trial in record.trials if trial.hyperparameters == winner.hyperparameters)
    assert best is not None, "the winner was measured"
    assert best.best_epoch is not None, "the best trial has valid metrics"
    return BestTraining(training=best.number, seed=best.seed, epoch=best.best_epoch.epoch, value=best.best_value)


def _trainings(record: StudyRecord, hyperparameters: Point, seeds: list[int]) -> dict[int, list[Metrics] | None]:
    """The epochs of one configuration's trainings, by seed; None for a training that did not complete."""
    return {
        trial.seed: trial.epochs if trial.status == "completed" else None
        for trial in record.trials
        if trial.hyperparameters == hyperparameters and trial.seed in seeds
    }


def _plan_of(record: StudyRecord) -> Plan:
    assert record.metadata.plan is not None, "the record of a confirmation has a plan"
    return record.metadata.plan


def _publish(run: ConfirmationRun, record: StudyRecord, data: ImageData | None) -> int:
    """Write the result into the study's record, files and report, and print it; this can be repeated."""
    parent, final, ranked = run.parent, record.metadata.final, _ranked(record, run.parent)
    if final:
        discard_training_state(record.folder)
    result = Confirmation(
        configurations=ranked,
        confirmed=_confirmed(record, ranked[0]),
        final=final,
        best=None if final else _best_training(record, ranked[0]),
        takes_seed=_plan_of(record).takes_seed,
    )
    try:
        parent.update(confirmation=result)
    except RecordUnwritableError as error:
        print(f"\nStopped: {error}. To continue, run the same command again.")
        return EXIT_NOTHING_COMPLETED
    for changed in (parent, record):
        StudyFiles(changed).refresh(force=True)
    parent.fetch_from_store()  # the best model of the search, if the study was killed before its end
    write_outputs(parent, images_of(run.settings, parent) if data is None else data)
    show_confirmation(parent)
    if line := describe_use(parent):
        print(line)
    if (parent.folder / REPORT).is_file():
        print(f"Report: {short_path(parent.folder / REPORT)}")
    return 0
