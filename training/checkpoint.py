"""Files with the last epoch of a training, to go on after an interruption, and with its best epoch."""

import io
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch

from training.atomic_file import replacing
from training.json_data import from_json
from training.metrics import EpochMetrics


class Resumable(Protocol):
    """A training that a `Checkpoint` can save and restore."""

    epoch: int
    """Number of finished epochs."""
    metrics: list[EpochMetrics]
    """Metrics of each finished epoch."""

    def state_dict(self) -> dict[str, Any]:
        """The state before the next epoch and the metrics so far, as tensors and numbers in plain containers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state that `state_dict` of another training returned, to go on from there."""


class Checkpoint:
    """The files of a trial: its last epoch, from which it can go on, and its best epoch.

    No metric depends on the files: if one cannot be written or read, the training goes on without it or starts again,
    and `take_warning` returns the reason.
    """

    def __init__(self, file: Path, metric: str = "val_loss", mode: str = "min") -> None:
        """Read and write nothing yet.

        Args:
            file: File of the last epoch. The best epoch has a file beside it with its number: `<stem>-epoch-0007.pt`.
            metric: Field of `EpochMetrics` that decides which epoch is the best; the earliest of equal ones is.
            mode: `max` or `min`.
        """
        self.file = file
        self.epochs_restored = 0
        """Number of epochs that an earlier process trained."""
        self._warning: str | None = None
        self._metric = metric
        self._sign = -1 if mode == "max" else 1
        self._best = float("inf")

    def save(self, training: Resumable) -> None:
        """Write the state of a training in one step, and also as its best epoch if it is the best."""
        state = io.BytesIO()
        torch.save(training.state_dict(), state)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.file) as draft:
                draft.write_bytes(state.getbuffer())
            self._save_if_best(training.metrics[-1])
        except OSError as error:
            self._warning = f"checkpoints cannot be written: {error.strerror or error}"

    def restore(self, training: Resumable) -> bool:
        """Set the saved state in a training with the same config and data.

        Returns:
            Whether the state was restored. If the file is damaged, `training` is only partly restored.
        """
        if not self.file.is_file():
            return False
        try:
            # weights_only: a checkpoint from somebody else runs no code
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
            training.load_state_dict(state)
            self._best = min(self._rank(metrics) for metrics in training.metrics)
            self.epochs_restored = training.epoch
        except Exception as error:  # whatever the damage does to torch
            self._warning = f"checkpoint {self.file.name} is damaged ({type(error).__name__}); the trial starts again"
            return False
        return True

    def take_warning(self) -> str | None:
        """The last error in one sentence; None if there was none since the last call."""
        warning, self._warning = self._warning, None
        return warning

    def best_files(self) -> list[Path]:
        """The file of the best epoch, or its folder; several only if a process died while it replaced one."""
        paths = self.file.parent.glob(f"{self.file.stem}-epoch-*")
        return sorted(path for path in paths if path.suffix in (".pt", ""))

    def _save_if_best(self, metrics: EpochMetrics) -> None:
        if self._rank(metrics) >= self._best:
            return
        older_files = self.best_files()
        best = self.file.with_name(f"{self.file.stem}-epoch-{metrics.epoch:04}.pt")
        with replacing(best) as draft:
            link_or_copy(self.file, draft)
        for file in older_files:
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


def read_weights(file: Path) -> dict[str, Any]:
    """The weights in a file of a `Checkpoint`, and the extra state of modules that have one.

    A ValueError says that the file is damaged.
    """
    weights = _read(file, "model")
    if not isinstance(weights, dict):
        raise ValueError(f"{file.name} is damaged (its weights are a {type(weights).__name__})")
    return weights


def read_metrics(file: Path) -> EpochMetrics:
    """The metrics of the weights in a file of a `Checkpoint`; a ValueError says that the file is damaged."""
    return from_json(EpochMetrics, _read(file, "metrics")[-1])


def _read(file: Path, part: str) -> Any:
    if not file.is_file():
        raise ValueError(f"{file.name} is not a file")
    try:
        # weights_only: a checkpoint from somebody else runs no code
        return torch.load(file, map_location="cpu", weights_only=True)[part]
    except Exception as error:  # whatever the damage does to torch
        raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None


def link_or_copy(source: Path, target: Path) -> None:
    """Let a second name lead to a file that is never overwritten, or copy it where that is impossible."""
    try:
        os.link(source, target)  # needs no space; the file of the last epoch is replaced, never overwritten
    except OSError:
        shutil.copyfile(source, target)
