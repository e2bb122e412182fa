"""Search spaces as TOML files: read with every mistake named, and written."""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from optuna.distributions import CategoricalDistribution

from search.settings import StudySettings
from search.space.distributions import HyperparameterValue, bounds, values_of
from search.space.encoding import SpaceEncoding
from search.space.search_space import Point, SearchSpace, describe, parse
from training.networks.network_config import config_type
from training.user_code import annotated_config

FOLDER = Path(__file__).parent / "spaces"
LARGEST_FILE = 1_000_000
"""Bytes: a thousand times what a space of forty hyperparameters takes."""
KEYS = ("low", "high", "log", "step", "choices", "ordered", "value", "when")
NOT_SEARCHED = {"epochs": "--epochs sets it", "network": "--network sets it", "seed": "each trial has its own"}
DRAWS_CHECKED = 100
"""Points of a space that are drawn to see whether a training accepts them."""


def default_space(network: str) -> SearchSpace:
    """What is searched with a network when nothing else is asked for."""
    return read_space(FOLDER / ("cnn.toml" if network == "cnn" else "mlp.toml"), config_type(network))


def read_space(file: Path, kind: type[Any] | None) -> SearchSpace:
    """Read a search space file.

    Args:
        file: TOML; see `search/space/spaces/` for examples.
        kind: The dataclass whose fields can be searched; None if there is none, and any name can.

    Raises:
        ValueError: The file cannot be read, or breaks a rule; the message names the file, the hyperparameter and the
            rule.
    """
    try:
        if not file.is_file():
            raise ValueError("there is no such file")
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes, which no search space needs")
        tables = tomllib.loads(file.read_text())
        described = {name: _read_tables(name, table, kind) for name, table in tables.items()}
        space = parse(described)
        if kind:
            _check_points(space, kind)
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"search space {file}: {error}") from None
    return space


def active_space(settings: StudySettings, stored: SearchSpace | None = None) -> SearchSpace:
    """What a study searches: its file, or what an earlier study searched, or the default; less what is fixed.

    Args:
        settings: Of the study.
        stored: What was searched by the study that is resumed or forked.

    Raises:
        ValueError: The file or what is to be fixed breaks a rule.
    """
    own = settings.train_function
    kind = config_type(settings.network) if own is None else annotated_config("train_function", own)
    space = read_space(settings.space, kind) if settings.space else stored or default_space(settings.network)
    return fix_values(space, settings.set, kind) if settings.set else space


def fix_values(space: SearchSpace, assignments: Sequence[str], kind: type[Any] | None) -> SearchSpace:
    """The space with hyperparameters fixed from the command line.

    Args:
        space: What was to be searched.
        assignments: Each `NAME=VALUE`.
        kind: The dataclass whose fields can be set, or None.

    Raises:
        ValueError: An assignment is none, or its value is not allowed; or nothing is left to search.
    """
    values: Point = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        try:
            if not equals:
                raise ValueError("must be NAME=VALUE")
            values[name] = _typed(text, _field_type(name, kind))
            if kind:
                kind(**values)
        except ValueError as error:
            raise ValueError(f"set {assignment}: {error}") from None
    fixed = space.fix(values)
    if not fixed:
        raise ValueError(f"set {' '.join(assignments)} leaves nothing to search")
    if kind:
        _check_points(fixed, kind)
    return fixed


def to_toml(space: SearchSpace) -> str:
    """The space as a file that `read_space` reads."""
    blocks = []
    for name, described in describe(space).items():
        several = isinstance(described, list)
        blocks += [to_table(name, case, several=several) for case in (described if several else [described])]
    return "\n\n".join(blocks)


