"""Standard output that stays a text: nothing in it commands a terminal, and a reader that goes away does no harm."""

import io
import os
import signal
import sys
from pathlib import Path


def printable(text: str) -> str:
    """A text in which what would command a terminal, or reorder its line, is spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which it stays."""
    return "\n".join(printable(line) for line in text.split("\n"))


def format_value(value: object) -> str:
    """A number with four significant digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def shorten(text: str, length: int) -> str:
    """A text of at most so many characters, with an ellipsis where its end is left out."""
    return text if len(text) <= length else text[: length - 1] + "…"


def short_path(path: Path) -> Path:
    """A path as one would type it: relative to the current folder, if that is not longer."""
    return min((path, Path(os.path.relpath(path))), key=lambda form: len(str(form)))


def show_event(sentence: str) -> None:
    """Print what happened to a study, between the lines of its trials."""
    print(f"  ! {sentence}", flush=True)


_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Beginnings that make a spreadsheet compute a cell instead of showing it; the last four are the wide ones."""


def spreadsheet_cell(text: str) -> str:
    """A text in one line, with an apostrophe before it if a spreadsheet would compute it."""
    line = printable(text)
    return f"'{line}" if line.startswith(_FORMULA) else line


def guard_output(*, outlive_reader: bool) -> None:
    """Let all that this process prints from now on go through `printable_lines`.

    Args:
        outlive_reader: Whether the program goes on when nobody reads any more (`| head -1`); otherwise it ends quietly.
    """
    if sys.stdout is not None:
        descriptor = _Descriptor(sys.stdout.fileno(), outlive_reader)
        sys.stdout = _Text(io.BufferedWriter(descriptor), encoding=sys.stdout.encoding, errors="backslashreplace")


class _Text(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return super().write(printable_lines(text))


class _Descriptor(io.FileIO):
    def __init__(self, number: int, outlive_reader: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._outlive_reader = outlive_reader

    def write(self, content: object) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # also for what is still buffered
            if not self._outlive_reader:
                sys.exit(128 + signal.SIGPIPE)
            return super().write(content)  # type: ignore[arg-type]
