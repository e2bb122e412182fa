"""Finds what a program reports among the lines that it prints: JSON objects, printed dictionaries, or a pattern."""

import json
import re
from collections.abc import Mapping
from typing import Any

EPOCH = "epoch"
"""Name of the number by which a program counts its epochs."""
NO_MATCH = "the pattern of --parse is in no line of its output"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_JSON_WORDS = {"'": '"', "nan": "NaN", "inf": "Infinity", "True": "true", "False": "false", "None": "null"}
"""What `print` writes of a dictionary, and what JSON writes."""


class ReportLines:
    """Reads the lines of a program one by one; those without the searched metric belong to the next one that has it."""

    def __init__(self, metric: str, pattern: str | None) -> None:
        """Read nothing yet.

        Args:
            metric: The searched metric, which makes a report complete.
            pattern: Regular expression with a named group for each metric; None where the program prints JSON objects.
        """
        self._metric = metric
        self._pattern = None if pattern is None else re.compile(pattern)
        self._numbers: dict[str, Any] = {}

    def describe_unreported(self) -> str:
        """Say what came without the searched metric, since the last report."""
        names = [name for name in self._numbers if name != EPOCH]
        if names:
            return f"it has reported {', '.join(names)}"
        return "it has reported no number" if self._pattern is None else NO_MATCH

    def read(self, line: str, *, is_error_output: bool) -> dict[str, Any] | None:
        """Read a line.

        Args:
            line: The line.
            is_error_output: Whether it came on standard error, where only a pattern is looked for.

        Returns:
            The metrics of an epoch by name, with the program's own number of the epoch if it says one; None if the
            line does not complete a report.
        """
        line = without_colours(line)
        if self._pattern is not None:
            found = self._pattern.search(line)
            self._numbers |= _groups(found) if found else {}
        elif not is_error_output:
            self._numbers |= _json_numbers(line, self._metric)
        if self._metric not in self._numbers:
            return None
        report, self._numbers = self._numbers, {}
        return report


def without_colours(line: str) -> str:
    """A line without the signs that change its colour in a terminal."""
    return _COLOURS.sub("", line)


def _groups(found: re.Match[str]) -> dict[str, Any]:
    """The named groups of a match: numbers, or else the text itself, of which the reporter complains."""
    return {name: _number(text.rstrip(".,")) for name, text in found.groupdict().items() if text is not None}


def _number(value: Any) -> Any:
    """A number that is written as text; other values as they are."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _json_numbers(line: str, metric: str) -> dict[str, Any]:
    """The numbers in a line that is a JSON object or a printed dictionary, and the metric whatever it is."""
    text = line.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return {}
    for candidate in (text, re.sub(r"'|\b(nan|inf|True|False|None)\b", lambda word: _JSON_WORDS[word[0]], text)):
        try:
            values = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        return _numbers(values, metric)
    return {}


def _numbers(values: Mapping[str, Any], metric: str) -> dict[str, Any]:
    read = {name: _number(value) for name, value in values.items() if value is not None}
    return {name: value for name, value in read.items() if isinstance(value, int | float) or name == metric}
