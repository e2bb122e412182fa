"""Runs a program of the user's own as a child of a worker, and reads what it prints."""

import codecs
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

GRACE_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL."""
IDLE_SECONDS = 0.5
"""After this time without output, its reader gets a word."""
LONGEST_LINE = 100_000
"""Characters of a line; a longer one is passed on in pieces."""
_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class OutOfTimeError(Exception):
    """A program has not ended in time."""


@dataclass(frozen=True)
class Line:
    """A line of a program, or a piece of a long one, with its end."""

    text: str
    is_error_output: bool


class Program:
    """A program that runs while its block does; at the end of the block, or of this process, its processes end, too.

    They get SIGTERM, and SIGKILL ten seconds later. This is done by a process between (`supervisor.py`), which sees
    that this one closes a pipe, or that the system does because this process was killed.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Callable[[Line], None]) -> None:
        """Prepare to run a command.

        Args:
            command: The program and its arguments.
            environment: Its environment variables.
            log: Receives each line, also those that are printed while the program ends.
        """
        self._command = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(GRACE_SECONDS), *command]
        self._environment = environment
        self._log = log

    def __enter__(self) -> Self:
        """Start the program."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C in a terminal is for the study
        )
        self._selector = selectors.DefaultSelector()
        for stream, is_error_output in ((self._process.stdout, False), (self._process.stderr, True)):
            assert stream is not None, "a pipe"
            self._selector.register(stream, selectors.EVENT_READ, _Splitter(stream, is_error_output))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the program if it still runs."""
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.close()
        for _line in self.lines(None):
            pass
        self._selector.close()

    def lines(self, seconds: float | None) -> Iterator[Line | None]:
        """The lines of both outputs as they come, until all processes of the program have ended; None while none comes.

        Raises:
            OutOfTimeError: This takes longer than these seconds.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._selector.get_map():
            ready = self._selector.select(_seconds_to_wait(deadline))
            if not ready:
                yield None
            for key, _ in ready:
                content = os.read(key.fd, 1 << 16)
                if not content:
                    self._selector.unregister(key.fileobj)
                    key.data.close()
                for line in key.data.split(content):
                    self._log(line)
                    yield line
            _check_time(deadline)
        while self._process.poll() is None:  # it may have closed its outputs
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_seconds_to_wait(deadline))
            yield None
            _check_time(deadline)

    @property
    def status(self) -> int:
        """The exit status of a program that has ended; 128 and the number of a signal if one has ended it."""
        return self._process.wait()


def _seconds_to_wait(deadline: float | None) -> float:
    return IDLE_SECONDS if deadline is None else min(IDLE_SECONDS, max(0.0, deadline - time.monotonic()))


def _check_time(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise OutOfTimeError


class _Splitter:
    """Splits the bytes of an output into lines, which end with a line feed or, in progress bars, a carriage return."""

    def __init__(self, stream: IO[bytes], is_error_output: bool) -> None:
        self.close = stream.close
        self._is_error_output = is_error_output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def split(self, content: bytes) -> Iterator[Line]:
        """The lines that are complete with these bytes; no bytes are the end."""
        text = self._rest + self._decoder.decode(content, final=not content)
        *lines, self._rest = re.split(r"(?<=[\r\n])", text)
        if self._rest and (not content or len(self._rest) >= LONGEST_LINE):
            lines.append(self._rest)
            self._rest = ""
        yield from (Line(line, self._is_error_output) for line in lines)
