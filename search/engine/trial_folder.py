"""The folder of a trial, in which it can write, and the log of what it prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import TextIO

TRIAL_FOLDER = "TUNESMITH_TRIAL_FOLDER"
"""Environment variable that names the folder, for the training and for the processes that it starts."""
LOG = "log.txt"
LONGEST_LOG = 10_000_000
"""Characters of a log that are kept."""


@contextmanager
def in_trial_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a trial; what the block prints also goes to its log."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(TRIAL_FOLDER)
    os.environ[TRIAL_FOLDER] = str(folder)
    try:
        with (folder / LOG).open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
            out, err = _Copy(sys.stdout, log), _Copy(sys.stderr, log)
            with redirect_stdout(out), redirect_stderr(err):
                yield
    finally:
        if before is None:
            del os.environ[TRIAL_FOLDER]
        else:
            os.environ[TRIAL_FOLDER] = before


class _Copy(TextIOBase):
    """Writes to a stream and to a log, until the log is too long."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        """Write a text to both."""
        left = LONGEST_LOG - self._log.tell()
        if left > 0:
            self._log.write(text if len(text) <= left else f"{text[:left]}\n... the rest is left out\n")
        return self._stream.write(text)

    def flush(self) -> None:
        """Write what waits."""
        self._stream.flush()

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self._stream.fileno()
