"""Error analysis: which test images the best model of a study misclassifies, if weights and images are available."""

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from training.checkpoint import best_file, load_weights
from training.images.image_data import ImageData, batches
from training.loop import EVALUATION_BATCH_SIZE
from training.micro_batch import in_fitting_batches
from training.networks.networks import build_network
from training.random_state import seeded

MAX_IMAGES = 12
"""Wrongly classified images that are shown."""
SHOWN_PIXELS = 84
"""Width and height of an image in the report."""


@dataclass(frozen=True)
class WrongImage:
    """A test image that the model classified wrongly."""

    png: str
    """A data URL."""
    true_class: str
    predicted_class: str
    probability: float
    """Probability that the model gave to the predicted class."""


@dataclass(frozen=True)
class ErrorAnalysis:
    """How the best model of a study classifies the test images."""

    trial: int
    epoch: int
    confusion: list[list[int]]
    """Number of images by true class (rows) and predicted class (columns)."""
    wrong_images: list[WrongImage]
    """Wrongly classified images, those with the highest probability first."""


def analyse_errors(record: StudyRecord, data: ImageData) -> ErrorAnalysis:
    """Classify the test images with the best epoch of the best trial.

    Raises:
        ValueError: The weights are missing, are damaged, or are not those that were measured.
    """
    best = best_trial(record.trials)
    metrics = best.best_epoch if best else None
    file = best_file(record.checkpoints.file(best.number), metrics.epoch) if best and metrics else None
    if best is None or metrics is None or file is None:
        raise ValueError("the weights of the best model are missing")
    config = record.metadata.trial_config(best)
    with seeded(config.seed):  # a network may draw numbers that are no weights
        model = build_network(config, data.image_shape, len(data.classes))
    load_weights(model, file)
    probabilities = _probabilities(model, data)
    predictions, labels = probabilities.argmax(1), data.test.labels
    accuracy = (predictions == labels).double().mean().item()
    if abs(accuracy - metrics.test_accuracy) > 2 / len(labels):  # rounding differs between machines
        raise ValueError(
            f"the weights of the best model have test_accuracy {accuracy:.4f}, but the study measured "
            f"{metrics.test_accuracy:.4f}"
        )
    classes = len(data.classes)
    confusion = torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
    wrong = torch.where(predictions == labels, -1.0, probabilities.max(1).values).topk(min(MAX_IMAGES, len(labels)))
    wrong_images = [
        WrongImage(
            png=_png(data.test.images[index]),
            true_class=data.classes[int(labels[index])],
            predicted_class=data.classes[int(predictions[index])],
            probability=probability,
        )
        for probability, index in zip(wrong.values.tolist(), wrong.indices.tolist(), strict=True)
        if probability > 0
    ]
    return ErrorAnalysis(best.number, metrics.epoch, confusion.tolist(), wrong_images)


@torch.no_grad()
def _probabilities(model: torch.nn.Module, data: ImageData) -> Tensor:
    model.eval()

    def logits(size: int) -> Tensor:
        return torch.cat([model(images) for images, _ in batches(data.test, size)])

    return in_fitting_batches(logits, EVALUATION_BATCH_SIZE).softmax(1)


def _png(image: Tensor) -> str:
    """Encode an image (C, H, W), uint8, as a data URL, enlarged without smoothing."""
    pixels = image.permute(1, 2, 0).squeeze(2).numpy()
    scale = max(1, SHOWN_PIXELS // max(pixels.shape[:2]))
    original, stream = Image.fromarray(pixels), io.BytesIO()
    enlarged = original.resize((original.width * scale, original.height * scale), Image.Resampling.NEAREST)
    enlarged.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
