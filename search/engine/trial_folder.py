"""The folder of a trial, in which it can write, and the log of what it prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO, TextIOBase, UnsupportedOperation
from pathlib import Path
from typing import TextIO

TRIAL_FOLDER = "TUNESMITH_TRIAL_FOLDER"
"""Environment variable that names the folder, for the training and for the processes that it starts."""
LOG = "log.txt"
LONGEST_LOG = 10_000_000
"""Bytes of a log that are kept."""
LEFT_OUT = "\n... the rest is left out\n"


@contextmanager
def in_trial_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a trial; what the block and its child processes print also goes to its log."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(TRIAL_FOLDER)
    os.environ[TRIAL_FOLDER] = str(folder)
    try:
        with (folder / LOG).open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
            with ExitStack() as stack:
                out, err = sys.stdout, sys.stderr
                if _has_descriptor(out) and _has_descriptor(err):
                    out, err = (stack.enter_context(_redirected(stream, log)) for stream in (out, err))
                stack.enter_context(redirect_stdout(_Copy(out, log)))
                stack.enter_context(redirect_stderr(_Copy(err, log)))
                yield
            _shorten(log)
    finally:
        if before is None:
            del os.environ[TRIAL_FOLDER]
        else:
            os.environ[TRIAL_FOLDER] = before


def _has_descriptor(stream: TextIO) -> bool:
    """Whether child processes write to the same place as a stream; a stream in memory is that of this process alone."""
    try:
        return not isinstance(stream, StringIO) and stream.fileno() > 0
    except UnsupportedOperation:
        return False


@contextmanager
def _redirected(stream: TextIO, log: TextIO) -> Iterator[TextIO]:
    """Let the descriptor of a stream lead to a log, and return a stream that leads where it led.

    So the log has what child processes print, and the last words of a process that crashes.
    """
    descriptor = stream.fileno()
    stream.flush()
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="backslashreplace", buffering=1) as original:
        os.dup2(log.fileno(), descriptor)
        try:
            yield original
        finally:
            os.dup2(original.fileno(), descriptor)


def _shorten(log: TextIO) -> None:
    """Cut off what child processes have printed beyond the longest log."""
    if log.tell() > LONGEST_LOG:
        log.truncate(LONGEST_LOG)
        log.write(LEFT_OUT)


class _Copy(TextIOBase):
    """Writes to a stream and to a log, until the log is too long."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        """Write a text to both."""
        left = LONGEST_LOG - self._log.tell()
        if left > 0:
            self._log.write(text if len(text) <= left else f"{text[:left]}{LEFT_OUT}")
        return self._stream.write(text)

    def flush(self) -> None:
        """Write what waits."""
        self._stream.flush()

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self._stream.fileno()
