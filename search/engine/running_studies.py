"""Finds other studies that run on this machine, so that a new study uses what they leave."""

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout


@dataclass(frozen=True)
class RunningStudy:
    """A study that runs on this machine."""

    study: str
    """What the headers of other studies call it: `study NAME`, or `confirmation of study NAME`."""
    cpus: int
    """Cores that its trials take."""
    gpus: float = 0.0
    """GPUs that its trials take."""
    memory_mb: float = 0.0
    """Memory that is reserved for its trials."""


def find_running_studies() -> list[RunningStudy]:
    """List the studies that this user runs on this machine now."""
    running_studies: list[RunningStudy] = []
    folder = _folder()
    if folder is None:
        return running_studies
    for file in sorted(folder.glob("*.json")):
        try:
            with FileLock(file.with_suffix(".lock")).acquire(timeout=0):
                file.unlink(missing_ok=True)  # the process of the study has ended
        except Timeout:
            running_studies.append(RunningStudy(**json.loads(file.read_text())))
    return running_studies


@contextmanager
def announce(study: RunningStudy) -> Iterator[None]:
    """Let other studies find this study, or this confirmation, until the block ends."""
    folder = _folder()
    if folder is None:
        yield
        return
    file = folder / f"{os.getpid()}.json"
    with FileLock(file.with_suffix(".lock")):
        file.write_text(json.dumps(asdict(study)))
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _folder() -> Path | None:
    """The folder of the announcements, in which no other user can put anything; None if somebody else made it."""
    folder = Path(tempfile.gettempdir()) / f"tunesmith-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    made = folder.lstat()  # a link is not followed: files are removed from the folder
    is_private = stat.S_ISDIR(made.st_mode) and made.st_uid == os.getuid() and stat.S_IMODE(made.st_mode) == 0o700
    return folder if is_private else None
