"""The files of a trial where it is trained: in the study's folder, or in one of the worker's own and in a store."""

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from search.record.checkpoint_store import ARCHIVE, CheckpointStore, StoreError, pack
from search.record.file_names import CHECKPOINTS, NOTES
from training.checkpoint import remove

RETRY_SECONDS = 60.0
"""How long a store that fails is tried again, before the trial fails."""
PAUSE_SECONDS = 1.0
OLD_SECONDS = 60.0
"""A folder that a worker has left is this old when another one removes it: by then its own worker has locked it."""
QUIET_TRIES = 3
"""How often a folder is packed again because a program has written into it meanwhile."""
_PREFIX = "tunesmith-worker-"

Signature: TypeAlias = tuple[object, ...]
"""What changes when a file or a folder does."""
_Packed: TypeAlias = tuple[Path, Signature]


class TrialFiles:
    """The checkpoint and the folder of a trial; with a store, both are in a folder of this process.

    `push` brings what has changed to the store. It comes before each report, so that the record never has an epoch
    whose checkpoint is not whole in the store.
    """

    def __init__(self, checkpoint: Path, folder: Path, store: CheckpointStore | None = None) -> None:
        """Read nothing yet.

        Args:
            checkpoint: The file after which those of the checkpoint are named.
            folder: The folder of the trial.
            store: The study's folder in a store; None if all workers share both paths.
        """
        self.checkpoint = checkpoint
        self.folder = folder
        self._store = store
        self._stored: dict[str, Signature] = {}
        """What the store has, by name."""
        self._warning: str | None = None

    def fetch(self) -> None:
        """Bring the files of the trial from the store, as an earlier worker has left them.

        Raises:
            StoreError: The store has failed all the time.
        """
        if self._store is not None:
            self._try(self._fetch, self._store)
            self._stored = {name: _signature(path) for name, path in self._present().items()}

    def push(self) -> None:
        """Bring what has changed to the store, and remove there what is not here any more.

        Raises:
            StoreError: The store has failed all the time.
        """
        if self._store is None:
            return
        changed = self._changed(self._present())
        folders = {name: path for name, path in changed.items() if name.endswith(ARCHIVE) and path.is_dir()}
        # before the files are read: so a program's output has all that its checkpoint has
        packed = {name: archive for name, path in folders.items() if (archive := self._packed(path))}
        for name in changed.keys() - folders.keys():
            with suppress(FileNotFoundError):  # a training may remove a file of its folder meanwhile
                self._put(self._store, name, changed[name], _signature(changed[name]))
        for name, (file, signature) in packed.items():
            self._put(self._store, name, file, signature)
            file.unlink()
        self._delete_missing(self._store)

    def push_folder(self) -> None:
        """Bring what has changed in the folder of the trial, its log, to the store, if the store takes it at once.

        The checkpoint is left as it is: if the trial was ended from outside, another worker may go on with it already.
        """
        if self._store is None:
            return
        with suppress(OSError):  # it is not needed to go on
            for name, path in self._changed(self._in_folder()).items():
                self._store.put(name, path)

    def publish(self, file: Path) -> None:
        """Bring a file to the store at once, which says why this process is about to end."""
        assert self._store is not None, "without a store, the driver sees the file itself"
        with suppress(StoreError):
            self._store.put(f"{NOTES}/{self._name(file)}", file)

    @property
    def publishes(self) -> Callable[[Path], None] | None:
        """The function that makes a file known to the driver; None if the driver sees it anyway."""
        return None if self._store is None else self.publish

    def take_warning(self) -> str | None:
        """That the store has failed for a while, in one sentence; None if it has not since the last call."""
        warning, self._warning = self._warning, None
        return warning

    @property
    def _study(self) -> Path:
        """The folder here that stands for that of the study."""
        return self.checkpoint.parents[1]

    def _name(self, path: Path) -> str:
        return path.relative_to(self._study).as_posix()

    def _fetch(self, store: CheckpointStore) -> None:
        """Bring all files; the worker that had the trial before may remove an older one meanwhile."""
        for name in store.names(CHECKPOINTS):
            if name.startswith((f"{CHECKPOINTS}/{self.checkpoint.stem}.", f"{CHECKPOINTS}/{self.checkpoint.stem}-")):
                store.get_file_or_folder(name, self._study)
        for name in store.names(self._name(self.folder)):
            store.get(name, self._study / name)

    def _present(self) -> dict[str, Path]:
        """The files and folders that are here and belong into the store, by their names there."""
        checkpoints = (path for path in self.checkpoint.parent.iterdir() if not path.name.startswith("."))
        saved = (path for path in checkpoints if path.suffix != ".draft")
        return {self._name(path) + (ARCHIVE if path.is_dir() else ""): path for path in saved} | self._in_folder()

    def _in_folder(self) -> dict[str, Path]:
        return {self._name(path): path for path in self.folder.rglob("*") if path.is_file()}

    def _changed(self, present: dict[str, Path]) -> dict[str, Path]:
        return {name: path for name, path in present.items() if self._stored.get(name) != _signature(path)}

    def _packed(self, folder: Path) -> _Packed | None:
        """An archive of a folder, and the folder's signature; a program may write into the folder meanwhile.

        None says that a file was removed each time, and then the store keeps what it has.
        """
        archive, packed = folder.with_name(f".{folder.name}{ARCHIVE}"), None
        for _ in range(QUIET_TRIES):
            before, packed = _signature(folder), None
            with suppress(FileNotFoundError):
                pack(folder, archive)
                packed = archive, before
                if _signature(folder) == before:
                    break
        return packed

    def _put(self, store: CheckpointStore, name: str, file: Path, signature: Signature) -> None:
        self._try(store.put, name, file)
        self._stored[name] = signature

    def _delete_missing(self, store: CheckpointStore) -> None:
        for name in self._stored.keys() - self._present().keys():
            with suppress(StoreError):  # it only takes space; it is tried again
                store.delete(name)
                del self._stored[name]

    def _try(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call the store, and again while it fails, for a while."""
        began = time.monotonic()
        while True:
            try:
                result = call(*args)
            except StoreError as error:
                if self._warning is None:
                    print(f"{error}; the trial waits", flush=True)
                    self._warning = f"{error}; a trial has waited for it, and goes on"
                if time.monotonic() - began >= RETRY_SECONDS:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                return result


@contextmanager
def trial_files(sample: dict[str, Any]) -> Iterator[TrialFiles]:
    """The files of a trial, as an earlier worker has left them; at the end, the last changes go to the store, if any.

    Args:
        sample: The proposal of `SearchAlgorithm.suggest`.

    Raises:
        StoreError: The store does not give or take the files.
    """
    checkpoint, folder = Path(sample["checkpoint"]), Path(sample["folder"])
    if sample["store"] is None:
        yield TrialFiles(checkpoint, folder)
        return
    study = _own_folder() / checkpoint.parents[1].name
    remove(study)
    for path in (checkpoint, folder):
        (study / path.parent.name).mkdir(parents=True)
    files = TrialFiles(
        study / checkpoint.parent.name / checkpoint.name,
        study / folder.parent.name / folder.name,
        CheckpointStore(*sample["store"]),
    )
    try:
        files.fetch()
        yield files
    finally:
        files.push_folder()
        shutil.rmtree(study, ignore_errors=True)


@cache
def _own_folder() -> Path:
    """A folder of this process, which is locked while the process lives; those that killed workers left are removed."""
    _remove_left()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    _locks.append(_locked(folder))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_locks: list[TextIO | None] = []
"""The open lock of this process's folder: the system releases it when the process ends, however it ends."""


def _remove_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            state = folder.stat()
            is_old = time.time() - state.st_mtime > OLD_SECONDS
            if state.st_uid == os.getuid() and is_old and (lock := _locked(folder)):
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()


def _locked(folder: Path) -> TextIO | None:
    """Lock the folder of a worker; None if its worker lives."""
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _signature(path: Path) -> Signature:
    """What changes when a file or a folder does; one that is gone has none."""
    try:
        if not path.is_dir():
            state = path.stat()
            return state.st_ino, state.st_size, state.st_mtime_ns
        return tuple((str(file), *_signature(file)) for file in sorted(path.rglob("*")) if file.is_file())
    except OSError:
        return ()
