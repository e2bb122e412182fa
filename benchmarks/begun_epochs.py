"""Notes of the epochs that begin, whatever any record says; workers import this by name."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTES = "epochs.txt"
"""Name of the file in the folder of a trial, for trainings that have such a folder."""


@dataclass(frozen=True)
class BegunEpoch:
    """A note: one configuration began one epoch."""

    configuration: str
    epoch: int
    process: int = field(compare=False)
    """Number of the process that trained it."""


def configuration(hyperparameters: Mapping[str, Any]) -> str:
    """The name of a configuration; no two of a study are the same."""
    return "{learning_rate!r}/{batch_size}/{optimizer}".format(**hyperparameters)


def note_epoch(file: Path, hyperparameters: Mapping[str, Any], epoch: int) -> None:
    """Note that an epoch begins, in one write that a kill cannot cut in two."""
    with file.open("ab", buffering=0) as notes:
        notes.write(f"{configuration(hyperparameters)} {epoch} {os.getpid()} {time.monotonic_ns()}\n".encode())


def read_notes(place: Path) -> list[BegunEpoch]:
    """The notes so far, in the order of time; none before the first epoch of a study.

    Args:
        place: A file, or the folder with the folders of all trials.
    """
    files = place.glob(f"*/{NOTES}") if place.is_dir() else [place] if place.exists() else []
    lines = [line.split() for file in files for line in file.read_text().splitlines()]
    lines.sort(key=lambda line: int(line[3]))
    return [BegunEpoch(name, int(epoch), int(process)) for name, epoch, process, _ in lines]
