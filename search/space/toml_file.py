"""Reads and writes search spaces as TOML files, with a message for each mistake."""

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
from training.console.terminal import shorten
from training.networks.network_config import config_type
from training.user_code import annotated_config

FOLDER = Path(__file__).parent / "spaces"
LARGEST_FILE = 1_000_000
"""Bytes: a thousand times what a space of forty hyperparameters takes."""
KEYS = ("low", "high", "log", "step", "choices", "ordered", "value", "when")
VALUE_KEYS = ("low", "high", "step", "choices", "ordered", "value")
"""Keys whose content is a value of the hyperparameter, or a list of them."""
NOT_SEARCHED = {"epochs": "--epochs sets it", "network": "--network sets it", "seed": "each trial has its own"}
POINTS_CHECKED = 100
"""So many random points of a space are checked against the rules of the training."""


def default_space(network: str) -> SearchSpace:
    """The search space of a network for a study that names no other one."""
    return read_space(FOLDER / ("cnn.toml" if network == "cnn" else "mlp.toml"), config_type(network))


def read_space(file: Path, config_class: type[Any] | None) -> SearchSpace:
    """Read a search space file in TOML; `search/space/spaces/` has examples.

    `config_class` is the dataclass whose fields can be searched; None allows any name. A ValueError names the file, the
    hyperparameter and the rule that it breaks.
    """
    try:
        if not file.is_file():
            raise ValueError("there is no such file")
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes, which no search space needs")
        tables = tomllib.loads(file.read_text())
        described = {name: _read_tables(name, table, config_class) for name, table in tables.items()}
        space = parse(described)
        if config_class:
            _check_points(space, config_class)
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"search space {file}: {error}") from None
    return space


def active_space(settings: StudySettings, stored: SearchSpace | None = None) -> SearchSpace:
    """The search space of a study: of its file, else `stored`, else the default; `--set` fixes values in it.

    `stored` is the search space of the study that is resumed or forked. A ValueError says which rule is broken.
    """
    train_function = settings.train_function
    config_class = (
        annotated_config("train_function", train_function) if train_function else config_type(settings.network)
    )
    space = read_space(settings.space, config_class) if settings.space else stored or default_space(settings.network)
    return fix_values(space, settings.set, config_class) if settings.set else space


def fix_values(space: SearchSpace, assignments: Sequence[str], config_class: type[Any] | None) -> SearchSpace:
    """A search space with hyperparameters fixed by `assignments` of the form `NAME=VALUE`.

    `config_class` is the dataclass whose fields can be set, or None. A ValueError says which rule is broken.
    """
    values: Point = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        try:
            if not equals:
                raise ValueError("must be NAME=VALUE")
            values[name] = _parse_value(text, _field_type(name, config_class))
            if config_class:
                config_class(**values)
        except ValueError as error:
            raise ValueError(f"set {assignment}: {error}") from None
    fixed = space.fix(values)
    if not fixed:
        raise ValueError(f"set {' '.join(assignments)} leaves nothing to search")
    if config_class:
        _check_points(fixed, config_class)
    return fixed


def to_toml(space: SearchSpace) -> str:
    """The space as a file that `read_space` reads."""
    blocks = []
    for name, described in describe(space).items():
        is_list = isinstance(described, list)
        blocks += [to_table(name, table, is_list=is_list) for table in (described if is_list else [described])]
    return "\n\n".join(blocks)


def to_table(name: str, described: dict[str, Any], *, is_list: bool = False) -> str:
    """A range as a table of a search space file; `is_list` says that the hyperparameter has several ranges."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in described.items() if (key, value) != ("log", False)]
    return "\n".join([f"[[{_key(name)}]]" if is_list else f"[{_key(name)}]", *lines])


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: object) -> str:
    match value:
        case bool() | str():
            return json.dumps(value)  # JSON and TOML write these alike
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{ {', '.join(f'{_key(key)} = {_value(member)}' for key, member in value.items())} }}"
        case _:
            return repr(value)


def _field_type(name: str, config_class: type[Any] | None) -> Any:
    """The type of a field; `Any` without a dataclass."""
    if config_class is None:
        return Any
    known = [field.name for field in fields(config_class) if field.name not in NOT_SEARCHED]
    if name in NOT_SEARCHED:
        raise ValueError(f"{name} cannot be searched: {NOT_SEARCHED[name]}")
    if name not in known:
        raise ValueError(f"{name} is no hyperparameter{_suggest(name, known)}")
    return get_type_hints(config_class)[name]


def _suggest(name: str, known: Sequence[str]) -> str:
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else f"; known are {', '.join(known)}"


def _read_tables(name: str, content: object, config_class: type[Any] | None) -> list[dict[str, Any]] | dict[str, Any]:
    """A hyperparameter's table or tables, with numbers of the type of its field."""
    field_type = _field_type(name, config_class)
    if isinstance(content, list) and content and all(isinstance(table, dict) for table in content):
        return [_read_table(name, table, field_type) for table in content]
    if not isinstance(content, dict):
        raise ValueError(f"{name} must be a table: [{name}] and, to fix it, value = {_value(content)} in the next line")
    return _read_table(name, content, field_type)


def _read_table(name: str, table: dict[str, Any], field_type: Any) -> dict[str, Any]:
    unknown = next((key for key in table if key not in KEYS), None)
    if unknown is not None:
        raise ValueError(f"{name} has the unknown key {unknown}{_suggest(unknown, KEYS)}")
    values = {key: _read_value(f"{name}: {key}", table[key], field_type) for key in table if key in VALUE_KEYS}
    return {**table, **values}


def _read_value(key: str, value: object, field_type: Any) -> Any:
    if field_type is Any:
        return value
    if isinstance(value, list):
        return [_read_value(key, member, field_type) for member in value]
    if field_type is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if field_type in (int, float, bool):
        is_allowed = isinstance(value, field_type) and (field_type is bool or not isinstance(value, bool))
    else:
        is_allowed = isinstance(value, str)
    if not is_allowed:
        rule = _TYPE_RULES.get(field_type, "a text in quotation marks")
        raise ValueError(f"{key} must be {rule}, got {shorten(str(value), 100)}")
    return value


_TYPE_RULES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}


def _parse_value(text: str, field_type: Any) -> HyperparameterValue:
    """A value from the command line, as the type of its field."""
    if field_type is Any:
        return _guess_value(text)
    try:
        if field_type is bool:
            return {"true": True, "false": False}[text]
        return field_type(text) if field_type in (int, float) else text
    except (KeyError, ValueError):
        raise ValueError(f"must be {_TYPE_RULES[field_type]}") from None


def _guess_value(text: str) -> HyperparameterValue:
    if text in ("true", "false"):
        return text == "true"
    for number_type in (int, float):
        with suppress(ValueError):
            return number_type(text)
    return text


def _check_points(space: SearchSpace, config_class: type[Any]) -> None:
    """Refuse a space with a point that the training does not accept; bounds and random points are checked."""
    for point in _points_to_check(space):
        config_class(**space.add_fixed(point))


def _points_to_check(space: SearchSpace) -> Iterator[Point]:
    encoding = SpaceEncoding(space)
    samples = [encoding.random_sample(number) for number in range(POINTS_CHECKED)]
    yield from map(encoding.decode, samples)
    for name, distribution in encoding.distributions.items():
        choices = values_of(distribution) if isinstance(distribution, CategoricalDistribution) else bounds(distribution)
        for value in choices or ():
            yield from (encoding.decode({**sample, name: value}) for sample in samples[:10])
