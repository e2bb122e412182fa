"""Keeps what a training needs to go on after an interruption, and its best epoch."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from training.json_data import from_json
from training.metrics import EpochMetrics


class Resumable(Protocol):
    """A training that can be saved and go on."""

    epoch: int
    """Finished epochs."""
    metrics: list[EpochMetrics]
    """Those of each finished epoch."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on and the metrics so far, as tensors and numbers in plain containers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as if the training that returned `state` had never stopped."""


class Checkpoint:
    """The files of one trial: its last epoch, to go on from, and its best one, to keep.

    No number depends on them: where a file cannot be written or read, training goes on without it, from the start if it
    must, and `take_warning` says why.
    """

    def __init__(self, file: Path, metric: str = "val_loss", mode: str = "min") -> None:
        """Nothing is touched yet.

        Args:
            file: The last epoch. The best one lies beside it, its number in its name: `<stem>-epoch-0007.pt`.
            metric: Field of `EpochMetrics` by which an epoch is the best; the earliest of equals is.
            mode: `max` or `min`.
        """
        self.file = file
        self.epochs_restored = 0
        """Epochs that an earlier process trained."""
        self._warning: str | None = None
        self._metric = metric
        self._sign = -1 if mode == "max" else 1
        self._best = float("inf")

    def save(self, training: Resumable) -> None:
        """Write all that the next epoch depends on, and the metrics so far, in one step."""
        state = io.BytesIO()
        torch.save(training.state_dict(), state)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.file, lambda draft: draft.write_bytes(state.getbuffer()))
            self._keep_if_best(training.metrics[-1])
        except OSError as error:
            self._warning = f"checkpoints cannot be written: {error.strerror or error}"

    def restore(self, training: Resumable) -> bool:
        """Go on as if the training that was saved had never stopped; it had the same config and data.

        Returns:
            Whether there was something to go on from; if it was damaged, `training` is of no more use.
        """
        if not self.file.exists():
            return False
        try:
            # weights_only: a checkpoint that somebody sends you runs no code
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
            training.load_state_dict(state)
            self._best = min(self._rank(metrics) for metrics in training.metrics)
            self.epochs_restored = training.epoch
        except Exception as error:  # whatever the damage does to torch
            self._warning = f"checkpoint {self.file.name} is damaged ({type(error).__name__}); the trial starts again"
            return False
        return True

    def take_warning(self) -> str | None:
        """What could not be done since the last call, in one sentence."""
        warning, self._warning = self._warning, None
        return warning

    def best_files(self) -> list[Path]:
        """Files of best epochs; more than one only if a process died while it replaced one."""
        return sorted(self.file.parent.glob(f"{self.file.stem}-epoch-*.pt"))

    def _keep_if_best(self, metrics: EpochMetrics) -> None:
        if self._rank(metrics) >= self._best:
            return
        older = self.best_files()
        best = self.file.with_name(f"{self.file.stem}-epoch-{metrics.epoch:04}.pt")
        _replace(best, lambda draft: _link_or_copy(self.file, draft))
        for file in older:
            if file != best:
                file.unlink(missing_ok=True)
        self._best = self._rank(metrics)

    def _rank(self, metrics: EpochMetrics) -> float:
        return self._sign * float(getattr(metrics, self._metric))


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Load the weights of a file of a `Checkpoint`; a ValueError says that this is impossible."""
    try:
        model.load_state_dict(read_weights(file))
    except Exception as error:  # whatever the damage does to torch
        raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The weights in a file of a `Checkpoint`; a ValueError says that the file is damaged."""
    return {str(name): tensor.detach() for name, tensor in _read(file, "model").items()}


def read_metrics(file: Path) -> EpochMetrics:
    """The metrics of the weights in a file of a `Checkpoint`; a ValueError says that the file is damaged."""
    return from_json(EpochMetrics, _read(file, "metrics")[-1])


def _read(file: Path, part: str) -> Any:
    try:
        # weights_only: a checkpoint that somebody sends you runs no code
        return torch.load(file, map_location="cpu", weights_only=True)[part]
    except Exception as error:  # whatever the damage does to torch
        raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    draft = file.with_name(f".{file.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        write(draft)
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)  # a part of it would only fill the disk
        raise


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # free: the last epoch is replaced, never written over
    except OSError:
        shutil.copyfile(source, target)
