"""The folder of a trial, in which it can write, and the log of what it prints."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from io import FileIO, RawIOBase, StringIO, TextIOWrapper, UnsupportedOperation
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

TRIAL_FOLDER = "TUNESMITH_TRIAL_FOLDER"
"""Environment variable that names the folder, for the training and for the processes that it starts."""
LOG = "log.txt"
UNENDED = "went-on.txt"
"""File with the end of a trial whose training went on after it, until its worker was ended, and with its stack."""
LONGEST_LOG = 10_000_000
"""Bytes of a log that are kept, and of what a trial prints into the log of its worker."""
CHECK_SECONDS = 1.0
"""After this time a log is shortened if child processes have printed too much into it."""
LEFT_OUT = b"\n... the rest is left out\n"


@contextmanager
def in_trial_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a trial; what the block and its child processes print also goes to its log.

    What the training changes in its environment is undone afterwards, for the next trial may run in the same process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    os.environ[TRIAL_FOLDER] = str(folder)
    try:
        with (folder / LOG).open("ab", buffering=0) as log, ExitStack() as stack:
            out, err = sys.stdout, sys.stderr
            if _has_descriptor(out) and _has_descriptor(err):
                out, err = (stack.enter_context(_redirected(stream, log)) for stream in (out, err))
            stack.enter_context(redirect_stdout(_Copy(out, log)))
            stack.enter_context(redirect_stderr(_Copy(err, log)))
            _keep_short(folder / LOG)
            yield
    finally:
        _shorten(folder / LOG)
        if os.environ != before:
            os.environ.clear()
            os.environ.update(before)


def _has_descriptor(stream: TextIO) -> bool:
    """Whether child processes write to the same place as a stream; a stream in memory is that of this process alone."""
    try:
        return not isinstance(stream, StringIO) and stream.fileno() > 0
    except UnsupportedOperation:
        return False


@contextmanager
def _redirected(stream: TextIO, log: FileIO) -> Iterator[TextIO]:
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


_logs: list[Path] = []
"""Logs of the trials of this process; what one has left running may still print into its log."""


def _keep_short(log: Path) -> None:
    """Cut off, as long as this process lives, what child processes print beyond the longest log."""
    _logs.append(log)
    _start_to_keep_short()


@cache
def _start_to_keep_short() -> None:
    Thread(target=_keep_all_short, name="keeps logs short", daemon=True).start()


def _keep_all_short() -> None:
    while True:
        time.sleep(CHECK_SECONDS)
        for log in [*_logs]:
            _shorten(log)


def _shorten(log: Path) -> None:
    try:
        if log.stat().st_size > LONGEST_LOG + len(LEFT_OUT):
            os.truncate(log, LONGEST_LOG)
            with log.open("ab") as end:
                end.write(LEFT_OUT)
    except OSError:  # somebody has removed it, or the disk is full
        pass


class _Copy(TextIOWrapper):
    """Takes the place of a stream: writes to it and to a log, until the log is too long.

    It has what programs use of a standard output: `buffer`, `encoding`, `reconfigure`. It stays open.
    """

    def __init__(self, stream: TextIO, log: FileIO) -> None:
        super().__init__(_Both(stream, log), encoding="utf-8", errors="backslashreplace", write_through=True)

    def close(self) -> None:
        """Write what waits."""
        self.flush()


class _Both(RawIOBase):
    """Writes bytes to a stream and to a log, until the log is full."""

    def __init__(self, stream: TextIO, log: FileIO) -> None:
        self._stream = stream
        self._log = log
        self.name = getattr(stream, "name", None)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes to both."""
        content = bytes(data)
        left = LONGEST_LOG - os.fstat(self._log.fileno()).st_size
        if left >= 0:  # what is left out is told only once
            written = content if len(content) <= left else content[:left] + LEFT_OUT
            self._log.write(written)
            self._stream.write(written.decode(errors="backslashreplace"))
            self._stream.flush()
        return len(content)

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self._stream.fileno()

    def close(self) -> None:
        """Leave both open."""
