"""Objects for other programs: with `--json` they alone reach standard output, each in one line."""

import json
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

OPTION, NEGATED = "--json", "--no-json"
JsonValue = Any
"""What `json.loads` returns: a number, a text, a boolean, None, a list or a dictionary."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something has happened to a running study that its user should know."""

    type: Literal["event"] = "event"
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Error:
    """The command ends without its result; its exit status is not 0."""

    type: Literal["error"] = "error"
    message: str
    """Why, in one sentence, which standard error has, too."""


class _Lines:
    """Writes each object as a whole line at once, from whatever thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.has_events = False
        self._lock = threading.Lock()

    def write(self, thing: object) -> None:
        line = json.dumps(plain(thing), allow_nan=False).encode() + b"\n"
        with self._lock:
            self.stream.write(line)
            self.stream.flush()


_lines: _Lines | None = None
"""Standard output of a command with `--json`; None without it, and in programs that call Python functions."""


def asks_for_json(args: Sequence[str]) -> bool:
    """Whether a command line has `--json`; it is asked before the command line is parsed, because that may fail."""
    chosen = [arg for arg in args if arg in (OPTION, NEGATED)]
    return chosen[-1:] == [OPTION]


def set_standard_output_aside() -> int:
    """Let all that is printed from now on, by whatever library, go to standard error.

    Returns:
        A descriptor of standard output; started processes do not inherit it.
    """
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor


@contextmanager
def objects_written_to(stream: BinaryIO) -> Iterator[None]:
    """In this context, `write_object` writes to this stream."""
    global _lines  # noqa: PLW0603 (standard output is global, too)
    _lines = _Lines(stream)
    try:
        yield
    finally:
        _lines = None
        stream.close()


def write_object(thing: object) -> None:
    """Write a dataclass as one line of JSON if the command was called with `--json`; otherwise nothing is written."""
    if _lines:
        _lines.write(thing)


def write_events() -> None:
    """From now on, also write what `write_event` gets; only commands that write an object a line do so."""
    if _lines:
        _lines.has_events = True


def write_event(sentence: str) -> None:
    """Write an `Event` if this command writes events."""
    if _lines and _lines.has_events:
        _lines.write(Event(sentence=sentence))


def plain(value: object) -> JsonValue:
    """A dataclass, or a part of one, as values for JSON: numbers that are not finite are None, paths are texts."""
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str | Path):
        return str(value).encode("utf-8", "backslashreplace").decode()  # names of files may be no text
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in _type_first(value)}
    raise TypeError(f"JSON has no {type(value).__name__}")


def _type_first(thing: Any) -> list[Any]:
    return sorted(fields(thing), key=lambda field: field.name != "type")
