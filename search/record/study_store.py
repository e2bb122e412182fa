"""What the process that runs a study does with its store: removes checkpoints, and brings back what is to stay."""

import os
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from search.record.checkpoint_store import ARCHIVE, CheckpointStore, StoreError
from search.record.file_names import CHECKPOINTS, NOTES, TRIALS
from training.console.terminal import show_event


class StudyStore:
    """The store of a study that this process runs; a thread uses it, so that the study does not wait for it.

    Its errors are printed, each once: what remains in the store only takes space, and a later session brings back what
    could not be read.
    """

    def __init__(self, store: CheckpointStore, folder: Path) -> None:
        """Start nothing yet.

        Args:
            store: The study's folder in the store.
            folder: Its folder here.
        """
        self._store = store
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uses the store")
        self._told: set[str] = set()

    def __str__(self) -> str:
        return str(self._store)

    def begin_to_clear(self, ended: Collection[str], kept: Collection[str]) -> None:
        """Remove the checkpoints of ended trials, but for the best epochs or the folders of some of them.

        Args:
            ended: The beginnings of their names, as `trial-0007`.
            kept: Those of the trials whose best epoch is kept.
        """
        self._begin(self._clear, {*ended}, {*kept})

    def begin_to_fetch_folder(self, folder: Path) -> None:
        """Bring back what is new in the folder of a trial that has ended."""
        self._begin(self._fetch_folder, folder.relative_to(self._folder).as_posix())

    def has_checkpoint(self, stem: str) -> bool:
        """Whether the store has a state from which a trial continues."""
        with suppress(StoreError):
            beginnings = f"{CHECKPOINTS}/{stem}-last-", f"{CHECKPOINTS}/{stem}{ARCHIVE}"
            return any(name.startswith(beginnings) for name in self._store.names(CHECKPOINTS))
        return False

    def fetch_notes(self) -> None:
        """Bring back what workers have written because they were about to end themselves."""
        with suppress(StoreError, ValueError):
            for name in [*self._store.names(f"{NOTES}/{CHECKPOINTS}"), *self._store.names(f"{NOTES}/{TRIALS}")]:
                file = self._path(name.removeprefix(f"{NOTES}/"))
                if not file.is_file() or not file.stat().st_size:
                    self._store.get(name, file)

    def finish(self, ended: Collection[str], kept: Collection[str]) -> None:
        """Clear for the last time, and bring back the kept checkpoints and the folders of all trials.

        Args:
            ended: As in `begin_to_clear`.
            kept: As there.
        """
        self.begin_to_clear(ended, kept)
        self._begin(self._fetch_folder, TRIALS)
        self._begin(self._fetch_checkpoints, {*kept})
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Wait for what has begun."""
        self._thread.shutdown()

    def _begin(self, call: Callable[..., None], *args: object) -> None:
        self._thread.submit(self._telling_errors, call, *args)

    def _telling_errors(self, call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except (OSError, ValueError) as error:  # of the disk, or what was read is damaged
            if (sentence := str(error)) not in self._told:
                self._told.add(sentence)
                show_event(sentence)

    def _clear(self, ended: set[str], kept: set[str]) -> None:
        for name in self._store.names(CHECKPOINTS):
            stem, rest = _split(name)
            if stem in ended and not (stem in kept and _is_kept(rest)):
                self._store.delete(name)

    def _fetch_folder(self, folder: str) -> None:
        for name, (size, written) in self._store.names(folder).items():
            file = self._path(name)
            state = file.stat() if file.is_file() and not file.is_symlink() else None
            if state is None or state.st_size != size or state.st_mtime < written:
                self._store.get(name, file)
                os.utime(file, (written, written))

    def _path(self, name: str) -> Path:
        """Where an object belongs in the study's folder; a ValueError says that a link leads out of it."""
        path = self._folder / name
        if not path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise ValueError(f"{path.parent} leads out of the study's folder")
        return path

    def _fetch_checkpoints(self, kept: set[str]) -> None:
        for name in self._store.names(CHECKPOINTS):
            stem, rest = _split(name)
            if stem in kept and _is_kept(rest) and (rest == ARCHIVE or not self._path(name).exists()):
                self._store.get_file_or_folder(name, self._folder)


def _split(name: str) -> tuple[str, str]:
    """`trial-0007` and the rest of the name of an object of its checkpoint."""
    match = re.fullmatch(r"(trial-\d+)(.*)", name.removeprefix(f"{CHECKPOINTS}/"))
    return (match[1], match[2]) if match else ("", name)


def _is_kept(rest: str) -> bool:
    """Whether the object of a best trial is that of its best epoch, or the folder of its program."""
    return rest.startswith("-epoch-") or rest == ARCHIVE
