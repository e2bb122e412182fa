"""The winner, trained once on all training images; then it looks at the test images, once."""

import io
import math
import time
from pathlib import Path

import torch

from search.algorithms.stopping import Ending
from search.outputs.files import write_atomically
from search.record.confirmation import Final
from search.record.study_record import StudyRecord
from training.checkpoint import load_weights
from training.config import TrialConfig
from training.console.progress_bar import progress_bar
from training.images.image_data import ImageData, batches
from training.loop import EVALUATION_BATCH_SIZE, Training, TrainingDivergedError, test_loop
from training.networks.networks import build_network

FILE_NAME = "final.pt"


def train_final(
    record: StudyRecord, trial: int, config: TrialConfig, data: ImageData, ending: Ending, *, epochs: int
) -> Final | None:
    """Train a configuration, going on where an earlier process ended.

    The learning rate goes the way that it went in the trainings that chose the number of epochs: as if there were
    `config.epochs` of them.

    Args:
        record: What confirms the study; `final.pt` beside it holds the training, from its first epoch on.
        trial: Number of the configuration in the study.
        config: With the seed of this training.
        data: With no validation images.
        ending: Says when to end early.
        epochs: After which it ends.

    Returns:
        What it measured; None if it ended early.

    Raises:
        TrainingDivergedError: A loss is not finite.
    """
    file, began = record.folder / FILE_NAME, time.monotonic()
    training = _restored(config, data, epochs, file) or Training(config, data)
    with progress_bar("Training the winner on all images", epochs * len(data.train)) as show:
        while training.epoch < epochs:
            finished = training.epoch * len(data.train)
            for _, images in training.train_epoch():
                show(finished + images, f"epoch {training.epoch} of {epochs}")
                if ending.is_over():
                    return None
            _keep(training, file)
            if ending.time_is_up() and training.epoch < epochs:
                return None
    accuracy, loss = test_loop(batches(data.test, EVALUATION_BATCH_SIZE), training.model, training.loss_fn)
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


def keep_weights_only(record: StudyRecord) -> None:
    """Leave out of `final.pt` what only a training that goes on needs."""
    file = record.folder / FILE_NAME
    state = torch.load(file, map_location="cpu", weights_only=True)
    _write({name: state[name] for name in ("epoch", "model")}, file)


def final_model(record: StudyRecord, config: TrialConfig, data: ImageData) -> torch.nn.Module:
    """The winner, trained on all training images; on the CPU, in evaluation mode.

    Args:
        record: What confirmed the study.
        config: Of the winner, as the record of the study gives it.
        data: Its images tell the network their shape and number of classes.

    Raises:
        ValueError: There is none yet, or its file is damaged.
    """
    file = record.folder / FILE_NAME
    if "final" not in record.facts or not file.is_file():
        raise ValueError(f"there is no final model in {record.folder}")
    model = build_network(config, data.image_shape, len(data.classes))
    load_weights(model, file)
    return model.eval()


def _restored(config: TrialConfig, data: ImageData, epochs: int, file: Path) -> Training | None:
    """The training that an earlier process began; None if there is none, or only a damaged one."""
    if not file.is_file():
        return None
    training = Training(config, data)
    try:
        training.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception:  # whatever the damage does to torch
        return None
    return training if training.epoch <= epochs else None


def _keep(training: Training, file: Path) -> None:
    _write(training.state_dict(), file)


def _write(state: dict[str, object], file: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(file, content.getvalue())
