"""What a training saves after an epoch, to go on from there after an interruption, and its best epoch."""

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
from training.console.terminal import type_and_text
from training.json_data import from_json
from training.metrics import EpochMetrics
from training.random_state import get_random_state, set_random_state
from training.saved_values import find_unreadable, from_saved, to_saved


class Checkpoint:
    """The saved epochs of a trial: the newest that was reported, what was saved since, and the best one.

    A training calls `load` before its first epoch and `save` after each:

        start = checkpoint.load(model=model, optimizer=optimizer)
        for epoch in range(start, 50):
            ...
            checkpoint.save(epoch + 1, model=model, optimizer=optimizer)
            yield {"val_loss": val_loss}

    The random generators of Python, NumPy and torch are saved and restored, too.
    """

    def __init__(
        self, file: Path, folder: Path | None = None, epochs_reported: int = 0, best: float | None = None
    ) -> None:
        """Read and write nothing yet.

        Args:
            file: Names the files: `trial-0007.pt` has `trial-0007-last-0003.pt` beside it for epoch 3, or a folder
                `trial-0007-last-0003` if the training saves folders.
            folder: Folder of the trial, for files of the training's own; by default that of the file.
            epochs_reported: Epochs whose metrics are known; a later epoch is not loaded, for it would not be measured.
            best: The lowest cost of these epochs, as `measured` gets them.
        """
        self.file = file
        self.folder = folder or file.parent
        self.epochs_reported = epochs_reported
        """Epochs whose metrics are known by now."""
        self.epochs_restored = 0
        """Epochs that an earlier process trained, and from which this one went on."""
        self.best = math.inf if best is None else best
        """The lowest cost so far."""
        self.must_leave: Callable[[], bool] = lambda: False
        """Whether the process must end soon: a training that can, saves what it has and raises `TrainingLeftError`."""
        self.micro_batch_size: int | None = None
        """How many images went through a network at a time, where the memory did not suffice for whole batches."""
        self._best_epoch: int | None = None
        """The epoch that is the best, if it is newer than the best one of an earlier process."""
        self._has_kept_best = True
        """Whether the best epoch has a file of its own, or its folder."""
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
        if file is None or not file.is_file():  # a folder, or a pipe in a folder that somebody sent
            return 0
        try:
            # weights_only: a checkpoint from somebody else runs no code
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            restore_state(state, objects)
            self._values = from_saved(state["values"])
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
        self._save(epoch, objects)

    def save_within(self, epoch: int, **objects: Any) -> None:
        """Save the training in the middle of an epoch, after `epoch` epochs, to go on there; otherwise as `save`.

        Objects that know where they are in the epoch must have this in their `state_dict`.
        """
        self._keep_best()  # from the end of that epoch, whose file is replaced
        self._save(epoch, objects)

    def _save(self, epoch: int, objects: dict[str, Any]) -> None:
        state = io.BytesIO()
        with _refusing_unreadable(objects):
            saved = state_of(objects)
            torch.save(saved, state)
            if saved["values"] or not self._has_saved:  # what has a `state_dict` always has the same kinds of values
                state.seek(0)
                torch.load(state, map_location="cpu", weights_only=True)
        self._has_saved = True

        def write() -> None:
            with replacing(self._last(epoch, ".pt")) as draft:
                draft.write_bytes(state.getbuffer())

        self._write(epoch, write)

    def save_folder(self, epoch: int, source: str | Path) -> None:
        """Save a copy of a folder after an epoch, for a training that writes its checkpoints itself."""
        self._write(epoch, lambda: _copy(Path(source), self._last(epoch, ""), shutil.copy2))

    def measured(self, epoch: int, cost: float) -> None:
        """Note the cost of an epoch that is about to be reported; the epoch of the lowest cost gets a file of its own.

        This comes before the report, because a trial that is stopped by its report gets no time afterwards.
        """
        is_lost = cost == self.best < math.inf and not best_files(self.file)  # what an earlier process kept
        if cost < self.best or is_lost:
            self.best, self._best_epoch, self._has_kept_best = cost, epoch, False
            with suppress(OSError):  # the next one may be written
                self._keep_best()

    def reported(self, epoch: int) -> None:
        """Note that an epoch has been reported, so that the training can go on from it, and from no older one."""
        self.epochs_reported = max(self.epochs_reported, epoch)
        with suppress(OSError):  # they only take space
            self._drop_older()

    def warn(self, warning: str) -> None:
        """Let `take_warning` return a sentence."""
        self._warning = warning

    def take_warning(self) -> str | None:
        """The last error in one sentence; None if there was none since the last call."""
        warning, self._warning = self._warning, None
        return warning

    def _write(self, epoch: int, write: Callable[[], None]) -> None:
        """Write a saved epoch; an error of the disk becomes a warning."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write()
            if epoch <= self.epochs_reported:  # it is saved after its report
                self._keep_best()
                self._drop_older()
        except OSError as error:
            self._warning = f"checkpoints cannot be written: {error.strerror or error}"

    def _last(self, epoch: int, suffix: str) -> Path:
        return self.file.with_name(f"{self.file.stem}-last-{epoch:04}{suffix}")

    def _saved(self) -> dict[str, dict[int, Path]]:
        """The file or folder of each saved epoch: those to go on from, `last`, and the best ones, `epoch`."""
        pattern = re.compile(rf"{re.escape(self.file.stem)}-(last|epoch)-(\d+)(\.pt)?")
        saved: dict[str, dict[int, Path]] = {"last": {}, "epoch": {}}
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self.file.parent):
                if match := pattern.fullmatch(name):
                    saved[match[1]][int(match[2])] = self.file.with_name(name)
        return saved

    def _newest(self) -> tuple[int, Path | None]:
        """The newest saved epoch whose metrics are known."""
        saved = {epoch: path for epoch, path in self._saved()["last"].items() if epoch <= self.epochs_reported}
        return max(saved.items(), default=(0, None))

    def _drop_older(self) -> None:
        """Remove what is older than the newest and the best epoch whose metrics are known."""
        saved = self._saved()
        newest = max((epoch for epoch in saved["last"] if epoch <= self.epochs_reported), default=0)
        for epoch, path in saved["last"].items():
            if epoch < newest:
                remove(path)
        best = self._best_epoch
        if best is not None and self._has_kept_best and best <= self.epochs_reported:
            for epoch, path in saved["epoch"].items():
                if epoch != best:
                    remove(path)

    def _keep_best(self) -> None:
        """Let the best epoch have a file of its own, if it was saved and has none."""
        if self._has_kept_best or self._best_epoch is None:
            return
        paths = (self._last(self._best_epoch, suffix) for suffix in (".pt", ""))
        saved = next((path for path in paths if path.exists()), None)
        if saved is None:
            return
        best = saved.with_name(saved.name.replace("-last-", "-epoch-"))
        if saved.is_dir():
            _copy(saved, best, link_or_copy)
        else:
            with replacing(best) as draft:
                link_or_copy(saved, draft)
        self._has_kept_best = True


def state_of(objects: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of a `Checkpoint` holds: the states of objects, other values by name, and the random generators."""
    states, values = _split(objects)
    return {"states": to_saved(states), "values": to_saved(values), "random": get_random_state()}


