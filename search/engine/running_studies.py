"""Other studies that run on this machine: a study that starts beside them leaves them their cores."""

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
    """The studies that this user runs on this machine now."""
    found = []
    for file in sorted(_folder().glob("*.json")):
        try:
            with FileLock(file.with_suffix(".lock")).acquire(timeout=0):
                file.unlink(missing_ok=True)  # its process is no more
        except Timeout:
            found.append(RunningStudy(**json.loads(file.read_text())))
    return found


@contextmanager
def announced(study: str, cpus: int) -> Iterator[None]:
    """While this lasts, other studies find this one."""
    file = _folder() / f"{os.getpid()}.json"
    with FileLock(file.with_suffix(".lock")):
        file.write_text(json.dumps(asdict(RunningStudy(study, cpus))))
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _folder() -> Path:
    """A folder that only this user can write; if somebody else has made it, it is as good as empty."""
    folder = Path(tempfile.gettempdir()) / f"tunesmith-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="tunesmith-"))
    return folder
