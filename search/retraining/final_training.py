"""Trains the winner once on all training images, and then measures it once on the test images."""

import io
import math
import time
from pathlib import Path

import torch

from search.algorithms.stopping import StudyStopper
from search.record.confirmation import Final
from search.record.file_names import FINAL_WEIGHTS
from training.atomic_file import write_atomically
from training.checkpoint import read_weights, restore_state, state_of
from training.config import TrialConfig
from training.console.progress_bar import progress_bar
from training.images.image_data import ImageData, batches
from training.loop import EVALUATION_BATCH_SIZE, Training, TrainingDivergedError, test_loop
from training.micro_batch import in_fitting_batches


def train_final(
    folder: Path, trial: int, config: TrialConfig, data: ImageData, stopper: StudyStopper, *, epochs: int
) -> Final | None:
    """Train a configuration, or go on where an earlier process ended.

    The learning rate follows the schedule of `config.epochs` epochs, as in the trainings that chose the number of
    epochs.

    Args:
        folder: The folder of the confirmation; `final.pt` in it holds the training, from its first epoch on.
        trial: Number of the configuration in the study.
        config: The configuration, with the seed of this training.
        data: Data without validation images.
        stopper: Decides whether the training ends early.
        epochs: Number of epochs to train.

    Returns:
        The result; None if the training ended early.

    Raises:
        TrainingDivergedError: A loss is not finite.
    """
    file, began = folder / FINAL_WEIGHTS, time.monotonic()
    training = _restored(config, data, epochs, file) or Training(config, data)
    with progress_bar("Training the winner on all images", epochs * len(data.train)) as show:
        while training.epoch < epochs:
            finished = training.epoch * len(data.train)
            for _, images in training.train_epoch():
                show(finished + images, f"epoch {training.epoch} of {epochs}")
                if stopper.stop_all():
                    return None
            _write(state_of(training.objects), file)
            if stopper.ends_with_epoch() and training.epoch < epochs:
                return None

    def measure(size: int) -> tuple[float, float]:
        return test_loop(batches(data.test, size), training.model, training.loss_fn)

    accuracy, loss = in_fitting_batches(measure, EVALUATION_BATCH_SIZE)
    if not math.isfinite(loss):
        raise TrainingDivergedError(f"test_loss is {loss} after epoch {epochs}")
    return Final(
        trial=trial,
        epochs=epochs,
        seed=config.seed,
        training_images=len(data.train),
        test_images=len(data.test),
        test_accuracy=accuracy,
        test_loss=loss,
        seconds=round(time.monotonic() - began, 3),
    )


def discard_training_state(folder: Path) -> None:
    """Remove the state of optimizer and random generators from `final.pt`, so that only the weights stay."""
    file = folder / FINAL_WEIGHTS
    _write({"states": {"model": read_weights(file)}}, file)


def _restored(config: TrialConfig, data: ImageData, epochs: int, file: Path) -> Training | None:
    """Restore the training of an earlier process; None if there is none, or if its file is damaged."""
    if not file.is_file():
        return None
    training = Training(config, data)
    try:
        restore_state(torch.load(file, map_location="cpu", weights_only=True), training.objects)
    except Exception:  # torch raises many types of errors for a damaged file
        return None
    return training if training.epoch <= epochs else None


def _write(state: dict[str, object], file: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(file, content.getvalue())
