"""Ships the best model of a study: a folder that classifies images without the study."""

import shlex
from dataclasses import fields, replace
from pathlib import Path

from search.outputs.confirmation_text import confirmation_of, stale_words
from search.outputs.summary import training_command
from search.record.confirmation import Confirmation
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.retraining.final_training import FILE_NAME as FINAL_FILE
from search.settings import StudySettings
from training.checkpoint import Checkpoint, read_metrics, read_weights
from training.config import NETWORKS, TrialConfig
from training.loop import EpochMetrics
from training.model.model_folder import DARK_BACKGROUND, FOLDER, NETWORK, ModelFacts, save_model
from training.networks.networks import network_checksum, network_file

_IMAGE_SHAPES = {"digits": [1, 8, 8], "fashion-mnist": [1, 28, 28], "mnist": [1, 28, 28], "kmnist": [1, 28, 28]}
"""Of studies from before they recorded it."""


def ship(settings: StudySettings, record: StudyRecord) -> Path | None:
    """Write `model/`: the confirmed winner, trained on all images, or else the best epoch of the best trial.

    The images are not needed; a network from a file is imported.

    Returns:
        The folder, or None if the weights were not kept; then a folder that is there stays.

    Raises:
        ValueError: They are damaged, or not those that were measured, or the network's code has changed.
        OSError: It cannot be written.
    """
    confirmation = confirmation_of(record)
    if confirmation and not stale_words(record, confirmation):
        return _ship_confirmed(settings, record, confirmation)
    best = record.best()
    metrics = record.best_epoch(best) if best else None
    if best is None or metrics is None:
        return None
    file = next((file for file in _kept(record, best) if file.stem.endswith(f"-epoch-{metrics.epoch:04}")), None)
    if file is None:
        return None
    if read_metrics(file) != metrics:
        raise ValueError(f"{file.name} is not the epoch that was measured")
    return _save(record, file, _facts(settings, record, best, metrics))


def _ship_confirmed(settings: StudySettings, record: StudyRecord, confirmation: Confirmation) -> Path | None:
    final = confirmation.final
    file = record.folder / "confirm" / FINAL_FILE
    if not file.is_file():
        return None
    (trial,) = (trial for trial in record.trials if trial.number == final.trial)
    metrics = record.best_epoch(trial)
    assert metrics is not None, "a trial that was confirmed has measured something"
    facts = _facts(settings, record, trial, metrics)
    facts = replace(
        facts,
        training=facts.training | {"seed": final.seed},
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
    return _save(record, file, facts)


def _save(record: StudyRecord, weights: Path, facts: ModelFacts) -> Path:
    folder, network = record.folder / FOLDER, record.subject.network
    assert network is not None, "what is shipped classifies images"
    save_model(folder, read_weights(weights), facts, network_file(network))
    return folder


def _kept(record: StudyRecord, trial: TrialRecord) -> list[Path]:
    return Checkpoint(record.checkpoint(trial)).best_files()


def _facts(settings: StudySettings, record: StudyRecord, best: TrialRecord, metrics: EpochMetrics) -> ModelFacts:
    config, dataset = record.config(best), record.facts["dataset"]
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    network = values.pop("network")
    shared = {field.name for field in fields(TrialConfig)}
    checksum = network_checksum(network)
    if checksum != record.facts.get("code", {}).get(network, checksum):
        raise ValueError(f"the code of network {network} has changed since the study was run")
    return ModelFacts(
        network=network if network in NETWORKS else f"{NETWORK}:{network.rpartition(':')[2]}",
        network_hyperparameters={name: value for name, value in values.items() if name not in shared},
        network_sha256=checksum,
        image_shape=dataset.get("image_shape") or _IMAGE_SHAPES.get(dataset["name"], []),
        background="dark" if dataset["name"] in DARK_BACKGROUND else "unknown",
        classes=dataset["classes"],
        dataset=dataset["name"],
        dataset_sha256=dataset["sha256"],
        training_images=dataset["training_images"],
        validation_images=dataset["validation_images"],
        test_images=dataset["test_images"],
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
        f"among {record.epochs_run()} epochs of {len(record.trials)} trials."
    )
    if record.metric.startswith("test_"):
        return f"{chosen} The test images chose it, so the test figures are optimistic."
    return f"{chosen} The test images chose nothing; the validation figures, those of the best of many, are optimistic."
