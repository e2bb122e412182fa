"""Ends the worker of a trial that takes too long, or whose training goes on after its end."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.engine.program import GRACE_SECONDS
from search.engine.reporter import OnRefused
from search.engine.trial_folder import UNENDED
from training.user_code import describe_error


def timeout_file(checkpoint: Path) -> Path:
    """Name the file into which a worker writes its stack when its time is up."""
    return checkpoint.with_suffix(".timeout.txt")


@contextmanager
def time_limit(seconds: float | None, checkpoint: Path) -> Iterator[None]:
    """End this process if the block takes longer."""
    if seconds is not None:
        _end_process_after(seconds, timeout_file(checkpoint), "")
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def ending_process(folder: Path) -> OnRefused:
    """A function that ends this process soon, for a training that catches the end of its trial and goes on."""
    return lambda end: _end_process_after(GRACE_SECONDS, folder / UNENDED, f"{describe_error(end)}\n")


def _end_process_after(seconds: float, file: Path, text: str) -> None:
    """End this process after some time, with its stack in a file; a C thread does it, even if Python hangs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    stream = file.open("x")  # x: a link in a folder that somebody sent is not followed
    stream.write(text)
    stream.flush()
    faulthandler.dump_traceback_later(seconds, exit=True, file=stream)  # which keeps it open
