"""Reads a study from a storage of Optuna: a file of sqlite, or a PostgreSQL server; no code of Optuna sees it.

The tables are read with SQL, because Optuna 5 opens only what it has written itself, and would change the file.
"""

import json
import math
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from search.importing.foreign_study import (
    LARGEST_DATABASE,
    MOST_TRIALS,
    MOST_VALUES,
    ForeignStudy,
    ForeignTrial,
    status_of,
)
from search.importing.optuna_ranges import choice_of, joined_range, number_of
from search.record.database import check_file
from search.task.metric_names import Mode
from training.console.terminal import counted, shorten

MAGIC = b"SQLite format 3\0"
MOST_LISTED = 20
"""Most studies of a storage that are listed."""
SHORTEST = 1e-3
"""Trials that take less were not run but added, with one time for their beginning and their end."""
_DIRECTIONS: dict[str, Mode] = {"MINIMIZE": "min", "MAXIMIZE": "max"}
_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
_VALUE, _BY_STEP = "value", "value_by_step"
"""What the value of a trial is called, and its values per step where they are another quantity."""


class Database(Protocol):
    """What is asked for rows."""

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, in which each value takes the place of a question mark."""

    def columns(self, table: str) -> set[str]:
        """The columns of a table; empty if there is none."""


class SqliteDatabase:
    """A database in a file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self._connection.execute(query, values).fetchall()

    def columns(self, table: str) -> set[str]:
        """The columns of a table."""
        return {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}


def is_sqlite(file: Path) -> bool:
    """Whether a file is a database of sqlite."""
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def read_file(file: Path, study: str | None, objective: str | None) -> ForeignStudy:
    """Read a study from a file of sqlite, of which a copy is opened.

    Args:
        file: The storage.
        study: The name of the study; None if there is only one.
        objective: The name or the number of its objective, if it has several.

    Raises:
        ValueError: The file is damaged or not one of Optuna, or the study or its objective is not named.
        OSError: It cannot be read.
    """
    with TemporaryDirectory(prefix="tunesmith-import-") as folder:
        copy = Path(folder) / "study.db"
        _copy(file, copy)
        try:
            check_file(copy)
            with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
                return read(SqliteDatabase(connection), file.stem, study, objective)
        except (sqlite3.Error, KeyError, TypeError, OverflowError, RecursionError, AttributeError) as error:
            raise ValueError(f"it is not a storage of Optuna, or is damaged: {type(error).__name__}: {error}") from None


def _copy(file: Path, copy: Path) -> None:
    """Copy a database with the journals beside it, from which sqlite undoes what a killed process left unfinished."""
    for suffix in ("", "-wal", "-journal"):
        part = Path(f"{file.resolve()}{suffix}")
        if part.is_file() and not (suffix and part.is_symlink()):
            if part.stat().st_size > LARGEST_DATABASE:
                raise ValueError(f"{part.name} has more than {LARGEST_DATABASE >> 20} MiB")
            shutil.copyfile(part, Path(f"{copy}{suffix}"))


def read(database: Database, name: str, study: str | None, objective: str | None) -> ForeignStudy:
    """Read a study from a database; `read_file` has the arguments, and `name` is the name where the study has none."""
    number, title = _find_study(database, study)
    directions = database.rows("SELECT direction FROM study_directions WHERE study_id = ? ORDER BY objective", number)
    metric_names = _metric_names(database, number)
    place = _objective(directions, metric_names, objective)
    ranges, parameters = _parameters(database, number)
    trials, waiting = _trials(database, number, place, parameters)
    named = metric_names[place] if place < len(metric_names) else None
    version = database.rows("SELECT library_version FROM version_info")
    found = ForeignStudy(
        program=f"Optuna {version[0][0]}" if version else "Optuna",
        name=name if title.startswith("no-name-") else title,
        trials=trials,
        metric=named or (objective if len(directions) == 1 else None) or _VALUE,
        mode=_DIRECTIONS.get(str(directions[place][0])),
        ranges=ranges,
    )
    if waiting:
        found.remarks.append(f"Left out: {counted(waiting, 'trial')} that had not begun.")
    _join_values(found)
    return found


