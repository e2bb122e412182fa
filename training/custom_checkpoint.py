"""What a training function of the user's own saves after an epoch, to go on from there after an interruption."""

import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from training.atomic_file import replacing
from training.checkpoint import link_or_copy
from training.random_state import get_random_state, set_random_state


class CustomCheckpoint:
    """The saved epochs of a trial: the newest that was reported, what was saved since, and the best one.

    A training calls `load` before its first epoch and `save` after each:

        start = checkpoint.load(model=model, optimizer=optimizer)
        for epoch in range(start, 50):
            ...
            checkpoint.save(epoch + 1, model=model, optimizer=optimizer)
            yield {"val_loss": val_loss}

    The random generators of Python, NumPy and torch are saved and restored, too.
    """

    def __init__(self, file: Path, folder: Path, epochs_reported: int = 0, best: float | None = None) -> None:
        """Read and write nothing yet.

        Args:
            file: Names the files: `trial-0007.pt` has `trial-0007-last-0003.pt` beside it for epoch 3.
            folder: Folder of the trial, for files of the training's own.
            epochs_reported: Epochs whose metrics are known; a later epoch is not loaded, for it would not be measured.
            best: The lowest cost of these epochs, as `reported` gets them.
        """
        self.file = file
        self.folder = folder
        self._epochs_reported = epochs_reported
        self.epochs_restored = 0
        """Epochs that an earlier process trained, and from which this one went on."""
        self._best = math.inf if best is None else best
        self._best_epoch: int | None = None
        """The epoch that is the best, and is not yet kept."""
        self._values: dict[str, Any] = {}
        self._warning: str | None = None

    def load(self, **objects: Any) -> int:
        """Restore what was saved under these names, and the random generators.

        Args:
            objects: By name, whatever has `state_dict` and `load_state_dict`: models, optimizers, schedulers...

        Returns:
            The number of epochs that are done; 0 if nothing was saved.
        """
        for epoch, file in sorted(self._saved().items(), reverse=True):
            if epoch > self._epochs_reported:
                continue
            try:
                # weights_only: a checkpoint from somebody else runs no code
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                for name, target in objects.items():
                    target.load_state_dict(state["states"][name])
                self._values = state["values"]
                set_random_state(state["random"])
            except Exception as error:  # whatever the damage does to torch
                raise ValueError(f"{file.name} cannot be loaded: {type(error).__name__}: {error}") from error
            self.epochs_restored = epoch
            return epoch
        return 0

    def get(self, name: str, default: Any = None) -> Any:
        """A saved number, text, tensor or container after `load`; the default if there is none of this name."""
        return self._values.get(name, default)

    def save(self, epoch: int, **objects: Any) -> None:
        """Save the training after an epoch.

        Args:
            epoch: Number of epochs that are done, from 1.
            objects: By name, what has `state_dict`; or tensors, numbers, texts and containers of them.

        Raises:
            TypeError: One of the objects is neither.
        """
        states = {name: value.state_dict() for name, value in objects.items() if hasattr(value, "state_dict")}
        values = {name: value for name, value in objects.items() if name not in states}
        file = self._file(epoch)
        state = io.BytesIO()
        torch.save({"states": states, "values": values, "random": get_random_state()}, state)
        _check_loads(state, values)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as draft:
                draft.write_bytes(state.getbuffer())
            self._keep_best()
            self._drop_older()
        except OSError as error:
            self._warning = f"checkpoints cannot be written: {error.strerror or error}"

    def reported(self, epoch: int, cost: float) -> None:
        """Note that an epoch has been reported, with a cost; the epoch of the lowest cost keeps a file of its own."""
        self._epochs_reported = max(self._epochs_reported, epoch)
        if cost < self._best:
            self._best, self._best_epoch = cost, epoch
        with suppress(OSError):  # the next one may be written
            self._keep_best()
            self._drop_older()

    def warn(self, warning: str) -> None:
        """Let `take_warning` return a sentence."""
        self._warning = warning

    def take_warning(self) -> str | None:
        """The last error in one sentence; None if there was none since the last call."""
        warning, self._warning = self._warning, None
        return warning

    def _file(self, epoch: int) -> Path:
        return self.file.with_name(f"{self.file.stem}-last-{epoch:04}.pt")

    def _saved(self) -> dict[int, Path]:
        """The file of each saved epoch."""
        files = self.file.parent.glob(f"{self.file.stem}-last-*.pt")
        return {int(file.stem.rpartition("-")[2]): file for file in files}

    def _drop_older(self) -> None:
        """Remove the epochs before the newest one whose metrics are known."""
        saved = self._saved()
        newest = max((epoch for epoch in saved if epoch <= self._epochs_reported), default=0)
        for epoch, file in saved.items():
            if epoch < newest:
                file.unlink(missing_ok=True)

    def _keep_best(self) -> None:
        """Keep the file of the best epoch, if it was saved, and no older one."""
        if self._best_epoch is None or not (saved := self._file(self._best_epoch)).is_file():
            return
        best = self.file.with_name(f"{self.file.stem}-epoch-{self._best_epoch:04}.pt")
        with replacing(best) as draft:
            link_or_copy(saved, draft)
        for file in self.file.parent.glob(f"{self.file.stem}-epoch-*.pt"):
            if file != best:
                file.unlink(missing_ok=True)
        self._best_epoch = None


def _check_loads(state: io.BytesIO, values: dict[str, Any]) -> None:
    """Load what will be saved: what runs code when it is loaded is refused now, and not after an interruption."""
    if not values:
        return
    state.seek(0)
    try:
        torch.load(state, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TypeError(
            "checkpoint.save saves what has state_dict, and tensors, numbers, texts and containers of them, "
            f"which is not true of all of: {', '.join(values)}"
        ) from error
