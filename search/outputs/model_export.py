"""Exports the best model of a study: a folder that classifies images without the study."""

from dataclasses import fields, replace
from pathlib import Path

from search.outputs.confirmation_text import describe_stale
from search.outputs.custom_model_export import export_custom_model
from search.outputs.summary import training_command
from search.record.confirmation import Confirmation, Final
from search.record.file_names import CONFIRM, FINAL_WEIGHTS, MODEL
from search.record.ranking import best_trial, epochs_run
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.checkpoint import best_file, read_metrics, read_weights
from training.config import NETWORKS, TrialConfig, is_passed_function
from training.config_fields import plain_fields
from training.console.terminal import counted
from training.metrics import EpochMetrics
from training.model.model_folder import model_code, save_model
from training.model.model_metadata import CODE, DARK_BACKGROUND, ModelMetadata
from training.networks.networks import network_checksum
from training.program_files import checksum


def export_model(record: StudyRecord) -> Path | None:
    """Write `model/`: the confirmed winner, trained on all images, or else the best epoch of the best trial.

    The images are not needed; a network from a file is imported, but no training function, and no program is run.

    Returns:
        The folder; None if the weights are missing, and then an older `model/` stays as it is.

    Raises:
        ValueError: The weights are damaged or were not measured, or the network's code has changed.
        OSError: The folder cannot be written.
    """
    if record.metadata.dataset is None:
        return export_custom_model(record)
    confirmation = record.metadata.confirmation
    if confirmation and confirmation.final and not describe_stale(record, confirmation):
        return _export_confirmed(record, confirmation, confirmation.final)
    best = best_trial(record.trials)
    metrics = best.best_epoch if best else None
    if best is None or metrics is None:
        return None
    file = best_file(record.checkpoints.file(best.number), metrics.epoch)
    if file is None:
        return None
    if read_metrics(file) != metrics:
        raise ValueError(f"{file.name} does not hold the weights of the epoch that was measured")
    return _save(record, file, _metadata(record, best, metrics))


def _export_confirmed(record: StudyRecord, confirmation: Confirmation, final: Final) -> Path | None:
    file = record.folder / CONFIRM / FINAL_WEIGHTS
    if not file.is_file():
        return None
    (trial,) = (trial for trial in record.trials if trial.number == final.trial)
    metrics = trial.best_epoch
    assert metrics is not None, "a trial that was confirmed has metrics"
    metadata = _metadata(record, trial, metrics)
    metadata = replace(
        metadata,
        training=metadata.training | {"seed": final.seed},
        training_images=final.training_images,
        validation_images=0,
        epoch=final.epochs,
        selection=(
            f"The configuration is trial {final.trial} of study {record.folder.name}, confirmed from "
            f"{len(confirmation.confirmed.seeds)} new seeds. The model was then trained on all training images, "
            "validation images included. The test images were used once, after that."
        ),
        command=None,
        val_accuracy=None,
        val_loss=None,
        test_accuracy=final.test_accuracy,
        test_loss=final.test_loss,
    )
    return _save(record, file, metadata)


def _save(record: StudyRecord, weights: Path, metadata: ModelMetadata) -> Path:
    folder, network = record.folder / MODEL, record.metadata.task.network
    assert network is not None, "a model that is exported classifies images"
    save_model(folder, read_weights(weights), metadata, model_code(network))
    return folder


def _metadata(record: StudyRecord, best: TrialRecord, metrics: EpochMetrics) -> ModelMetadata:
    config, dataset = record.metadata.trial_config(best), record.metadata.images
    values = plain_fields(config)
    network = str(values.pop("network"))
    shared = {field.name for field in fields(TrialConfig)}
    has_code = network not in NETWORKS and not is_passed_function(network)
    current = network_checksum(network)
    if current != record.metadata.code.get(network, current):
        raise ValueError(f"the code of network {network} has changed since the study was run")
    return ModelMetadata(
        network=f"{CODE}:{network.rpartition(':')[2]}" if has_code else network,
        network_hyperparameters={name: value for name, value in values.items() if name not in shared},
        network_sha256=checksum(model_code(network)) if has_code else None,
        image_shape=dataset.image_shape,
        background="dark" if dataset.name in DARK_BACKGROUND else "unknown",
        classes=dataset.classes,
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        training_images=dataset.training_images,
        validation_images=dataset.validation_images,
        test_images=dataset.test_images,
        training={name: value for name, value in values.items() if name in shared},
        trial=best.number,
        epoch=metrics.epoch,
        selection=_selection(record, best, metrics),
        command=training_command(record, best),
        val_accuracy=metrics.val_accuracy,
        val_loss=metrics.val_loss,
        test_accuracy=metrics.test_accuracy,
        test_loss=metrics.test_loss,
    )


def _selection(record: StudyRecord, best: TrialRecord, metrics: EpochMetrics) -> str:
    extreme = "lowest" if record.mode == "min" else "highest"
    selection = (
        f"The model is epoch {metrics.epoch} of trial {best.number} of study {record.folder.name}, with the {extreme} "
        f"{record.metric} of {counted(epochs_run(record.trials), 'epoch')} in {counted(len(record.trials), 'trial')}."
    )
    if record.metric.startswith("test_"):
        return f"{selection} The test images chose it, so the test figures are optimistic."
    return (
        f"{selection} The test images chose nothing. The validation figures are optimistic, because they are the best "
        "of many."
    )
