"""Names of other programs in the form that a study can have."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from search.space.search_space import LONGEST_NAME
from search.task.metric_names import check_metric_name
from training.console.terminal import printable

_LONGEST_METRIC = 60


def hyperparameter_names(names: Iterable[str]) -> dict[str, str]:
    """A name for each hyperparameter that tables, terminals and `--set NAME=VALUE` can hold, all different."""
    chosen: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"^\W+", "", printable(name).replace("=", "_").strip())[: LONGEST_NAME - 4].strip() or "unnamed"
        chosen[name] = _different(plain, chosen.values())
    return chosen


def metric_names(names: Iterable[str]) -> dict[str, str]:
    """A name for each metric of letters, digits and some signs, all different."""
    chosen: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_./:@ -]", "_", name)[: _LONGEST_METRIC - 4].rstrip("./:@ -")
        plain = plain if re.match(r"[A-Za-z]", plain) else f"metric_{plain}"[: _LONGEST_METRIC - 4].rstrip("./:@ -")
        chosen[name] = _different(plain, chosen.values())
        check_metric_name(chosen[name])
    return chosen


def folder_name(name: str) -> str:
    """A name for the folder of a study, of letters, digits, dots, dashes and underscores."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:80].rstrip("._-")
    return plain if plain and plain != "latest" else "imported"


def flattened(values: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """A dictionary of dictionaries as one, whose names are joined; other values are left as they are."""
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [(str(name), value) for name, value in reversed([*values.items()])]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping) and value:
            waiting += [(f"{name}{separator}{inner}", one) for inner, one in reversed([*value.items()])]
        else:
            flat[name] = value
    return flat


def _different(name: str, others: Iterable[str]) -> str:
    taken, number, different = set(others), 2, name
    while different in taken:
        different, number = f"{name}_{number}", number + 1
    return different
