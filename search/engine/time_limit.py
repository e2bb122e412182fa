"""The time limit of a trial, which ends its worker."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def timeout_file(checkpoint: Path) -> Path:
    """Name the file into which a worker writes its stack when its time is up."""
    return checkpoint.with_suffix(".timeout.txt")


@contextmanager
def time_limit(seconds: float | None, checkpoint: Path) -> Iterator[None]:
    """End this process if the block takes longer; a C thread does this, so it works even if Python hangs."""
    if seconds is None:
        yield
        return
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    timeout_file(checkpoint).unlink(missing_ok=True)
    with timeout_file(checkpoint).open("x") as stream:  # x: a link in a folder that somebody sent is not followed
        faulthandler.dump_traceback_later(seconds, exit=True, file=stream)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