def _find_study(database: Database, study: str | None) -> tuple[int, str]:
    studies = database.rows(
        "SELECT s.study_id, s.study_name, (SELECT count(*) FROM trials AS t WHERE t.study_id = s.study_id) "
        "FROM studies AS s ORDER BY s.study_id"
    )
    listed = ", ".join(
        f"{shorten(str(name), 80)} ({counted(trials, 'trial')})" for _, name, trials in studies[:MOST_LISTED]
    )
    listed += f" and {len(studies) - MOST_LISTED} more" if len(studies) > MOST_LISTED else ""
    if not studies:
        raise ValueError("it has no study")
    if study is None and len(studies) > 1:
        raise ValueError(f"it has {len(studies)} studies; name one of them with --study: {listed}")
    for number, name, trials in studies:
        if study is None or str(name) == study:
            if trials == 0:
                raise ValueError(f"its study {shorten(str(name), 80)} has no trial")
            if trials > MOST_TRIALS:
                raise ValueError(f"its study has {trials:,} trials, and at most {MOST_TRIALS:,} are imported")
            return number, str(name)
    raise ValueError(f"it has no study {study}; it has {listed}")


def _metric_names(database: Database, study: int) -> list[str]:
    rows = database.rows(
        "SELECT value_json FROM study_system_attributes WHERE study_id = ? AND key = 'study:metric_names'", study
    )
    names = json.loads(rows[0][0]) if rows else []
    return [str(name) for name in names] if isinstance(names, list) else []


def _objective(directions: list[tuple[Any, ...]], names: list[str], objective: str | None) -> int:
    """The place of the objective that is imported."""
    if not directions:
        raise ValueError("its study has no direction")
    if len(directions) == 1:
        return 0
    places = {name: place for place, name in enumerate(names)} | {str(place): place for place in range(len(directions))}
    if objective in places:
        return places[objective]
    known = ", ".join(names or [str(place) for place in range(len(directions))])
    raise ValueError(
        f"its study has {len(directions)} objectives, and one is imported: name it with --metric, one of {known}"
    )


def _trials(
    database: Database, study: int, objective: int, parameters: Mapping[int, dict[str, Any]]
) -> tuple[list[ForeignTrial], int]:
    """The trials that began, in their order, and the number of those that did not."""
    rows = database.rows(
        "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials WHERE study_id = ? "
        "ORDER BY number, trial_id",
        study,
    )
    values, steps = _values(database, study, objective), _intermediate_values(database, study)
    errors = _errors(database, study)
    trials = []
    for trial_id, number, state, start, end in rows:
        status = status_of(str(state))
        if status is not None:
            trials.append(
                ForeignTrial(
                    label=str(trial_id if number is None else number),
                    status=status,
                    hyperparameters=parameters.get(trial_id, {}),
                    steps={step: {_BY_STEP: value} for step, value in sorted(steps[trial_id].items())},
                    values={_VALUE: values[trial_id]} if status == "completed" and trial_id in values else {},
                    seconds=_seconds(start, end),
                    error=errors.get(trial_id, "Optuna has not recorded why") if status == "failed" else "",
                )
            )
    return trials, len(rows) - len(trials)


def _errors(database: Database, study: int) -> dict[int, str]:
    """Why trials failed, as far as old versions of Optuna recorded it."""
    rows = database.rows(
        "SELECT a.trial_id, a.value_json FROM trial_system_attributes AS a JOIN trials AS t USING (trial_id) "
        "WHERE t.study_id = ? AND a.key = 'fail_reason'",
        study,
    )
    return {trial: str(json.loads(text)) for trial, text in rows}


def _values(database: Database, study: int, objective: int) -> dict[int, float]:
    """The value of each trial that has one."""
    kind = "v.value_type" if "value_type" in database.columns("trial_values") else "NULL"
    rows = database.rows(
        f"SELECT v.trial_id, v.value, {kind} FROM trial_values AS v JOIN trials AS t USING (trial_id) "
        "WHERE t.study_id = ? AND v.objective = ?",
        study,
        objective,
    )
    return {trial: _number(value, kind) for trial, value, kind in rows}


