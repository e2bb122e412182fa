"""The training of images, which notes each epoch that begins; workers import this by name."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from begun_epochs import note_epoch
from torch import Tensor

import training.loop
from training.loop import Training

NOTES_FILE = "TUNESMITH_CHAOS_NOTES"
"""Environment variable that names the file."""


class ObservedTraining(Training):
    """A training that leaves a note before each epoch."""

    def train_epoch(self) -> Iterator[tuple[Tensor, int]]:
        """Note the epoch; then train it."""
        note_epoch(Path(os.environ[NOTES_FILE]), vars(self.config), self.epoch + 1)
        yield from super().train_epoch()


def observed_trainable(sample: dict[str, Any], **study: Any) -> None:
    """Run the project's own trainable with trainings that leave notes."""
    from search.engine.trainable import (
        trainable,  # not above: it sets options of Ray that plain_search.py must not have
    )

    training.loop.Training = ObservedTraining  # type: ignore[misc]
    trainable(sample, **study)
