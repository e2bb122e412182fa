"""Reads a study from a table: a row for each trial, or for each trial and step; W&B and Optuna export such tables."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from search.importing.csv_file import read_rows
from search.importing.foreign_study import MOST_TRIALS, MOST_VALUES, ForeignStudy, ForeignTrial, status_of
from search.importing.guessing import is_missing, with_values
from search.importing.names import flattened
from search.importing.ray_tune import OF_RAY
from search.task.metric_names import derived_mode
from training.console.terminal import counted, printable, shorten

PREFIXES = ("params_", "param_", "param:", "params.", "param.", "config/", "config.")
"""What the names of hyperparameters begin with."""
_TRIAL = ("trial_number", "number", "trial_id", "trial", "run_id", "run", "id", "name")
_STEP = ("step", "epoch", "training_iteration", "iteration", "_step")
_STATE = ("state", "status")
_SECONDS = ("duration", "runtime", "seconds", "time_total_s", "_runtime")
_STEP_SECONDS = ("time_this_iter_s", "seconds")
_ERROR = ("error",)
_SEED = ("seed",)
_NO_METRICS = {
    *(*_TRIAL, *_STEP, *_STATE, *_SECONDS, *_ERROR, *_SEED, *OF_RAY),
    *("", "created", "updated", "end time", "hostname", "host", "notes", "user", "tags", "sweep", "commit", "github"),
    *("index", "datetime_start", "datetime_complete", "_timestamp", "group", "job type", "python", "os", "gpu type"),
}
_NO_METRIC = re.compile(r"user_attrs_|system_attrs_|unnamed: |_wandb|gpu count|cpu count|best_epoch$|epochs$")
_LISTED = 600
"""Longest list of columns in a sentence."""


@dataclass
class _Table:
    """The columns of a table, by their names in it."""

    columns: dict[str, list[Any]]
    """None where a cell is empty."""
    cells: dict[str, list[Any]]
    """The columns as they are."""
    rows: int

    def find(self, *names: str, without: Sequence[str] = ()) -> list[Any] | None:
        """The first column with one of these names, whatever its capital letters."""
        by_name = {name.strip().lower(): column for name, column in self.columns.items() if name not in without}
        return next((by_name[name] for name in names if name in by_name), None)


def read_table(file: Path, parameters: Sequence[str], metric: str | None = None) -> ForeignStudy:
    """Read a study from a table.

    Args:
        file: The table.
        parameters: Its columns that are hyperparameters; if there are none, those whose names begin like `PREFIXES`,
            and in a table of W&B those before its first metric.
        metric: The metric by which the trials are compared, if it is known.

    Raises:
        ValueError: The file is no table, or its hyperparameters are not named.
        OSError: It cannot be read.
    """
    table = _read(file)
    is_wandb = table.find("sweep") is not None and table.find("runtime") is not None
    guessed = () if parameters or not is_wandb else _before_metrics(table, metric)
    hyperparameters = _hyperparameters(table, parameters, guessed)
    labels, steps = _labels(table, hyperparameters), table.find(*_STEP, without=[*hyperparameters])
    if steps is not None and len({*labels}) == len(labels):
        steps = None  # one row for each trial, which may say how many steps it had
    metrics = {
        name: numbers
        for name, cells in table.cells.items()
        if name not in hyperparameters
        and name.strip().lower() not in _NO_METRICS
        and not _NO_METRIC.match(name.strip().lower())
        and (numbers := _numbers(cells))
    }
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    if len(rows) > MOST_TRIALS or len(labels) > MOST_VALUES:
        raise ValueError(f"it has {len(rows):,} trials in {len(labels):,} rows, which are too many to import")
    columns = _Columns(table, hyperparameters, metrics, steps)
    trials = [trial for label, places in rows.items() if (trial := columns.trial(label, places))]
    not_begun = len(rows) - len(trials)
    remarks = [f"Left out: {counted(not_begun, 'trial')} that had not begun."] if not_begun else []
    if table.find(*_STATE, without=[*hyperparameters]) is None:
        remarks.append("The table does not say how trials ended, so each with a value counts as completed.")
    if guessed and [*hyperparameters] == [*guessed]:
        remarks.append("The columns before the first metric are taken for hyperparameters; --parameters names others.")
    return ForeignStudy(
        program="a W&B table" if is_wandb else "a table",
        name=file.name.removesuffix(".gz").rpartition(".")[0] or file.name,
        trials=trials,
        metric="value" if "value" in metrics else None,
        remarks=remarks,
    )


@dataclass
class _Columns:
    """The columns of a table by what they are for."""

    table: _Table
    hyperparameters: Mapping[str, str]
    metrics: Mapping[str, Mapping[int, float]]
    """The numbers of each metric by row."""
    steps: list[Any] | None

    def __post_init__(self) -> None:
        """Find the other columns."""
        without = [*self.hyperparameters]
        self._states = self.table.find(*_STATE, without=without)
        self._seconds = self.table.find(*(_STEP_SECONDS if self.steps else _SECONDS), without=without)
        self._seeds, self._errors = self.table.find(*_SEED, without=without), self.table.find(*_ERROR, without=without)

    def trial(self, label: str, rows: Sequence[int]) -> ForeignTrial | None:
        """The trial in some rows; None if it has not begun."""
        last = rows[-1]
        status = status_of(str(self._states[last] or "")) if self._states else "completed"
        if status is None:
            return None
        columns = self.table.columns
        cells = {name: [columns[column][row] for row in rows] for column, name in self.hyperparameters.items()}
        values = {name: _only(label, name, one) for name, one in cells.items()}
        trial = ForeignTrial(
            label=label,
            status=status,
            hyperparameters={name: value for name, value in values.items() if value is not None},
            seed=_whole(self._seeds[last]) if self._seeds else None,
            error=str(self._errors[last] or "") if self._errors else "",
        )
        seconds = {row: _seconds(self._seconds[row]) for row in rows} if self._seconds else {}
        if self.steps is None:
            trial.values = {name: numbers[last] for name, numbers in self.metrics.items() if last in numbers}
            trial.seconds = seconds.get(last)
            return trial
        for row in rows:
            step = _numbers([self.steps[row]]).get(0)
            if step is None or step in trial.steps:
                why = "has no step" if step is None else f"has step {step:g} twice"
                raise ValueError(f"trial {shorten(printable(label), 80)} {why}")
            trial.steps[step] = {name: numbers[row] for name, numbers in self.metrics.items() if row in numbers}
            if (time := seconds.get(row)) is not None:
                trial.step_seconds[step] = time
        return trial


def _read(file: Path) -> _Table:
    """Read the columns of a table; those of Python dictionaries, `config` and `summary`, become columns themselves."""
    header, *rows = read_rows(file)
    if not rows:
        raise ValueError("it has no row of a trial")
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise ValueError(f"it has several columns {printable(', '.join(sorted(twice)))}, so none of them can be meant")
    longer = next((number for number, row in enumerate(rows, 2) if len(row) > len(header)), None)
    if longer:
        raise ValueError(f"row {longer} has more cells than there are columns")
    cells = {name: [row[place] if place < len(row) else "" for row in rows] for place, name in enumerate(header)}
    columns: dict[str, list[Any]] = {}
    for name, column in cells.items():
        prefix = {"config": "config.", "summary": ""}.get(name)
        dictionaries = None if prefix is None else [_dictionary(cell) for cell in column]
        if dictionaries is None or None in dictionaries:
            columns[name] = column
            continue
        names = dict.fromkeys(key for one in dictionaries if one for key in one)
        columns |= {f"{prefix}{key}": [(one or {}).get(key) for one in dictionaries] for key in names}
    return _Table(with_values(columns), columns, len(rows))


def _dictionary(cell: str) -> dict[str, Any] | None:
    """A dictionary of Python as W&B's documented export writes it; only literals are read, and nothing is run."""
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    if not isinstance(value, dict):
        return None
    return flattened({str(name): one for name, one in value.items() if not str(name).startswith("_wandb")})


