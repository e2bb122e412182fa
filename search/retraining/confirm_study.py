"""Confirms a study: trains its best configurations again from fresh seeds, and the winner on all training images."""

import itertools
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from search.algorithms.stopping import StudyStopper
from search.engine.study import Repetition, Study, prepare_study
from search.engine.study_run import EXIT_NOTHING_COMPLETED, StudyRun
from search.outputs.confirmation_text import show_confirmation
from search.outputs.files import StudyFiles
from search.outputs.report import images_of, write_outputs
from search.record import folder as study_folder
from search.record.confirmation import (
    FEWEST_SEEDS,
    Configuration,
    Confirmation,
    Final,
    Plan,
    measure,
    measure_again,
    rank,
)
from search.record.database import RecordUnwritableError
from search.record.file_names import CONFIRM, REPORT, STUDY_DB
from search.record.folder import StudyFolder
from search.record.lookup import stored_settings
from search.record.postgresql import open_server
from search.record.ranking import best_configurations, ended_trials
from search.record.study_record import StudyRecord
from search.retraining.final_training import keep_weights_only, train_final
from search.settings import ConfirmSettings, StudySettings
from search.space.search_space import Point
from training.config import MAX_SEED, DataConfig
from training.console.terminal import short_path
from training.images.image_data import ImageData, load_data
from training.loop import TrainingDivergedError
from training.metrics import EpochMetrics


@dataclass(frozen=True)
class ConfirmationRun:
    """A confirmation that is ready to run: the study is locked, and nothing speaks against it."""

    parent: StudyRecord
    """The study that is confirmed."""
    settings: StudySettings
    """Its settings."""
    lock: StudyFolder
    study: Study | None
    """The trainings from fresh seeds; None if all is done."""


def fresh_seeds(record: StudyRecord, number: int) -> list[int]:
    """Seeds that no trial of a study has, counted on from the largest that one has."""
    used = {trial.seed for trial in record.trials}
    after = max(used, default=-1) + 1
    unused = (seed for seed in itertools.chain(range(after, MAX_SEED + 1), range(after)) if seed not in used)
    return [*itertools.islice(unused, number)]


