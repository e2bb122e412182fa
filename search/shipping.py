"""Ships the best model of a study: a folder that classifies images without the study."""

import shlex
from dataclasses import fields
from pathlib import Path

from search.record import StudyRecord
from search.settings import StudySettings
from search.summary import training_command
from search.trial_record import TrialRecord
from training.checkpoint import Checkpoint, read_weights
from training.config import NETWORKS, TrialConfig
from training.loop import EpochMetrics
from training.model_folder import DARK_BACKGROUND, FOLDER, NETWORK, ModelFacts, save_model
from training.networks import network_checksum, network_file

_IMAGE_SHAPES = {"digits": [1, 8, 8], "fashion-mnist": [1, 28, 28], "mnist": [1, 28, 28], "kmnist": [1, 28, 28]}
"""Of studies from before they recorded it."""


def check_trusted(record: StudyRecord, network: str | None) -> None:
    """Refuse to run the code of a network that a record names, unless somebody names it again.

    Raises:
        ValueError: The network is one from a file, and `network` is another or None.
    """
    named = record.fixed.get("network", TrialConfig.network)
    if network is not None and network != named:
        raise ValueError(f"the study was run with network {named}, not {network}")
    if named not in NETWORKS and network is None:
        raise ValueError(
            f"the study's network is Python code, {named}, which can do anything when it is run: read it, then add "
            f"--network {named}"
        )


def ship_best(settings: StudySettings, record: StudyRecord) -> Path | None:
    """Write `model/`, the best epoch of the best trial, where its weights were kept; the images are not needed.

    A network from a file is imported.

    Returns:
        The folder, or None if the weights were not kept; then a folder that is there stays.

    Raises:
        ValueError: They are damaged, or not those that were measured, or the network's code has changed.
        OSError: It cannot be written.
    """
    best = record.best()
    metrics = record.best_epoch(best) if best else None
    if best is None or metrics is None:
        return None
    file = next((file for file in _kept(record, best) if file.stem.endswith(f"-epoch-{metrics.epoch:04}")), None)
    if file is None:
        return None
    weights, measured = read_weights(file)
    if measured != metrics:
        raise ValueError(f"{file.name} is not the epoch that was measured")
    facts = _facts(settings, record, best, metrics)
    folder = record.folder / FOLDER
    save_model(folder, weights, facts, network_file(record.config(best).network))
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
