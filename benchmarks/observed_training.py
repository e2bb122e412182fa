"""Notes each epoch that begins in a file of its own, whatever any record says; workers import this by name."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

import training.loop
from training.loop import Training

NOTES = "TUNESMITH_CHAOS_NOTES"
"""Environment variable that names the file."""


@dataclass(frozen=True)
class BegunEpoch:
    """A note: one configuration began one epoch."""

    configuration: str
    epoch: int
    worker: int = field(compare=False)
    """Number of the process that trained it."""


def configuration(hyperparameters: dict[str, Any]) -> str:
    """The name of a configuration; no two of a study are the same."""
    return "{learning_rate!r}/{batch_size}/{optimizer}".format(**hyperparameters)


def read_notes(file: Path) -> list[BegunEpoch]:
    """The notes so far, in order; none before the first epoch of a study."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [BegunEpoch(name, int(epoch), int(worker)) for name, epoch, worker in (line.split() for line in lines)]


class ObservedTraining(Training):
    """A training that leaves a note before each epoch."""

    def train_epoch(self) -> Iterator[tuple[Tensor, int]]:
        """Note the epoch, in one write that a kill cannot cut in two; then train it."""
        with Path(os.environ[NOTES]).open("ab", buffering=0) as notes:
            notes.write(f"{configuration(vars(self.config))} {self.epoch + 1} {os.getpid()}\n".encode())
        yield from super().train_epoch()


def observed_trainable(sample: dict[str, Any], **study: Any) -> None:
    """Run the project's own trainable with trainings that leave notes."""
    from search.engine.trainable import (
        trainable,  # not above: it sets options of Ray that plain_search.py must not have
    )

    training.loop.Training = ObservedTraining  # type: ignore[misc]
    trainable(sample, **study)
