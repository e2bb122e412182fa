"""Ends the worker of a trial that takes too long, or whose training goes on after its end."""

import faulthandler
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer, get_ident
from typing import IO, TypeAlias

from search.engine.program import GRACE_SECONDS
from search.engine.reporter import OnRefused
from search.engine.trial_folder import UNENDED
from training.user_code import describe_error

Publish: TypeAlias = Callable[[Path], None] | None
"""Makes a file known to the driver, if it does not see the folder of the file."""
PUBLISHING_SECONDS = 30.0
"""Seconds in which this is done, before the process ends without it."""


def timeout_file(checkpoint: Path) -> Path:
    """Name the file into which a worker writes the thread of the training, and all stacks when its time is up."""
    return checkpoint.with_suffix(".timeout.txt")


def read_stacks(checkpoint: Path) -> str:
    """Read the stacks of a worker whose time is up, that of its training first; empty if its time was not up."""
    file = timeout_file(checkpoint)
    thread, _, text = file.read_text().partition("\n") if file.is_file() else ("", "", "")
    head, *stacks = re.split(r"^(?=Thread |Current thread )", text, flags=re.MULTILINE)
    return head + "".join(sorted(stacks, key=lambda stack: thread not in stack.partition("\n")[0]))


@contextmanager
def time_limit(seconds: float | None, checkpoint: Path, publish: Publish = None) -> Iterator[None]:
    """End this process if the block takes longer."""
    if seconds is not None:
        _end_process_after(seconds, timeout_file(checkpoint), f"0x{get_ident():016x}\n", publish)
    try:
        yield
    finally:
        _cancel()


def ending_process(folder: Path, publish: Publish = None) -> OnRefused:
    """A function that ends this process soon, for a training that catches the end of its trial and goes on."""
    return lambda end: _end_process_after(GRACE_SECONDS, folder / UNENDED, f"{describe_error(end)}\n", publish)


_timers: list[Timer] = []
"""The timer that publishes a file and ends this process; none if the driver sees the file."""


def _cancel() -> None:
    """Let this process live."""
    faulthandler.cancel_dump_traceback_later()
    while _timers:
        _timers.pop().cancel()


def _end_process_after(seconds: float, file: Path, text: str, publish: Publish) -> None:
    """End this process after some time, with its stack in a file; a C thread does it, even if Python hangs.

    A file that must be published is published by a thread of Python. If Python hangs, it is not, and the driver sees
    that a worker has died.
    """
    _cancel()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    stream = file.open("x")  # x: a link in a folder that somebody sent is not followed
    stream.write(text)
    stream.flush()
    if publish is not None:
        _timers.append(Timer(seconds, _publish_and_end, [stream, file, publish]))
        _timers[-1].daemon = True
        _timers[-1].start()
        seconds += PUBLISHING_SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=stream)  # which keeps it open


def _publish_and_end(stream: IO[str], file: Path, publish: Callable[[Path], None]) -> None:
    """Write the stacks into a file, publish it, and end this process."""
    faulthandler.dump_traceback(stream)
    publish(file)
    os._exit(1)
