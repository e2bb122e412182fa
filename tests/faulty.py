"""Trainables for tests of whole studies; workers import them by this module's name."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import ray
import torch

import search
from search.engine.trainable import trainable
from training.loop import train, train_loop
from training.metrics import EpochMetrics

NOTES = "TUNESMITH_TEST_NOTES"
"""Environment variable that names the file for what trials note down."""


def fails_in_every_way(sample: dict[str, Any], **study: Any) -> None:
    """Trial 1 raises before its first report, trial 2 diverges, 3 loses its worker once, 4 each time; 5 hangs."""
    match sample["seed"]:
        case 1:
            sample = _changed(sample, optimizer="unknown")
        case 2:
            sample = _changed(sample, optimizer="sgd", learning_rate=1e20)
        case 3:
            return killed_after_epoch_2(sample, **study)
        case 4:
            os.kill(os.getpid(), signal.SIGKILL)
        case 5:
            return hangs(sample, **study)
    return trainable(sample, **study)


def always_seed_0(sample: dict[str, Any], **study: Any) -> None:
    """Train every trial with seed 0, trial 4 slowly, and note the process and where its images lie in memory."""
    with Path(os.environ[NOTES]).open("a") as stream:
        stream.write(f"process {os.getpid()}, images at {study['images'].train.images.data_ptr()}\n")
    slow({**sample, "seed": 0}, seconds=1.0 if sample["seed"] == 4 else 0.0, **study)


def notes_its_node(sample: dict[str, Any], **study: Any) -> None:
    """Note the trial's seed, the session of processes that its node is, and where our code lies; then train slowly."""
    with Path(os.environ[NOTES]).open("a") as stream:
        stream.write(f"{sample['seed']} {os.getsid(0)} {search.__file__}\n")
    slow(sample, **study, seconds=0.1)


def notes_its_steps(sample: dict[str, Any], **study: Any) -> None:
    """Note each step by the node's address, the trial's seed and the epoch; steps are slow until a file is there."""
    notes, epoch = Path(os.environ[NOTES]), sample["epochs_recorded"]

    def train_and_note(*arguments: Any) -> Iterator[EpochMetrics]:
        nonlocal epoch
        for metrics in train(*arguments):
            epoch = metrics.epoch
            yield metrics

    def note_steps(*arguments: Any, **options: Any) -> Iterator[tuple[torch.Tensor, int]]:
        for step in train_loop(*arguments, **options):
            with notes.open("a") as stream:
                stream.write(f"{ray.util.get_node_ip_address()} {sample['seed']} {epoch + 1}\n")
            _wait(0.1, notes.with_name("hurry"))
            yield step

    with mock.patch("training.loop.train_loop", note_steps):
        _with_train(train_and_note, sample, **study)


def always_raises(sample: dict[str, Any], **study: Any) -> None:
    """Raise in every trial, by way of a value that no trial accepts."""
    trainable(_changed(sample, batch_size=0), **study)


def killed_after_epoch_2(sample: dict[str, Any], **study: Any) -> None:
    """Lose the worker after the second epoch, the first time."""

    def train_and_die(*arguments: Any) -> Iterator[EpochMetrics]:
        for metrics in train(*arguments):
            yield metrics
            if metrics.epoch == 2 and sample["epochs_recorded"] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    _with_train(train_and_die, sample, **study)


def hangs(sample: dict[str, Any], **study: Any) -> None:
    """Hang in the first epoch, in code that does not come back to Python."""

    def train_and_hang(*arguments: Any) -> Iterator[EpochMetrics]:
        ctypes.PyDLL(None).sleep(1000)  # keeps the interpreter's lock
        yield from train(*arguments)

    _with_train(train_and_hang, sample, **study)


def asks_for_too_much(sample: dict[str, Any], **study: Any) -> None:
    """Trial 1 wants a tensor of a petabyte, as a batch would that cannot fit."""

    def train_too_large(*arguments: Any) -> Iterator[EpochMetrics]:
        if sample["seed"] == 1:
            torch.empty(10**15)
        yield from train(*arguments)

    _with_train(train_too_large, sample, **study)


def fills_the_memory(sample: dict[str, Any], **study: Any) -> None:
    """Trial 1 takes more and more memory, up to 8 GiB."""

    def train_and_grow(*arguments: Any) -> Iterator[EpochMetrics]:
        for metrics in train(*arguments):
            yield metrics
            if sample["seed"] == 1:
                taken: list[torch.Tensor] = []
                while len(taken) < 32:
                    taken.append(torch.ones(2**26))
                    time.sleep(0.1)  # in which Ray looks at the memory

    _with_train(train_and_grow, sample, **study)


def slow(sample: dict[str, Any], *, seconds: float = 0.2, until: Path | None = None, **study: Any) -> None:
    """Each epoch takes longer, where a file is named until it is there."""

    def train_slowly(*arguments: Any) -> Iterator[EpochMetrics]:
        for metrics in train(*arguments):
            _wait(seconds, until)
            yield metrics

    _with_train(train_slowly, sample, **study)


def _wait(seconds: float, until: Path | None) -> None:
    """Wait for some seconds, where a file is named at most until it is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and until.exists()):
        time.sleep(0.02)


def _changed(sample: dict[str, Any], **hyperparameters: object) -> dict[str, Any]:
    """A proposal with other hyperparameters."""
    return {**sample, "hyperparameters": {**sample["hyperparameters"], **hyperparameters}}


def _with_train(replacement: Callable[..., Iterator[EpochMetrics]], sample: dict[str, Any], **study: Any) -> None:
    """Run the product's trainable over another `train`."""
    with mock.patch("training.loop.train", replacement):
        trainable(sample, **study)