def prepare_confirmation(folder: Path, options: ConfirmSettings, began: float) -> ConfirmationRun:
    """Check the study, lock it, and make or open the record of its confirmation.

    Args:
        folder: Of the study.
        options: What is None in them is as in the study.
        began: When the command began, by `time.monotonic`.

    Raises:
        ValueError: There is nothing to confirm, the study runs or has gone on, or the images are not those of it.
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
    begun = folder / CONFIRM
    earlier = StudyRecord.open(begun) if (begun / STUDY_DB).exists() else None
    if earlier:
        _check_same(earlier, plan, begun)
    folder.mkdir(parents=True, exist_ok=True)  # its record may be elsewhere
    lock = StudyFolder(folder)
    parent = StudyRecord.open(folder, server)  # again: another process may have gone on with it until now
    if earlier and earlier.metadata.final:
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
    """Run what is left of a confirmation, write its result into the study and print it.

    Args:
        confirmation: From `prepare_confirmation`.
        command: The command line that goes on with it.

    Returns:
        The exit status: 0 with a result, 1 without, 128 and the signal after SIGINT or SIGTERM.
    """
    parent, study = confirmation.parent, confirmation.study
    with closing(confirmation.lock), closing(parent):
        if study is None:
            return _publish(confirmation, StudyRecord.open(parent.folder / CONFIRM), None)
        with StudyRun(study) as run:
            with run.trials() as run_until:
                run_until(_plan_of(study.record).choosing)
                if _enqueue_winner(study.record, parent):
                    run_until(_plan_of(study.record).all_trainings)
            try:
                is_finished = _finish(study, parent, run.stopper)
            except (TrainingDivergedError, ValueError) as error:
                print(f"\nThere is no result: {error}.")
                return run.stopper.exit_status(EXIT_NOTHING_COMPLETED)
            if not is_finished:
                print(f"\n{run.stopper.reason} To go on: {command}", flush=True)
                return run.stopper.exit_status(EXIT_NOTHING_COMPLETED)
            return run.stopper.exit_status(_publish(confirmation, study.record, study.data))
        return run.stopper.exit_status(EXIT_NOTHING_COMPLETED)  # the record could not be written


def _plan(record: StudyRecord, options: ConfirmSettings) -> Plan:
    name = record.folder.name
    if record.metadata.plan:
        study = record.metadata.plan.study
        raise ValueError(f"{record.folder} is what confirms study {study}, which is the study to name")
    if not record.metadata.images.validation_images:
        raise ValueError(
            f"study {name} has no validation images (val_fraction 0): a winner chosen by the test images cannot be "
            "confirmed on them without bias; run the study with a val_fraction above 0"
        )
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
        final_seed=final_seed,
    )


def _check_same(begun: StudyRecord, plan: Plan, folder: Path) -> None:
    """Refuse to go on with a confirmation of other configurations, or of another size."""
    before = begun.metadata.plan
    if before is None:
        raise ValueError(f"{folder} is in the way: it holds a study that confirms nothing")
    if (before.top, len(before.seeds)) != (plan.top, len(plan.seeds)):
        raise ValueError(
            f"study {plan.study} is confirmed with --top {before.top} --seeds {len(before.seeds)}, and to change that "
            f"after a look at the numbers would bias them; to begin anew remove {folder}"
        )
    if before.trials != plan.trials:
        raise ValueError(
            f"study {plan.study} has gone on since: its best trials are {_listed(plan.trials)} now, and not "
            f"{_listed(before.trials)}; to confirm these remove {folder}"
        )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _settings(
    study: StudySettings, folder: Path, plan: Plan, options: ConfirmSettings, *, has_begun: bool
) -> StudySettings:
    """The settings of the trainings: those of the study, but that no scheduler stops any."""
    if has_begun:
        settings = stored_settings(folder / CONFIRM)
    else:
        settings = replace(
            study,
            num_samples=plan.all_trainings,
            scheduler="none",
            baseline=False,
            name=CONFIRM,
            results_dir=folder,
            resume=None,
        )
    return replace(
        settings,
        data_dir=study.data_dir,
        address=options.address,
        max_concurrent=options.max_concurrent or settings.max_concurrent,
        time_budget=options.time_budget,
        quiet=options.quiet,
        dashboard=options.dashboard,
    )


def _enqueue_winner(record: StudyRecord, parent: StudyRecord) -> bool:
    """Enqueue the trainings that measure the winner, when those that choose it have ended.

    Returns:
        Whether they are enqueued, now or by an earlier process.
    """
    if record.metadata.winner is not None:
        return True
    winner, *_ = _ranked(record, parent)
    if len(ended_trials(record.trials)) < _plan_of(record).choosing or not winner.is_measured:
        return False

    def enqueue() -> None:
        record.update(winner=winner.trial)
        for seed in _plan_of(record).winner_seeds:
            record.enqueue(winner.hyperparameters, seed)

    record.change(enqueue)
    return True


def _finish(study: Study, parent: StudyRecord, stopper: StudyStopper) -> bool:
    """Have a winner that was measured, and trained on all images; False if it ended early.

    Raises:
        TrainingDivergedError: A loss of the training on all images is not finite.
        ValueError: Too few trainings completed, or the network cannot be built any more.
    """
    record = study.record
    if len(ended_trials(record.trials)) < _plan_of(record).choosing:
        return False
    winner, *_ = _ranked(record, parent)
    enough = f"completed its training from {FEWEST_SEEDS} seeds or more"
    errors = "; ".join(dict.fromkeys(trial.failure.error for trial in record.trials if trial.failure))
    if not winner.is_measured:
        raise ValueError(f"no configuration {enough} ({errors})")
    if study.trials_to_run > 0:
        return False
    if not _confirmed(record, winner).is_measured:
        raise ValueError(f"the winner, trial {winner.trial}, has not {enough}, of those that chose nothing ({errors})")
    if record.metadata.final is None:
        final = _train_winner(study, parent, winner, stopper)
        if final is None:
            return False
        record.update(final=final)
    return True


def _train_winner(study: Study, parent: StudyRecord, winner: Configuration, stopper: StudyStopper) -> Final | None:
    """Train the winner on the training and the validation images, in this process; None if it ended early."""
    settings, plan = study.settings, _plan_of(study.record)
    whole = {field.name: getattr(settings, field.name) for field in fields(DataConfig)} | {"val_fraction": 0.0}
    data, _ = load_data(DataConfig(**whole), settings.seed)
    print(
        f"\nThe winner is trial {winner.trial}; it is trained on all {len(data.train):,} training images for "
        f"{winner.epochs} epochs, from seed {plan.final_seed}.",
        flush=True,
    )
    torch.set_num_threads(settings.cpus_per_trial)
    (trial,) = (trial for trial in parent.trials if trial.number == winner.trial)
    config = replace(parent.metadata.trial_config(trial), seed=plan.final_seed)
    data = data.to("cuda" if settings.gpus_per_trial else "cpu")
    return train_final(study.record.folder, winner.trial, config, data, stopper, epochs=winner.epochs)


def _ranked(record: StudyRecord, parent: StudyRecord) -> list[Configuration]:
    """What each configuration measured in the trainings that choose, the winner first."""
    plan = _plan_of(record)
    by_number = {trial.number: trial for trial in parent.trials}
    configurations = []
    for number, value in zip(plan.trials, plan.values, strict=True):
        hyperparameters = by_number[number].hyperparameters
        trainings = _trainings(record, hyperparameters, plan.seeds)
        configurations.append(measure(number, hyperparameters, value, trainings, record.metric))
    return rank(configurations)


def _confirmed(record: StudyRecord, winner: Configuration) -> Configuration:
    """What the winner measured in the trainings that chose nothing."""
    return measure_again(winner, _trainings(record, winner.hyperparameters, _plan_of(record).winner_seeds))


def _trainings(record: StudyRecord, hyperparameters: Point, seeds: list[int]) -> dict[int, list[EpochMetrics] | None]:
    """The epochs of one configuration's trainings, by seed; None for a training that did not complete."""
    return {
        trial.seed: trial.epochs if trial.status == "completed" else None
        for trial in record.trials
        if trial.hyperparameters == hyperparameters and trial.seed in seeds
    }


def _plan_of(record: StudyRecord) -> Plan:
    assert record.metadata.plan is not None, "what confirms a study has one"
    return record.metadata.plan


def _publish(run: ConfirmationRun, record: StudyRecord, data: ImageData | None) -> int:
    """Write the result into the study's record, files and report, and print it; as often as one likes."""
    parent, final = run.parent, record.metadata.final
    assert final is not None, "the winner was trained on all images"
    keep_weights_only(record.folder)
    ranked = _ranked(record, parent)
    result = Confirmation(configurations=ranked, confirmed=_confirmed(record, ranked[0]), final=final)
    try:
        parent.update(confirmation=result)
    except RecordUnwritableError as error:
        print(f"\nStopped: {error}. The same command goes on.")
        return EXIT_NOTHING_COMPLETED
    for changed in (parent, record):
        StudyFiles(changed).refresh(force=True)
    write_outputs(run.settings, parent, images_of(run.settings, parent) if data is None else data)
    show_confirmation(parent)
    print(f"Report: {short_path(parent.folder / REPORT)}")
    return 0
