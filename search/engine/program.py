"""Runs a program of the user's own as a child of a worker, and reads what it prints."""

import os
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
"""Bytes of a line; a longer one is passed on in pieces."""
KEPT_BYTES = 1 << 18
"""Bytes of each output that are kept: more than a pipe holds, and what is read at once."""
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

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Callable[[Line], None], kept: Path
    ) -> None:
        """Prepare to run a command.

        Args:
            command: The program and its arguments.
            environment: Its environment variables.
            log: Receives each line, also those that are printed while the program ends.
            kept: Names two files that hold the end of both outputs, also of what nobody has read.
        """
        self._supervisor = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(GRACE_SECONDS)]
        self._command = command
        self._environment = environment
        self._log = log
        self._kept = kept

    def __enter__(self) -> Self:
        """Start the program."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        out_file, err_file = map(_new_file, _kept_files(self._kept))
        descriptors = [out, out_file, err, err_file]
        try:
            self._process = subprocess.Popen(
                [*self._supervisor, *map(str, descriptors), *self._command],
                stdin=subprocess.PIPE,
                stdout=out_end,
                stderr=err_end,
                pass_fds=descriptors,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the study
            )
        finally:
            os.close(out_end)
            os.close(err_end)
        self._selector = selectors.DefaultSelector()
        for descriptor, file, is_error_output in ((out, out_file, False), (err, err_file, True)):
            splitter = _Splitter(os.fdopen(descriptor, "rb"), os.fdopen(file, "r+b", buffering=0), is_error_output)
            self._selector.register(descriptor, selectors.EVENT_READ, splitter)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the program if it still runs."""
        assert self._process.stdin is not None, "a pipe"
        with suppress(OSError):  # the supervisor may have ended
            os.write(self._process.stdin.fileno(), b".")  # we live, and read the outputs to their end
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


def kept_lines(kept: Path) -> Iterator[Line]:
    """The last lines of a program, also of one whose reader has died; `kept` is what `Program` had."""
    for file, is_error_output in zip(_kept_files(kept), (False, True), strict=True):
        content = file.read_bytes() if file.is_file() else b""
        yield from (Line(line.decode(errors="replace"), is_error_output) for line in content.splitlines(keepends=True))


def _kept_files(kept: Path) -> list[Path]:
    """The files of standard output and standard error."""
    return [kept.with_suffix(".stdout"), kept.with_suffix(".stderr")]


def _new_file(file: Path) -> int:
    """Open a new file, to which several processes append; one that still has the old file does not disturb it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)


def _keep(file: IO[bytes], content: bytes) -> None:
    """Add bytes to a file; of one that grows too long, only the end remains."""
    file.write(content)
    if file.tell() > 2 * KEPT_BYTES:
        file.seek(-KEPT_BYTES, os.SEEK_END)
        end = file.read().partition(b"\n")[2]
        file.truncate(0)
        file.write(end)


def _seconds_to_wait(deadline: float | None) -> float:
    return IDLE_SECONDS if deadline is None else min(IDLE_SECONDS, max(0.0, deadline - time.monotonic()))


def _check_time(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise OutOfTimeError


class _Splitter:
    """Splits the bytes of an output into lines, which end with a line feed or, in progress bars, a carriage return."""

    def __init__(self, stream: IO[bytes], kept: IO[bytes], is_error_output: bool) -> None:
        self._stream = stream
        self._kept = kept
        self._is_error_output = is_error_output
        self._rest = b""

    def close(self) -> None:
        """Close the output, and the file that keeps its end."""
        self._stream.close()
        self._kept.close()

    def split(self, content: bytes) -> Iterator[Line]:
        """The lines that are complete with these bytes; no bytes are the end."""
        if content:
            with suppress(OSError):  # it is needed only if this process dies
                _keep(self._kept, content)
        lines = (self._rest + content).splitlines(keepends=True)
        is_whole = not content or lines[-1].endswith((b"\r", b"\n")) or len(lines[-1]) >= LONGEST_LINE
        self._rest = b"" if is_whole else lines.pop()
        yield from (Line(line.decode(errors="replace"), self._is_error_output) for line in lines)
