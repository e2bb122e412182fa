"""A progress bar on a terminal; without a terminal nothing is shown."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from training.console.notebook import in_notebook

Update = Callable[[float, str], None]
"""A function of the finished amount and of a note behind the bar."""


def shows_more_than_lines() -> bool:
    """Whether standard output is a terminal that can replace a line."""
    return not in_notebook() and sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_bar(description: str, total: float | None = None) -> Iterator[Update]:
    """Show a bar in this context and then remove it; `total` is None for an unknown amount of work."""
    if not shows_more_than_lines():
        yield lambda _done, _note: None
        return
    from rich.console import Console  # a fifth of a second
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as terminal:  # not through `guard_output`
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        console = Console(file=terminal, highlight=False)
        with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            task = bar.add_task(description, total=total, note="")
            yield lambda done, note: bar.update(task, completed=done, note=note)