def to_table(name: str, described: dict[str, Any], *, several: bool = False) -> str:
    """One range of a hyperparameter, which may have several, as it stands in such a file."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in described.items() if (key, value) != ("log", False)]
    return "\n".join([f"[[{_key(name)}]]" if several else f"[{_key(name)}]", *lines])


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: object) -> str:
    match value:
        case bool() | str():
            return json.dumps(value)  # which TOML writes alike
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{ {', '.join(f'{_key(key)} = {_value(member)}' for key, member in value.items())} }}"
        case _:
            return repr(value)


def _field_type(name: str, kind: type[Any] | None) -> Any:
    """The type of a field; `Any` if there is no dataclass that says it."""
    if kind is None:
        return Any
    known = [field.name for field in fields(kind) if field.name not in NOT_SEARCHED]
    if name in NOT_SEARCHED:
        raise ValueError(f"{name} cannot be searched: {NOT_SEARCHED[name]}")
    if name not in known:
        raise ValueError(f"{name} is no hyperparameter{_perhaps(name, known)}")
    return get_type_hints(kind)[name]


def _perhaps(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(known)}"


def _read_tables(name: str, given: object, kind: type[Any] | None) -> list[dict[str, Any]] | dict[str, Any]:
    """A hyperparameter's table or tables, with numbers of the type that its field has."""
    wanted = _field_type(name, kind)
    if isinstance(given, list) and given and all(isinstance(table, dict) for table in given):
        return [_read_table(name, table, wanted) for table in given]
    if not isinstance(given, dict):
        raise ValueError(f"{name} must be a table: [{name}] and, to fix it, value = {_value(given)} in the next line")
    return _read_table(name, given, wanted)


def _read_table(name: str, table: dict[str, Any], wanted: Any) -> dict[str, Any]:
    unknown = next((key for key in table if key not in KEYS), None)
    if unknown is not None:
        raise ValueError(f"{name} has the unknown key {unknown}{_perhaps(unknown, KEYS)}")
    values = {key: _coerced(f"{name}: {key}", value, wanted) for key, value in table.items() if key in _OF_FIELD}
    return {**table, **values}


_OF_FIELD = ("low", "high", "step", "choices", "ordered", "value")
"""Keys whose values are values of the hyperparameter, or lists of them."""


def _coerced(what: str, value: object, wanted: Any) -> Any:
    if wanted is Any:
        return value
    if isinstance(value, list):
        return [_coerced(what, member, wanted) for member in value]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted in (int, float) and (isinstance(value, bool) or not isinstance(value, wanted)):
        raise ValueError(f"{what} must be {'a whole number' if wanted is int else 'a number'}, got {_shown(value)}")
    if wanted is bool and not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, got {_shown(value)}")
    if wanted not in (int, float, bool) and not isinstance(value, str):
        raise ValueError(f"{what} must be a text in quotation marks, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:100] + "…"


def _typed(text: str, wanted: Any) -> HyperparameterValue:
    """A word of the command line as a value of a field."""
    if wanted is Any:
        return _guessed(text)
    if wanted is bool:
        if text not in ("true", "false"):
            raise ValueError("must be true or false")
        return text == "true"
    if wanted not in (int, float):
        return text
    try:
        return wanted(text)  # type: ignore[no-any-return]
    except ValueError:
        raise ValueError(f"must be {'a whole number' if wanted is int else 'a number'}") from None


def _guessed(text: str) -> HyperparameterValue:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _check_points(space: SearchSpace, kind: type[Any]) -> None:
    """Refuse a space of which a training would not accept every point; the ends and random points are tried."""
    for point in _tried_points(space):
        kind(**space.with_fixed(point))


def _tried_points(space: SearchSpace) -> Iterator[Point]:
    encoding = SpaceEncoding(space)
    draws = [encoding.random_draws(number) for number in range(DRAWS_CHECKED)]
    yield from map(encoding.point, draws)
    for name, distribution in encoding.distributions.items():
        values = (
            (values_of(distribution) or ())
            if isinstance(distribution, CategoricalDistribution)
            else bounds(distribution)
        )
        for end in values:
            yield from (encoding.point({**drawn, name: end}) for drawn in draws[:10])
