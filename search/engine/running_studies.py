"""Finds other studies that run on this machine, so that a new study does not use their cores."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout


@dataclass(frozen=True)
class RunningStudy:
    """A study that runs on this machine."""

    study: str
    cpus: int
    """Cores that its trials take."""


def find_running_studies() -> list[RunningStudy]:
    """List the studies that this user runs on this machine now."""
    running_studies = []
    for file in sorted(_folder().glob("*.json")):
        try:
            with FileLock(file.with_suffix(".lock")).acquire(timeout=0):
                file.unlink(missing_ok=True)  # the process of the study has ended
        except Timeout:
            running_studies.append(RunningStudy(**json.loads(file.read_text())))
    return running_studies


@contextmanager
def announce(study: str, cpus: int) -> Iterator[None]:
    """Let other studies find this study until the block ends."""
    file = _folder() / f"{os.getpid()}.json"
    with FileLock(file.with_suffix(".lock")):
        file.write_text(json.dumps(asdict(RunningStudy(study, cpus))))
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _folder() -> Path:
    """The folder of the announcements, which only this user can write; a folder of another user is not used."""
    folder = Path(tempfile.gettempdir()) / f"tunesmith-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="tunesmith-"))
    return folder
