"""A bar on a terminal while something takes time; nothing where there is no terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[float, str], None]
"""Takes how much is done, and a note that stands behind the bar."""


def shows_more_than_lines() -> bool:
    """Whether standard output is a terminal on which a line can be drawn again."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_bar(words: str, total: float | None = None) -> Iterator[Update]:
    """Show a bar until the block ends, then take it away.

    Args:
        words: What is being done.
        total: How much there is to do; None if nobody knows.

    Yields:
        What moves the bar.
    """
    if not shows_more_than_lines():
        yield lambda _done, _note: None
        return
    from rich.console import Console  # a fifth of a second
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as terminal:  # past what guards standard output
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        console = Console(file=terminal, highlight=False)
        with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            task = bar.add_task(words, total=total, note="")
            yield lambda done, note: bar.update(task, completed=done, note=note)