def restore_state(state: Mapping[str, Any], objects: Mapping[str, Any]) -> None:
    """Set what `state_of` returned in objects of the same names, and in the random generators."""
    for name, target in objects.items():
        target.load_state_dict(from_saved(state["states"][name]))
    set_random_state(state["random"])


def _split(objects: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The states of the objects that have one, and the other objects, which are values."""
    states = {name: value.state_dict() for name, value in objects.items() if hasattr(value, "state_dict")}
    return states, {name: value for name, value in objects.items() if name not in states}


def best_files(file: Path) -> list[Path]:
    """The files or folders of best epochs, oldest first; several only if a process died while it replaced one.

    `file` is that of the `Checkpoint`.
    """
    paths = file.parent.glob(f"{file.stem}-epoch-*")
    return sorted(path for path in paths if path.suffix in (".pt", ""))


def best_file(file: Path, epoch: int) -> Path | None:
    """The file or folder of this best epoch; None if it was not saved. `file` is that of the `Checkpoint`."""
    return next((path for path in best_files(file) if path.stem.endswith(f"-epoch-{epoch:04}")), None)


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Load the weights that the training of images has saved; a ValueError says that this is impossible."""
    try:
        model.load_state_dict(read_weights(file))
    except Exception as error:  # whatever the damage does to torch
        raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None


def read_weights(file: Path) -> dict[str, Any]:
    """The weights that the training of images has saved, and the extra state of modules that have one.

    A ValueError says that the file is damaged.
    """
    weights = _read_state(file, "model")
    if not isinstance(weights, dict):
        raise ValueError(f"{file.name} is damaged (its weights are a {type(weights).__name__})")
    return weights


def read_metrics(file: Path) -> EpochMetrics:
    """The metrics of the weights in such a file; a ValueError says that the file is damaged."""
    progress = _read_state(file, "progress")
    try:
        return from_json(EpochMetrics, progress["metrics"][-1])
    except Exception as error:  # whatever the damage leaves of them
        raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None


def _read_state(file: Path, name: str) -> Any:
    """The state of an object in a file of a `Checkpoint`, or in one of an earlier version, which held them directly."""
    if not file.is_file():
        raise ValueError(f"{file.name} is not a file")
    try:
        # weights_only: a checkpoint from somebody else runs no code
        state = torch.load(file, map_location="cpu", weights_only=True)
        if "states" in state:
            return state["states"][name]
        return state if name == "progress" else state[name]
    except Exception as error:  # whatever the damage does to torch
        raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None


def remove(path: Path) -> None:
    """Remove a file or a folder of a checkpoint, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Let a second name lead to a file that is never overwritten, or copy it where that is impossible."""
    try:
        os.link(source, target)  # needs no space; the file of an epoch is replaced, never overwritten
    except OSError:
        shutil.copyfile(source, target)


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
        states, values = _split(objects)
        raise TypeError(
            "checkpoint.save saves what has state_dict, and tensors, arrays, numbers, texts and containers of them; "
            f"it cannot save {find_unreadable(states | values)}"
        ) from error
