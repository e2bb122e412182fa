"""Exports the best model of a study of a training of one's own: what was saved in its best epoch, or by its program."""

from pathlib import Path

import torch

from search.outputs.best_model import saved_files
from search.outputs.confirmation_text import describe_estimate, describe_stale
from search.record.confirmation import BestTraining, Confirmation
from search.record.file_names import CONFIRM, MODEL
from search.record.ranking import best_trial, epochs_run
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.terminal import counted, format_metric
from training.model.custom_model import save_custom_model
from training.model.model_metadata import CustomModelMetadata
from training.model.saved_objects import Objects
from training.saved_values import from_saved


def export_custom_model(record: StudyRecord) -> Path | None:
    """Write `model/`: what was saved in the best training of the confirmed winner, or else of the best trial.

    No code of the user is run.

    Returns:
        The folder; None if nothing was saved after the best epoch, or by the program, and then an older `model/` stays
        as it is.

    Raises:
        ValueError: What was saved is damaged, or cannot be written without running code when it is read.
        OSError: The folder cannot be written.
    """
    confirmation = record.metadata.confirmation
    if confirmation and confirmation.best and not describe_stale(record, confirmation):
        return _export_confirmed(record, confirmation, confirmation.best)
    best = best_trial(record.trials)
    saved = saved_files(record, best) if best else None
    if best is None or saved is None:
        return None
    return _save(record, saved, _metadata(record, best, best.number, _selection(record, best)))


def _export_confirmed(record: StudyRecord, confirmation: Confirmation, best: BestTraining) -> Path | None:
    trainings = StudyRecord.open(record.folder / CONFIRM)
    trainings.close()  # the whole record is in memory
    training = next((trial for trial in trainings.trials if trial.number == best.training), None)
    if training is None or training.seed != best.seed:
        raise ValueError(f"the best training of the winner is not in {trainings.folder}")
    saved = saved_files(trainings, training)
    if saved is None:
        return None
    confirmed, metric = confirmation.confirmed, record.metric
    expected = confirmed.metric
    selection = (
        f"The configuration is trial {confirmed.trial} of study {record.folder.name}, confirmed from "
        f"{len(confirmed.seeds)} new seeds: their mean of {metric} is {format_metric(expected.mean)} "
        f"({describe_estimate(expected)}). {_describe_best(record, best.epoch)} of the "
        f"training with seed {best.seed}, the best of all trainings of this configuration; so its "
        f"{metric} is optimistic.{_describe_files(record, training)}"
    )
    return _save(record, saved, _metadata(record, training, confirmed.trial, selection))


def _save(record: StudyRecord, saved: Path, metadata: CustomModelMetadata) -> Path:
    folder = record.folder / MODEL
    if saved.is_dir():
        save_custom_model(folder, metadata, files=saved)
    else:
        save_custom_model(folder, metadata, _read(saved))
    return folder


def _read(file: Path) -> Objects:
    """What a training function saved, by name."""
    try:
        # weights_only: a checkpoint from somebody else runs no code
        state = torch.load(file, map_location="cpu", weights_only=True)
        return {**from_saved(state["states"]), **from_saved(state["values"])}
    except Exception as error:  # whatever the damage does to torch
        raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None


def _metadata(record: StudyRecord, trained: TrialRecord, number: int, selection: str) -> CustomModelMetadata:
    """The metadata of the model of a training; `number` is that of its configuration in the study."""
    metrics, metadata = trained.best_epoch, record.metadata
    assert metrics is not None, "a training whose best epoch was saved has one"
    task = metadata.task
    return CustomModelMetadata(
        **task.exported_as,
        code_sha256=metadata.code,
        study=record.folder.name,
        trial=number,
        hyperparameters=record.space.add_fixed(trained.hyperparameters),
        seed=trained.seed,
        epoch=metrics.epoch,
        saved_epoch=None if task.saves_epochs else len(trained.epochs),
        metric=record.metric,
        mode=record.mode,
        metrics=metrics.values,
        selection=selection,
    )


def _selection(record: StudyRecord, best: TrialRecord) -> str:
    extreme = "lowest" if record.mode == "min" else "highest"
    assert best.best_epoch is not None, "the best trial has valid metrics"
    tested = [name for name in record.metadata.task.test_metrics if name != record.metric]
    nothing = f" Metrics of test data ({', '.join(tested)}) chose nothing." if tested else ""
    return (
        f"{_describe_best(record, best.best_epoch.epoch)} of trial {best.number} of study "
        f"{record.folder.name}, with the {extreme} {record.metric} of {counted(epochs_run(record.trials), 'epoch')} in "
        f"{counted(len(record.trials), 'trial')}. This value is optimistic, because it is the best of many.{nothing}"
        f"{_describe_files(record, best)}"
    )


def _describe_best(record: StudyRecord, epoch: int) -> str:
    """Name the best epoch, which is the model only where it was saved."""
    return f"{'The model' if record.metadata.task.saves_epochs else 'The best epoch'} is epoch {epoch}"


def _describe_files(record: StudyRecord, trained: TrialRecord) -> str:
    """Describe of which epoch the files of a program are; empty where what was saved belongs to the best epoch."""
    if record.metadata.task.saves_epochs:
        return ""
    return (
        f" The model is what the program left in its checkpoint folder after its last recorded epoch, "
        f"{len(trained.epochs)}; only the program knows of which epoch it is."
    )
