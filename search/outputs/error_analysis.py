"""What the best model of a study sees in the test images, where the model was kept and the images are at hand."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from search.record.file_names import MODEL
from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from training.checkpoint import Checkpoint, load_weights
from training.images.image_data import ImageData, batches
from training.loop import EVALUATION_BATCH_SIZE
from training.model.model_folder import read_metadata
from training.networks.networks import build_network

MOST_WRONG = 12
"""Images that are shown."""
SHOWN_PIXELS = 84
"""Side of an image as it is shown."""


@dataclass(frozen=True)
class WrongImage:
    """A test image that the model took for something else."""

    png: str
    """As a data URL."""
    true_class: str
    seen_as: str
    probability: float
    """That the model gave to what it saw."""


@dataclass(frozen=True)
class ErrorAnalysis:
    """How the best model classifies the test images."""

    trial: int
    epoch: int
    confusion: list[list[int]]
    """Images by class and by the class that the model saw."""
    most_wrong: list[WrongImage]
    """The surest mistakes first."""


def analyse_errors(record: StudyRecord, data: ImageData) -> ErrorAnalysis:
    """Classify the test images with the best epoch of the best trial.

    Raises:
        ValueError: The model was not kept, is damaged, or is not the one that was measured.
    """
    best = best_trial(record.trials)
    metrics = best.best_epoch if best else None
    files = Checkpoint(record.checkpoint(best)).best_files() if best else []
    if best is None or metrics is None or not files:
        raise ValueError("the best model was not kept")
    model = build_network(record.metadata.trial_config(best), data.image_shape, len(data.classes))
    load_weights(model, files[-1])
    probabilities = _probabilities(model, data)
    seen, labels = probabilities.argmax(1), data.test.labels
    accuracy = (seen == labels).double().mean().item()
    if abs(accuracy - metrics.test_accuracy) > 2 / len(labels):  # rounding differs between machines
        raise ValueError(
            f"the model that was kept has test_accuracy {accuracy:.4f}, and {metrics.test_accuracy:.4f} was measured"
        )
    classes = len(data.classes)
    confusion = torch.bincount(labels * classes + seen, minlength=classes**2).reshape(classes, classes)
    surest = torch.where(seen == labels, -1.0, probabilities.max(1).values).topk(min(MOST_WRONG, len(labels)))
    most_wrong = [
        WrongImage(
            _png(data.test.images[index]), data.classes[int(labels[index])], data.classes[int(seen[index])], probability
        )
        for probability, index in zip(surest.values.tolist(), surest.indices.tolist(), strict=True)
        if probability > 0
    ]
    return ErrorAnalysis(best.number, metrics.epoch, confusion.tolist(), most_wrong)


def exported_best(record: StudyRecord) -> Path | None:
    """The folder in which the best model was shipped, if it is there and holds that one."""
    folder, best = record.folder / MODEL, best_trial(record.trials)
    metrics = best.best_epoch if best else None
    try:
        metadata = read_metadata(folder)
    except ValueError:
        return None
    is_best = best and metrics and (metadata.trial, metadata.epoch) == (best.number, metrics.epoch)
    return folder if is_best else None


@torch.no_grad()
def _probabilities(model: torch.nn.Module, data: ImageData) -> Tensor:
    model.eval()
    logits = [model(images) for images, _ in batches(data.test, EVALUATION_BATCH_SIZE)]
    return torch.cat(logits).softmax(1)


def _png(image: Tensor) -> str:
    """An image (C, H, W), uint8, as a data URL, enlarged without smoothing."""
    pixels = image.permute(1, 2, 0).squeeze(2).numpy()
    times = max(1, SHOWN_PIXELS // max(pixels.shape[:2]))
    drawn = Image.fromarray(pixels)
    stream = io.BytesIO()
    drawn.resize((drawn.width * times, drawn.height * times), Image.Resampling.NEAREST).save(
        stream, "PNG", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