def _intermediate_values(database: Database, study: int) -> dict[int, dict[float, float]]:
    """The values per step of each trial."""
    table = "trial_intermediate_values"
    kind = "v.intermediate_value_type" if "intermediate_value_type" in database.columns(table) else "NULL"
    ((number,),) = database.rows(
        f"SELECT count(*) FROM {table} AS v JOIN trials AS t USING (trial_id) WHERE t.study_id = ?", study
    )
    if number > MOST_VALUES:
        raise ValueError(f"its study has {number:,} values per step, and at most {MOST_VALUES:,} are imported")
    steps: dict[int, dict[float, float]] = defaultdict(dict)
    for trial, step, value, kind_of_value in database.rows(
        f"SELECT v.trial_id, v.step, v.intermediate_value, {kind} FROM {table} AS v JOIN trials AS t USING (trial_id) "
        "WHERE t.study_id = ?",
        study,
    ):
        steps[trial][int(step)] = _number(value, kind_of_value)
    return steps


def _number(value: object, kind: object) -> float:
    known = _NOT_FINITE.get(str(kind).rpartition(".")[2])
    if known is not None:
        return known
    return math.nan if value is None else float(str(value))


def _seconds(start: object, end: object) -> float | None:
    if start is None or end is None:
        return None
    first, last = (one if isinstance(one, datetime) else datetime.fromisoformat(str(one)) for one in (start, end))
    seconds = (last - first).total_seconds()
    return seconds if seconds >= SHORTEST else None


def _parameters(database: Database, study: int) -> tuple[dict[str, dict[str, Any]], dict[int, dict[str, Any]]]:
    """The range of each hyperparameter, and the values of each trial."""
    distributions: dict[str, dict[str, Any]] = defaultdict(dict)
    stored = database.rows(
        "SELECT p.trial_id, p.param_name, p.param_value, p.distribution_json FROM trial_params AS p "
        "JOIN trials AS t USING (trial_id) WHERE t.study_id = ? ORDER BY p.param_id",
        study,
    )
    for _, name, _, text in stored:
        if text not in distributions[str(name)]:
            distributions[str(name)][text] = json.loads(text)
    choices = {name: choice_of([*known.values()]) for name, known in distributions.items()}
    ranges = {name: joined_range([*known.values()], choices[name]) for name, known in distributions.items()}
    parameters: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial, name, value, text in stored:
        attributes = distributions[name][text]["attributes"]
        if "choices" not in attributes:
            parameters[trial][name] = number_of(ranges[name], value)
        elif 0 <= int(value) < len(attributes["choices"]):
            parameters[trial][name] = choices[name](attributes["choices"][int(value)])
        else:
            raise ValueError(f"its hyperparameter {shorten(str(name), 80)} has no choice {value:g}")
    return ranges, parameters


def _join_values(found: ForeignStudy) -> None:
    """Say how the value of a trial belongs to its values per step: it is the last of them, the best, or another one."""
    metric = found.metric or _VALUE
    both = [trial for trial in found.trials if trial.values and trial.steps]
    pairs = [(trial.values[_VALUE], [step[_BY_STEP] for step in trial.steps.values()]) for trial in both]
    is_last = all(_is_same(value, curve[-1]) for value, curve in pairs)
    best = min if found.mode == "min" else max
    is_best = all(_is_same(value, best(curve)) for value, curve in pairs)
    if is_last and not is_best:
        found.counted = "last"
        found.remarks.append("The value of a trial is its last one, as in Optuna, even where an earlier one is better.")
    elif not is_best:
        found.remarks.append(
            f"The values per step are not those by which Optuna compares the trials; epochs.csv has them as {_BY_STEP}."
        )
    is_other = not (is_last or is_best)
    for trial in found.trials:
        if trial.values:
            trial.values = {metric: trial.values[_VALUE]}
        if not is_other:
            trial.steps = {step: {metric: values[_BY_STEP]} for step, values in trial.steps.items()}


def _is_same(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=1e-6) or (math.isnan(value) and math.isnan(other))
