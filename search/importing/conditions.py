"""Finds the space of an imported study: the range of each hyperparameter, and the condition under which it is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.importing.foreign_study import ForeignStudy, ForeignTrial
from search.importing.guessing import guess
from search.importing.names import hyperparameter_names
from search.space.distributions import HyperparameterValue, values_of
from search.space.search_space import SearchSpace, parse
from training.console.terminal import counted, printable

MOST_OF_PARENT = 20
"""A hyperparameter depends only on one of at most so many values."""

Point = dict[str, HyperparameterValue]


@dataclass(frozen=True)
class FoundSpace:
    """The space of an imported study."""

    space: SearchSpace
    points: list[Point]
    """The searched hyperparameters of each trial."""
    guessed: list[str]
    """The hyperparameters whose ranges were guessed."""
    remarks: list[str]


def find_space(study: ForeignStudy) -> FoundSpace:
    """Find the space of a study; a ValueError says that no hyperparameter differs."""
    names = dict.fromkeys(name for trial in study.trials for name in trial.hyperparameters)
    plain = hyperparameter_names(names)
    described: dict[str, dict[str, Any]] = {}
    points: list[Point] = [{} for _ in study.trials]
    left_out = []
    for name in names:
        having = [place for place, trial in enumerate(study.trials) if name in trial.hyperparameters]
        values = [study.trials[place].hyperparameters[name] for place in having]
        if name in study.ranges:
            described[plain[name]], converted = _fixed_if_single(study.ranges[name]), values
        elif guessed := guess(values):
            described[plain[name]], convert = guessed
            converted = [*map(convert, values)]
        else:
            left_out.append(plain[name])
            continue
        if "value" not in described[plain[name]]:
            for place, value in zip(having, converted, strict=True):
                points[place][plain[name]] = value
    if all("value" in one for one in described.values()):
        raise ValueError("none of its hyperparameters has several values, so there is nothing to report")
    space, unexplained = _with_conditions(described, study.trials, points)
    remarks = [f"{name} has another text in nearly every trial, so it is no hyperparameter here." for name in left_out]
    remarks += [
        f"{counted(number, 'trial')} {'has' if number == 1 else 'have'} no {name}, without a reason in other columns."
        for name, number in unexplained.items()
    ]
    changed = [f"{printable(name)} is called {new}" for name, new in plain.items() if name != new]
    remarks += [f"Names were changed: {', '.join(changed)}."] if changed else []
    guessed_names = [plain[name] for name in names if name not in study.ranges and plain[name] in space]
    return FoundSpace(space, points, guessed_names, remarks)


def _fixed_if_single(described: dict[str, Any]) -> dict[str, Any]:
    """A range, or the value of a range that has only one."""
    choices = described.get("choices", ())
    if len(choices) == 1:
        return {"value": choices[0]}
    return {"value": described["low"]} if "low" in described and described["low"] == described["high"] else described


def _with_conditions(
    described: dict[str, dict[str, Any]], trials: Sequence[ForeignTrial], points: Sequence[Point]
) -> tuple[SearchSpace, dict[str, int]]:
    """The space with the conditions that explain which trials lack a hyperparameter, and the others that lack one."""
    plain = parse(described)
    ended = [
        point
        for trial, point in zip(trials, points, strict=True)
        if trial.status in ("completed", "stopped_early")  # others may have ended before they had all
    ]
    lacking = {name: number for name in plain if (number := sum(name not in point for point in ended))}
    conditions: dict[str, dict[str, list[HyperparameterValue]]] = {}
    for name in lacking:
        for parent in plain:
            allowed = _allowed(plain, name, parent, ended)
            if allowed and name not in _ancestors(parent, conditions):
                conditions[name] = {parent: allowed}
                break
    when = {name: {"when": condition} for name, condition in conditions.items()}
    tables = {name: table | when.get(name, {}) for name, table in described.items()}
    return parse(tables), {name: number for name, number in lacking.items() if name not in conditions}


def _allowed(space: SearchSpace, name: str, parent: str, points: Sequence[Point]) -> list[HyperparameterValue]:
    """The values of another hyperparameter with which trials have this one; empty if they do not decide it."""
    values = values_of(space[parent]) or ()
    if parent == name or not 1 < len(values) <= MOST_OF_PARENT:
        return []
    having = {point.get(parent) for point in points if name in point}
    lacking = {point.get(parent) for point in points if name not in point}
    if not having or None in having or having & lacking:
        return []
    return [value for value in values if value in having]


def _ancestors(name: str, conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A hyperparameter, and those on which it depends."""
    found = [name]
    for ancestor in found:
        found += [other for other in conditions.get(ancestor, ()) if other not in found]
    return found
