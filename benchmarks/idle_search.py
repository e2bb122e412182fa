"""`python search/run.py` with trainings that train nothing; takes the same options."""

import gc
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import search.engine.trainable
import search.run
from training.checkpoint import Checkpoint
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.metrics import EpochMetrics


def train_nothing(config: TrialConfig, data: ImageData, checkpoint: Checkpoint) -> Iterator[EpochMetrics]:  # noqa: ARG001
    """Make up metrics that depend on the learning rate, at once."""
    accuracy = 1 / (1 + abs(config.learning_rate - 0.01))
    for epoch in range(1, config.epochs + 1):
        yield EpochMetrics(
            epoch=epoch,
            train_loss=1.0,
            val_accuracy=accuracy - 0.1 / epoch,
            val_loss=1.0,
            test_accuracy=0.5,
            test_loss=1.0,
            seconds=0.0,
            evaluation_seconds=0.0,
        )


def idle_trainable(sample: dict[str, Any], **study: Any) -> None:
    """Run the project's own trainable without training."""
    with mock.patch("training.loop.train", train_nothing):
        _trainable(sample, **study)


_trainable = search.engine.trainable.trainable

if __name__ == "__main__":
    from idle_search import idle_trainable  # by the name under which workers import it

    search.engine.trainable.trainable = idle_trainable  # before the modules that take it from there are imported
    status = search.run.main()
    gc.freeze()  # as in search/run.py
    sys.exit(status)
