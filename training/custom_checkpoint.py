"""What a training function of the user's own saves after an epoch, to go on from there after an interruption."""

import io
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import index
from pathlib import Path
from typing import Any

import torch

from training.atomic_file import replacing
from training.checkpoint import link_or_copy
from training.console.terminal import type_and_text
from training.random_state import get_random_state, set_random_state
from training.saved_values import find_unreadable, from_saved, to_saved


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
            file: Names the files: `trial-0007.pt` has `trial-0007-last-0003.pt` beside it for epoch 3, or a folder
                `trial-0007-last-0003` if the training saves folders.
            folder: Folder of the trial, for files of the training's own.
            epochs_reported: Epochs whose metrics are known; a later epoch is not loaded, for it would not be measured.
            best: The lowest cost of these epochs, as `reported` gets them.
        """
        self.file = file
        self.folder = folder
        self.epochs_reported = epochs_reported
        """Epochs whose metrics are known by now."""
        self.epochs_restored = 0
        """Epochs that an earlier process trained, and from which this one went on."""
        self.best = math.inf if best is None else best
        """The lowest cost so far."""
        self._best_epoch: int | None = None
        """The epoch that is the best, and is not yet kept."""
        self._values: dict[str, Any] = {}
        self._warning: str | None = None
        self._has_saved = False

    def load(self, **objects: Any) -> int:
        """Restore what was saved under these names, and the random generators.

        Args:
            objects: By name, whatever has `state_dict` and `load_state_dict`: models, optimizers, schedulers...

        Returns:
            The number of epochs that are done; 0 if nothing was saved.
        """
        epoch, file = self._newest()
        if file is None or file.is_dir():
            return 0
        try:
            # weights_only: a checkpoint from somebody else runs no code
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            for name, target in objects.items():
                target.load_state_dict(from_saved(state["states"][name]))
            self._values = from_saved(state["values"])
            set_random_state(state["random"])
        except Exception as error:  # whatever the damage does to torch
            raise ValueError(f"{file.name} cannot be loaded: {type_and_text(error)}") from error
        self.epochs_restored = epoch
        return epoch

    def load_folder(self) -> Path | None:
        """The newest folder of `save_folder` whose epoch is known, from which the training goes on; None at first."""
        epoch, folder = self._newest()
        if folder is None or not folder.is_dir():
            return None
        self.epochs_restored = epoch
        return folder

    def get(self, name: str, default: Any = None) -> Any:
        """A saved number, text, tensor, array or container after `load`; the default if there is none of this name."""
        return self._values.get(name, default)

    def save(self, epoch: int, **objects: Any) -> None:
        """Save the training after an epoch.

        Args:
            epoch: Number of epochs that are done, from 1; each report is an epoch.
            objects: By name, what has `state_dict`; or tensors, arrays of NumPy, numbers, texts and containers of them.

        Raises:
            TypeError: One of the objects is neither.
            ValueError: The epoch is no whole number from 1.
        """
        if not _is_whole(epoch) or index(epoch) < 1:
            raise ValueError(f"checkpoint.save needs the number of epochs that are done, from 1, got {epoch!r:.50}")
        epoch = index(epoch)
        if epoch > self.epochs_reported + 1:
            called = f"checkpoint.save was called with epoch {epoch}, but {self.epochs_reported} are reported"
            self.warn(f"{called}: such an epoch cannot be loaded")
        states = {name: value.state_dict() for name, value in objects.items() if hasattr(value, "state_dict")}
        values = {name: value for name, value in objects.items() if name not in states}
        state = io.BytesIO()
        with _refusing_unreadable(states | values):
            saved = {"states": to_saved(states), "values": to_saved(values)}
            torch.save(saved | {"random": get_random_state()}, state)
            if values or not self._has_saved:  # what has a `state_dict` always has the same kinds of values
                state.seek(0)
                torch.load(state, map_location="cpu", weights_only=True)
        self._has_saved = True

        def write() -> None:
            with replacing(self._last(epoch, ".pt")) as draft:
                draft.write_bytes(state.getbuffer())

        self._write(write)

    def save_folder(self, epoch: int, source: str | Path) -> None:
        """Save a copy of a folder after an epoch, for a training that writes its checkpoints itself."""
        self._write(lambda: _copy(Path(source), self._last(epoch, ""), shutil.copy2))

    def reported(self, epoch: int, cost: float) -> None:
        """Note that an epoch has been reported, with a cost; the epoch of the lowest cost keeps a file of its own."""
        self.epochs_reported = max(self.epochs_reported, epoch)
        if cost < self.best:
            self.best, self._best_epoch = cost, epoch
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

    def _write(self, write: Callable[[], None]) -> None:
        """Write a saved epoch; an error of the disk becomes a warning."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write()
            self._keep_best()
            self._drop_older()
        except OSError as error:
            self._warning = f"checkpoints cannot be written: {error.strerror or error}"

    def _last(self, epoch: int, suffix: str) -> Path:
        return self.file.with_name(f"{self.file.stem}-last-{epoch:04}{suffix}")

    def _saved(self, kind: str = "last") -> dict[int, Path]:
        """The file or folder of each saved epoch."""
        pattern = re.compile(rf"{re.escape(self.file.stem)}-{kind}-(\d+)(\.pt)?")
        matches = {path: pattern.fullmatch(path.name) for path in self.file.parent.glob(f"{self.file.stem}-{kind}-*")}
        return {int(match[1]): path for path, match in matches.items() if match}

    def _newest(self) -> tuple[int, Path | None]:
        """The newest saved epoch whose metrics are known."""
        saved = {epoch: path for epoch, path in self._saved().items() if epoch <= self.epochs_reported}
        return max(saved.items(), default=(0, None))

    def _drop_older(self) -> None:
        """Remove the epochs before the newest one whose metrics are known."""
        newest, _ = self._newest()
        for epoch, path in self._saved().items():
            if epoch < newest:
                remove(path)

    def _keep_best(self) -> None:
        """Keep the best epoch, if it was saved, and no older one."""
        saved = self._saved().get(self._best_epoch or 0)
        if saved is None:
            return
        older = self._saved("epoch").values()
        best = saved.with_name(saved.name.replace("-last-", "-epoch-"))
        if saved.is_dir():
            _copy(saved, best, link_or_copy)
        else:
            with replacing(best) as draft:
                link_or_copy(saved, draft)
        for path in older:
            if path != best:
                remove(path)
        self._best_epoch = None


def remove(path: Path) -> None:
    """Remove a file or a folder of a checkpoint, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path, copy: Callable[[Any, Any], Any]) -> None:
    """Copy a folder so that the target is complete whenever it is there."""
    draft = target.with_name(f"{target.name}.draft")
    for path in (draft, target):
        remove(path)
    shutil.copytree(source, draft, copy_function=copy, ignore=_broken_links)
    os.replace(draft, target)


def _broken_links(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not Path(folder, name).exists()}


def _is_whole(number: object) -> bool:
    """Whether a number is whole: one of Python or NumPy, or a tensor."""
    try:
        index(number)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


@contextmanager
def _refusing_unreadable(objects: Mapping[str, Any]) -> Iterator[None]:
    """Refuse objects that cannot be saved, or that run code when they are loaded: now, not after an interruption."""
    try:
        yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise TypeError(
            "checkpoint.save saves what has state_dict, and tensors, arrays, numbers, texts and containers of them; "
            f"it cannot save {find_unreadable(objects)}"
        ) from error
