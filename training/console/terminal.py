"""Text for terminals without control characters, and an output that survives the end of its reader."""

import getpass
import io
import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from textwrap import fill

from training.console.json_output import set_standard_output_aside, write_event

LONGEST_TEXT = 10_000
"""Longer texts of errors are cut before they become one line."""


def printable(text: str) -> str:
    """A text with escape sequences instead of control characters and characters that change the direction."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """A text of several lines, each of which is `printable`."""
    return "\n".join(printable(line) for line in text.split("\n"))


def format_value(value: object) -> str:
    """A value as text; a float has four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def format_metric(value: float) -> str:
    """A metric as text: four decimals, or four significant digits where four decimals would hide them.

    Above 1 it has no zeros at its end: 97.78, but 0.9500, as all accuracies in [0, 1] have four decimals.
    """
    if value != 0 and not 0.001 <= abs(value) < 1e6:
        return f"{value:.4g}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) > 1 else f"{value:.4f}"


def format_share(share: float) -> str:
    """A part of a whole in whole percent; below 1 %, with one significant digit: 80%, 0.03%, <0.001%."""
    if 0 < share < 0.0095:
        return f"{100 * share:.1g}%" if share >= 1e-5 else "<0.001%"
    return f"{share:.0%}"


def counted(number: int, noun: str) -> str:
    """A number and its noun, which gets an s unless the number is 1: 1 epoch, 1,000 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(text: str, length: int) -> str:
    """A text cut to at most `length` characters; an ellipsis replaces the end."""
    return text if len(text) <= length else text[: length - 1] + "…"


def shorten_middle(text: str, length: int) -> str:
    """A text cut to at most `length` characters; a line that says so replaces the middle."""
    if len(text) <= length:
        return text
    gap = "\n... (the text is longer)\n"
    half = (length - len(gap)) // 2
    return text[:half] + gap + text[-half:]


def type_and_text(error: BaseException) -> str:
    """The type and the text of an error in one line; the type alone if it has no text."""
    return ": ".join(filter(None, [type(error).__name__, " ".join(shorten(str(error), LONGEST_TEXT).split())]))


def short_path(path: Path) -> Path:
    """A path relative to the current folder, or the path itself if that is shorter."""
    try:
        return min((path, Path(os.path.relpath(path))), key=lambda form: len(str(form)))
    except FileNotFoundError:  # a training has removed the current folder
        return path


def text_width() -> int:
    """Characters of a line of text: those of the terminal, at most 100; 80 where there is no terminal."""
    return min(shutil.get_terminal_size().columns, 100)


def wrapped(text: str, *, indent: str = "", hanging: str | None = None) -> str:
    """A sentence in lines that are broken between words.

    Args:
        text: The sentence.
        indent: What every line begins with.
        hanging: What the second and later lines begin with instead, if that is different.
    """
    later = indent if hanging is None else hanging
    filled = fill(
        text.replace(" %", "\N{NO-BREAK SPACE}%"),  # a number and its unit stay in one line
        text_width(),
        initial_indent=indent,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\N{NO-BREAK SPACE}%", " %")


def show_event(sentence: str) -> None:
    """Print a sentence about an event of a study between the lines of its trials; with `--json`, also as an object."""
    print(f"  ! {sentence}", flush=True)
    write_event(sentence)


def this_user() -> str:
    """The user of this process and the machine, for example ada on host7."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = f"user {os.getuid()}"
    return printable(f"{user} on {platform.node()}")


_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of cells that a spreadsheet computes; the last four are full-width characters."""


def spreadsheet_cell(text: str) -> str:
    """A text in one line, after an apostrophe if a spreadsheet would compute it."""
    line = printable(text)
    return f"'{line}" if line.startswith(_FORMULA) else line


def print_error(line: str) -> None:
    """Print a line on stderr; if this fails, for example because the disk is full, nothing more is printed there."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # what is still in the buffer would fail again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def guard_output(*, outlive_reader: bool) -> None:
    """Pass the output of this process through `printable_lines` from now on.

    Args:
        outlive_reader: Whether the program goes on when its reader ends (`| head -1`) or its output cannot be written,
            for example because the disk is full; otherwise it ends.
    """
    _open_closed_streams()
    descriptor = _Descriptor(sys.stdout.fileno(), outlive_reader)
    sys.stdout = _Text(io.BufferedWriter(descriptor), encoding=sys.stdout.encoding, errors="backslashreplace")


def guard_json_output(*, outlive_reader: bool) -> io.BufferedWriter:
    """Guard the output as `guard_output` does, and keep standard output for objects: all text goes to standard error.

    Returns:
        Standard output, for bytes. When its reader ends, the program goes on or ends as without `--json`.
    """
    _open_closed_streams()
    descriptor = _Descriptor(set_standard_output_aside(), outlive_reader, closefd=True)
    guard_output(outlive_reader=True)
    return io.BufferedWriter(descriptor)


def _open_closed_streams() -> None:
    """Open standard streams that are closed (`>&-`), so that no other file gets their numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


class _Text(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return super().write(printable_lines(text))


class _Descriptor(io.FileIO):
    def __init__(self, number: int, outlive_reader: bool, *, closefd: bool = False) -> None:
        super().__init__(number, "w", closefd=closefd)
        self._outlive_reader = outlive_reader

    def write(self, content: object) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except BrokenPipeError:
            return self._end(content, 128 + signal.SIGPIPE)
        except OSError as error:  # such as a full disk
            print_error(f"error: standard output cannot be written: {error.strerror}")
            return self._end(content, 1)

    def _end(self, content: object, status: int) -> int:
        """End the program with this status, or go on without this output."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # also for the buffered rest
        if not self._outlive_reader:
            sys.exit(status)
        return super().write(content)  # type: ignore[arg-type]
