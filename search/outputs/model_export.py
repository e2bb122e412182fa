"""Ships the best model of a study: a folder that classifies images without the study."""

import shlex
from dataclasses import fields, replace
from pathlib import Path

from search.outputs.confirmation_text import describe_stale
from search.outputs.summary import training_command
from search.record.confirmation import Confirmation
from search.record.file_names import CONFIRM, FINAL_WEIGHTS, MODEL
from search.record.ranking import best_trial, epochs_run
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings
from training.checkpoint import Checkpoint, read_metrics, read_weights
from training.config import NETWORKS, TrialConfig
from training.metrics import EpochMetrics
from training.model.model_folder import save_model
from training.model.model_metadata import CODE, DARK_BACKGROUND, ModelMetadata
from training.networks.networks import network_checksum, network_file


def export_model(settings: StudySettings, record: StudyRecord) -> Path | None:
    """Write `model/`: the confirmed winner, trained on all images, or else the best epoch of the best trial.

    The images are not needed; a network from a file is imported.

    Returns:
        The folder, or None if the weights were not kept; then a folder that is there stays.

    Raises:
        ValueError: They are damaged, or not those that were measured, or the network's code has changed.
        OSError: It cannot be written.
    """
    confirmation = record.metadata.confirmation
    if confirmation and not describe_stale(record, confirmation):
        return _export_confirmed(settings, record, confirmation)
    best = best_trial(record.trials)
    metrics = best.best_epoch if best else None
    if best is None or metrics is None:
        return None
    file = next((file for file in _kept(record, best) if file.stem.endswith(f"-epoch-{metrics.epoch:04}")), None)
    if file is None:
        return None
    if read_metrics(file) != metrics:
        raise ValueError(f"{file.name} is not the epoch that was measured")
    return _save(record, file, _metadata(settings, record, best, metrics))


def _export_confirmed(settings: StudySettings, record: StudyRecord, confirmation: Confirmation) -> Path | None:
    final = confirmation.final
    file = record.folder / CONFIRM / FINAL_WEIGHTS
    if not file.is_file():
        return None
    (trial,) = (trial for trial in record.trials if trial.number == final.trial)
    metrics = trial.best_epoch
    assert metrics is not None, "a trial that was confirmed has measured something"
    metadata = _metadata(settings, record, trial, metrics)
    metadata = replace(
        metadata,
        training=metadata.training | {"seed": final.seed},
        training_images=final.training_images,
        validation_images=0,
        epoch=final.epochs,
        selection=(
            f"It is trial {final.trial} of study {record.folder.name}, confirmed from "
            f"{len(confirmation.confirmed.seeds)} fresh seeds, and then trained on all training images, validation "
            "included. The test images were looked at once, after that."
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
    assert network is not None, "what is shipped classifies images"
    save_model(folder, read_weights(weights), metadata, network_file(network))
    return folder


def _kept(record: StudyRecord, trial: TrialRecord) -> list[Path]:
    return Checkpoint(record.checkpoint(trial)).best_files()


def _metadata(settings: StudySettings, record: StudyRecord, best: TrialRecord, metrics: EpochMetrics) -> ModelMetadata:
    config, dataset = record.metadata.trial_config(best), record.metadata.images
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    network = values.pop("network")
    shared = {field.name for field in fields(TrialConfig)}
    checksum = network_checksum(network)
    if checksum != record.metadata.code.get(network, checksum):
        raise ValueError(f"the code of network {network} has changed since the study was run")
    return ModelMetadata(
        network=network if network in NETWORKS else f"{CODE}:{network.rpartition(':')[2]}",
        network_hyperparameters={name: value for name, value in values.items() if name not in shared},
        network_sha256=checksum,
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
        command=_command(settings, record, best),
        val_accuracy=metrics.val_accuracy,
        val_loss=metrics.val_loss,
        test_accuracy=metrics.test_accuracy,
        test_loss=metrics.test_loss,
    )


def _command(settings: StudySettings, record: StudyRecord, best: TrialRecord) -> str:
    """What trains it again, from the default data folder: the card is passed on, and the study's folder is its own."""
    words = shlex.split(training_command(settings, record, best))
    return shlex.join(word for word in words if not word.startswith("--data-dir="))


def _selection(record: StudyRecord, best: TrialRecord, metrics: EpochMetrics) -> str:
    what = f"{'lowest' if record.mode == 'min' else 'highest'} {record.metric}"
    chosen = (
        f"It is epoch {metrics.epoch} of trial {best.number} of study {record.folder.name}, with the {what} "
        f"among {epochs_run(record.trials)} epochs of {len(record.trials)} trials."
    )
    if record.metric.startswith("test_"):
        return f"{chosen} The test images chose it, so the test figures are optimistic."
    return f"{chosen} The test images chose nothing; the validation figures, those of the best of many, are optimistic."
