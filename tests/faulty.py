"""Trainables for tests of whole studies; workers import them by this module's name."""

import os
from pathlib import Path
from typing import Any

from search.trainable import trainable

NOTES = "TUNESMITH_TEST_NOTES"
"""Environment variable that names the file for what trials note down."""


def fails_in_three_ways(sample: dict[str, Any], **study: Any) -> None:
    """Trial 1 raises before its first report, 2 diverges, 3 loses its worker; the others train."""
    match sample["seed"]:
        case 1:
            sample = {**sample, "optimizer": "unknown"}
        case 2:
            sample = {**sample, "optimizer": "sgd", "learning_rate": 1e20}
        case 3:
            os._exit(1)
    trainable(sample, **study)


def always_seed_0(sample: dict[str, Any], **study: Any) -> None:
    """Train every trial with seed 0 and note the process and where its images lie in memory."""
    with Path(os.environ[NOTES]).open("a") as stream:
        stream.write(f"process {os.getpid()}, images at {study['data'].train.images.data_ptr()}\n")
    trainable({**sample, "seed": 0}, **study)


def always_raises(sample: dict[str, Any], **study: Any) -> None:
    """Raise in every trial, by way of a value that no trial accepts."""
    trainable({**sample, "batch_size": 0}, **study)