def _before_metrics(table: _Table, metric: str | None) -> list[str]:
    """The columns of a W&B table that may be hyperparameters: W&B exports those before the metrics, after its own."""
    found: list[str] = []
    for name in table.columns:
        plain = name.strip().lower()
        if name == metric or plain in _STEP or derived_mode(name) is not None:
            break
        if plain not in _NO_METRICS and not _NO_METRIC.match(plain):
            found.append(name)
    return found


def _hyperparameters(table: _Table, parameters: Sequence[str], guessed: Sequence[str]) -> dict[str, str]:
    """The name of each hyperparameter by its column; the guessed columns are those where no other is named."""
    listed = shorten(printable(", ".join(table.columns)), _LISTED)
    if parameters:
        unknown = [name for name in parameters if name not in table.columns]
        if unknown:
            raise ValueError(f"it has no column {printable(unknown[0])}; its columns are {listed}")
        return {name: name for name in parameters}
    found = {}
    for name in table.columns:
        prefix = next((one for one in PREFIXES if name.startswith(one) and len(name) > len(one)), None)
        if prefix and not name.startswith("config._"):
            found[name] = name.removeprefix(prefix)
    found = found or {name: name for name in guessed}
    if not found:
        raise ValueError(f"name its hyperparameters with --parameters; its columns are {listed}")
    return found


def _labels(table: _Table, hyperparameters: Mapping[str, str]) -> list[str]:
    """The trial of each row: the first column of a trial's name that is never empty, or else the number of the row."""
    for name in _TRIAL:
        column = table.find(name, without=[*hyperparameters])
        if column is not None and all(cell is not None for cell in column):
            return [str(cell) for cell in column]
    return [str(row) for row in range(table.rows)]


def _only(label: str, name: str, cells: Sequence[Any]) -> Any:
    """The value of a hyperparameter, which must be the same in all rows of a trial."""
    values = {str(cell): cell for cell in cells if cell is not None}
    if len(values) > 1:
        who, listed = shorten(printable(label), 80), shorten(printable(", ".join(values)), 80)
        raise ValueError(f"trial {who} has several values of {printable(name)}: {listed}")
    return next(iter(values.values()), None)


def _numbers(cells: Sequence[Any]) -> dict[int, float]:
    """The numbers of a column by row; empty if another cell is a text."""
    numbers = {}
    for row, cell in enumerate(cells):
        is_nan = isinstance(cell, str) and cell.strip().lower() == "nan"
        if is_missing(cell) and not is_nan:
            continue
        try:
            numbers[row] = float(cell)
        except (ValueError, TypeError, OverflowError):
            return {}
    return numbers


def _whole(cell: Any) -> int | None:
    number = _numbers([cell]).get(0)
    return int(number) if number is not None and number == number // 1 else None


def _seconds(cell: Any) -> float | None:
    """A time in seconds, or as pandas writes it: 0 days 00:01:02.5."""
    if cell is None:
        return None
    if number := _numbers([cell]):
        return number[0]
    parts = re.fullmatch(r"(?:(\d{1,6}) days? )?\+?(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)", str(cell).strip())
    if parts is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
