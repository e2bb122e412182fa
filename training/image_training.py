"""The training of images as a training function, which a search runs as it runs those of its users."""

from collections.abc import Iterator
from dataclasses import asdict

from training import loop
from training.checkpoint import Checkpoint
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.metrics import EpochMetrics
from training.user_code import describe_error


def train(config: TrialConfig, data: ImageData, checkpoint: Checkpoint) -> Iterator[dict[str, float]]:
    """Train one network; yield what was measured in each epoch, with its own times.

    Raises:
        TrainingDivergedError: A loss is not finite.
        RuntimeError: The code of the network exits.
    """
    training = loop.train(config, data, checkpoint)
    while (metrics := _next_epoch(training)) is not None:
        measured = asdict(metrics)
        del measured["epoch"]  # it is counted by the reports
        yield {name: value for name, value in measured.items() if value is not None}


def _next_epoch(training: Iterator[EpochMetrics]) -> EpochMetrics | None:
    """Train one more epoch; a network of the user's own may exit."""
    try:
        return next(training, None)
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(describe_error(error)) from error
