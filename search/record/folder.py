"""The folder of a study while a process writes it: created, locked, and restored if somebody removes it."""

import fcntl
import itertools
import os
import platform
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from search.record.postgresql import ServerStorage
from search.settings import StudySettings
from training.atomic_file import write_atomically
from training.console.terminal import printable

LONGEST_PATH = 490
"""Bytes in the path of a study's folder; sqlite takes 512 for a file in it."""
SECONDS_OF_A_LOOK = 0.5
"""Who looks whether a study runs holds its lock for a moment, which is far shorter."""


class StudyFolder:
    """A folder that only this process may write.

    The system releases the lock when the process ends, however it ends, so no stale lock can remain.
    """

    def __init__(self, path: Path) -> None:
        """Lock the folder.

        Raises:
            ValueError: Another process has locked it, or it cannot be written; the message says which.
        """
        self.path = path
        self._lock = _lock(path)
        self._file: Path | None = None

    def hold_open(self, file: Path) -> None:
        """Keep a file open, so that its content exists even if somebody removes the file."""
        if self._file is None:
            self._file, self._content = file, file.open("rb")

    def close(self) -> None:
        """Release the lock of the folder."""
        self._lock.release()
        if self._file:
            self._content.close()

    def restore(self) -> None:
        """Create the folder, its lock and the open file again if they were removed, or raise an OSError."""
        if self._file is None:
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(self._file.stat(), os.fstat(self._content.fileno())):
                return
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path)
        self._content.seek(0)
        write_atomically(self._file, self._content.read())
        self._content = self._file.open("rb")


def new_name(settings: StudySettings, dataset: str) -> str:
    """The name of a new study: from the settings, or else the data set with date and time."""
    return settings.name or f"{dataset}-{datetime.now():%Y%m%d-%H%M%S}"


def make_folder(
    settings: StudySettings, name: str, fill: Callable[[Path, str], object], server: ServerStorage | None = None
) -> Path:
    """Create the folder of a new study.

    The folder gets its name when it is complete; if the process dies before that, the name stays free.

    Args:
        settings: Settings of the study, with the results folder.
        name: The name that `new_name` returned. A name that the user did not choose gets a number if it is taken:
            other studies may start in the same second.
        fill: Writes the files of a study into a folder; its second argument is the name of the study.
        server: The server for the record, where this process locks the name.

    Raises:
        ValueError: The name is taken.
        RecordUnwritableError: Another process begins a study of this name on the server.
    """
    results_dir = settings.results_dir.resolve()
    names = itertools.chain([name], map(f"{name}-{{}}".format, itertools.count(2)))
    while True:
        name = next(names)
        taken = _taken(results_dir / name, server)
        if not taken:
            draft = results_dir / f".{name}-{os.getpid()}"
            if len(os.fsencode(draft)) > LONGEST_PATH:
                raise ValueError(f"the path of the results folder is too long for sqlite: {results_dir}")
            results_dir.mkdir(parents=True, exist_ok=True)
            try:
                draft.mkdir()
                fill(draft, name)
                return draft.rename(results_dir / name)
            except OSError:
                if not (results_dir / name).exists():
                    raise
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        if settings.name is not None:
            raise ValueError(f"name {name} is taken: {taken or results_dir / name}")


def check_free(folder: Path) -> None:
    """Raise a ValueError if another process has locked the folder of a study; write nothing."""
    if (folder / ".lock").is_file():
        _acquire(folder).release()


def is_locked(folder: Path) -> bool:
    """Whether a process has locked the folder of a study, because it runs the study."""
    if not (folder / ".lock").is_file():
        return False
    with (folder / ".lock").open() as file:  # only to read it, because the study may be somebody else's
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared with others who look
        except OSError:  # it is locked; or there are no such locks here, and the file exists only while the study runs
            return True
    return False


def owner_of(folder: Path) -> str:
    """The process that has locked the folder of a study last, as its file says; empty without such a file."""
    file = folder / ".owner"
    return printable(file.read_text(errors="replace")[:100]) if file.is_file() and not file.is_symlink() else ""


def check_writable(folder: Path) -> Path:
    """Refuse a folder that cannot be created or written.

    Returns:
        The folder, or the first folder above it that exists.

    Raises:
        ValueError: The returned folder would be one that cannot be written, or `latest` in the folder is no link.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ValueError(f"the results folder cannot be written: {folder}")
    latest = folder / "latest"
    if latest.exists() and not latest.is_symlink():
        raise ValueError(f"{latest} must be a link to the newest study, but is not a link: rename it")
    return existing


def point_latest_to(folder: Path) -> None:
    """Point the link `latest` beside a folder to this folder; an OSError says that this is impossible."""
    draft = folder.parent / f".latest.{folder.name}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(folder.name)
    draft.replace(folder.parent / "latest")


def _taken(folder: Path, server: ServerStorage | None) -> str | None:
    """The folder or server that already has a study of this name; None if there is none."""
    if folder.exists():
        return str(folder)
    if server:
        server.lock(folder.name)  # so that no other machine begins a study of this name meanwhile
        if server.has_study(folder.name):
            return server.address
    return None


def _lock(folder: Path) -> FileLock:
    lock, owner = _acquire(folder), folder / ".owner"
    try:
        owner.unlink(missing_ok=True)  # a link is not followed
        owner.write_text(f"process {os.getpid()} on {platform.node()}")
    except OSError as error:
        raise ValueError(f"the folder of study {folder.name} cannot be written: {error.strerror}: {folder}") from None
    return lock


def _acquire(folder: Path) -> FileLock:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=SECONDS_OF_A_LOOK)
    except Timeout:
        process = owner_of(folder) or "another process"
        raise ValueError(f"study {folder.name} is being run by {process}") from None
    except OSError as error:
        raise ValueError(f"the folder of study {folder.name} cannot be written: {error.strerror}: {folder}") from None
    return lock
