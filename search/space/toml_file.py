"""Reads and writes search spaces as TOML files, with a message for each mistake."""

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution

from search.settings import StudySettings
from search.space.distributions import HyperparameterValue, bounds, clip, contains_value, values_of
from search.space.encoding import SpaceEncoding
from search.space.objective_space import ask_space, is_objective
from search.space.search_space import (
    ConditionalRange,
    Fixed,
    Point,
    SearchSpace,
    describe,
    describe_hyperparameter,
    parse,
)
from search.task.metric_names import Mode
from search.task.task import Task
from training.config import TrialConfig
from training.config_fields import field_types, is_plain, make_config, normalize, read_text
from training.console.terminal import shorten
from training.networks.network_config import config_type
from training.user_code import errors_as_sentences

FOLDER = Path(__file__).parent / "spaces"
LARGEST_FILE = 1_000_000
"""Largest size of a file in bytes, a thousand times that of a space with forty hyperparameters."""
KEYS = ("low", "high", "log", "step", "choices", "ordered", "value", "when")
VALUE_KEYS = ("low", "high", "step", "choices", "ordered", "value")
"""Keys whose content is a value of the hyperparameter, or a list of them."""
NOT_SEARCHED = {"epochs": "--epochs sets it"}
IMAGES_NOT_SEARCHED = NOT_SEARCHED | {"network": "--network sets it", "seed": "each trial has its own seed"}
"""Why some fields of `TrialConfig` are not searched; a training function may search its own seed and network."""
POINTS_CHECKED = 100
"""Number of random points of a space that are checked against the rules of the training."""


def default_space(network: str) -> SearchSpace:
    """The search space of a network for a study that names no other one."""
    config_class: Any = config_type(network)  # mypy does not know that classes can be hashed
    return _own_space("cnn.toml" if network == "cnn" else "mlp.toml", config_class)


@cache
def _own_space(name: str, config_class: type[Any]) -> SearchSpace:
    """A search space of this program; each of its files is read and checked once in a process."""
    return read_space(FOLDER / name, config_class)


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
        return read_tables(tomllib.loads(file.read_text("utf-8-sig")), config_class)
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"search space {file}: {error}") from None


def read_tables(tables: Mapping[str, Any], config_class: type[Any] | None) -> SearchSpace:
    """Read a search space from the tables of such a file, each a dictionary under the name of its hyperparameter."""
    if config_class:
        tables = _join_names(tables, field_types(config_class))
    described = {name: _read_tables(name, table, config_class) for name, table in tables.items()}
    space = parse(described)
    _check_fixed_conditions(space)
    if config_class:
        _check_points(space, config_class)
    return space


def active_space(settings: StudySettings, stored: SearchSpace | None = None) -> SearchSpace:
    """The search space of a study: of its file, else `stored`, else the default; `--set` fixes values in it.

    `stored` is the search space of the study that is resumed or forked. A ValueError says which rule is broken.
    """
    config_class = settings.task.config_type()
    if isinstance(settings.space, Mapping):
        space = read_tables(_tables(settings.space), config_class)
    elif settings.space is not None:
        space = read_space(settings.space, config_class)
    else:
        space = stored or _space_without_file(settings.task, settings.direction)
    space = fix_values(space, settings.set, config_class) if settings.set else space
    if settings.prior:
        read_point(space, settings.prior, config_class, word="prior")  # before anything is written
    return space


def _space_without_file(task: Task, mode: Mode) -> SearchSpace:
    if task.network is not None:
        return default_space(task.network)
    if task.train_function is not None and is_objective(task.train_function):
        return ask_space(task.train_function, mode)
    raise ValueError(f"{task.option} needs space, a file with the search space; search/space/spaces/ has examples")


def fix_values(space: SearchSpace, assignments: Sequence[str], config_class: type[Any] | None) -> SearchSpace:
    """A search space with hyperparameters fixed by `assignments` of the form `NAME=VALUE`.

    `config_class` is the dataclass whose fields can be set, or None. A ValueError says which rule is broken.
    """
    values: Point = {}
    for assignment, (name, value) in zip(assignments, _read_assignments("set", assignments, config_class), strict=True):
        values[name] = value
        if config_class:
            try:
                with errors_as_sentences(config_class.__name__, own_rules=True):
                    make_config(config_class, values)
            except ValueError as error:
                raise ValueError(f"set {assignment}: {error}") from None
    fixed = space.fix(values)
    if not fixed:
        raise ValueError(f"set {' '.join(assignments)} fixes every hyperparameter, so nothing is left to search")
    if config_class:
        _check_points(fixed, config_class)
    return fixed


def read_point(
    space: SearchSpace, assignments: Sequence[str], config_class: type[Any] | None, *, word: str = "enqueue"
) -> Point:
    """Read a point of a search space, or a part of one, from `assignments` of the form `NAME=VALUE`.

    `config_class` is as for `fix_values`. A ValueError, which begins with `word`, names what is not in the space.
    """
    point: Point = {}
    texts = dict(assignment.split("=", 1) for assignment in assignments if "=" in assignment)
    for name, value in _read_assignments(word, assignments, config_class):
        if name not in space.ranges:
            raise ValueError(f"{word} {name}: it is not in the search space{_suggest(name, [*space])}")
        distributions = [space[name]] if name in space else []
        inside = [one for one in (value, texts[name]) if any(contains_value(each, one) for each in distributions)]
        if name in space and not inside:
            described = describe_hyperparameter(describe(space)[name])
            raise ValueError(f"{word} {name}={texts[name]}: the search space has {name} {described}")
        point[name] = clip(space[name], inside[0]) if inside else value
    active = space.active(point)
    for name, value in point.items():
        match active.get(name):
            case Fixed(fixed) if fixed != value:
                raise ValueError(f"{word} {name}={texts[name]}: it is fixed at {fixed} here")
            case Fixed():
                pass
            case None:
                names = dict.fromkeys(other for one in space.ranges[name] for other in one.condition)
                if names.keys() <= point.keys():
                    others = " and ".join(f"{other} {point[other]}" for other in names)
                    raise ValueError(f"{word} {name}={texts[name]}: it has no value where {others} is given")
                raise ValueError(
                    f"{word} {name}={texts[name]}: it has a value only for some values of {' and '.join(names)}, "
                    "which must be given, too"
                )
            case distribution if not contains_value(distribution, value):
                described = describe_hyperparameter(describe(SearchSpace({name: distribution}))[name])
                raise ValueError(f"{word} {name}={texts[name]}: with these values its range is {described}")
    return {name: value for name, value in point.items() if name in space}


def _read_assignments(
    word: str, assignments: Sequence[str], config_class: type[Any] | None
) -> Iterator[tuple[str, HyperparameterValue]]:
    """The names and the values in `assignments`; `word` begins the sentence about one that is wrong."""
    names = set[str]()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        try:
            if not equals:
                raise ValueError("must be NAME=VALUE")
            if name in names:
                raise ValueError(f"{name} is set twice")
            names.add(name)
            yield name, read_text(_field_type(name, config_class), text)
        except ValueError as error:
            raise ValueError(f"{word} {assignment}: {error}") from None


def to_toml(space: SearchSpace) -> str:
    """The space as a file that `read_space` reads; ranges that are never active, because of `--set`, are left out."""
    blocks, kept = [], dict[str, list[ConditionalRange]]()
    for name in space.order:  # what a condition is on comes before
        can_hold = [
            one
            for one in space.ranges[name]
            if _never_holds(space, one) is None and one.condition.keys() <= kept.keys()
        ]
        kept |= {name: can_hold} if can_hold else {}
    for name, described in describe(SearchSpace({name: kept[name] for name in space.ranges if name in kept})).items():
        is_list = isinstance(described, list)
        blocks += [to_table(name, table, is_list=is_list) for table in (described if is_list else [described])]
    return "\n\n".join(blocks)


def to_table(name: str, described: dict[str, Any], *, is_list: bool = False) -> str:
    """A range as a table of a search space file; `is_list` says that the hyperparameter has several ranges."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in described.items() if (key, value) != ("log", False)]
    return "\n".join([f"[[{_key(name)}]]" if is_list else f"[{_key(name)}]", *lines])


def _tables(space: Mapping[str, Any]) -> dict[str, Any]:
    """A dictionary of a Python program as TOML would give it, with lists instead of tuples and ranges."""
    for name, content in space.items():
        if not isinstance(content, Mapping | list | tuple):
            raise ValueError(f"{name} must be a dictionary; {{'value': {content!r}}} would fix it")
    return {str(name): _as_lists(content) for name, content in space.items()}


def _as_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_lists(member) for name, member in value.items()}
    return [*map(_as_lists, value)] if isinstance(value, list | tuple | range) else value


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
    is_for_images = config_class is not None and issubclass(config_class, TrialConfig)
    not_searched = IMAGES_NOT_SEARCHED if is_for_images else NOT_SEARCHED
    if name in not_searched:
        raise ValueError(f"{name} cannot be searched: {not_searched[name]}")
    if config_class is None:
        return Any
    types = field_types(config_class)
    known = [field for field in types if field not in not_searched]
    if name not in known:
        raise ValueError(f"{name} is not a hyperparameter{_suggest(name, known)}")
    if not is_plain(types[name]):
        raise ValueError(f"{name} cannot be searched: its type is {getattr(types[name], '__name__', types[name])}")
    return types[name]


def _join_names(tables: Mapping[str, Any], known: Collection[str], outer: str = "") -> dict[str, Any]:
    """The tables of all hyperparameters, those of nested dataclasses by their joined names, `outer.inner`."""
    joined: dict[str, Any] = {}
    for name, content in tables.items():
        is_outer = isinstance(content, dict) and any(field.startswith(f"{outer}{name}.") for field in known)
        joined |= _join_names(content, known, f"{outer}{name}.") if is_outer else {f"{outer}{name}": content}
    return joined


def _suggest(name: str, known: Sequence[str]) -> str:
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else f"; known are {', '.join(known)}"


def _read_tables(name: str, content: object, config_class: type[Any] | None) -> list[dict[str, Any]] | dict[str, Any]:
    """A hyperparameter's table or tables, with numbers of the type of its field."""
    field_type = _field_type(name, config_class)
    if isinstance(content, list) and content and all(isinstance(table, dict) for table in content):
        return [_read_table(name, table, field_type, config_class) for table in content]
    if not isinstance(content, dict):
        raise ValueError(
            f"{name} must be a table: write [{name}], and value = {_value(content)} in the next line to fix it"
        )
    return _read_table(name, content, field_type, config_class)


def _read_table(name: str, table: dict[str, Any], field_type: Any, config_class: type[Any] | None) -> dict[str, Any]:
    unknown = next((key for key in table if key not in KEYS), None)
    if unknown is not None:
        raise ValueError(f"{name} has the unknown key {unknown}{_suggest(unknown, KEYS)}")
    values = {key: _read_value(f"{name}: {key}", table[key], field_type) for key in table if key in VALUE_KEYS}
    if isinstance(when := table.get("when"), dict):
        types = {} if config_class is None else field_types(config_class)
        values["when"] = {
            other: _read_value(f"{name}: when {other}", allowed, types.get(other, Any))
            for other, allowed in when.items()
        }
    return {**table, **values}


def _read_value(key: str, value: object, field_type: Any) -> Any:
    if isinstance(value, list):
        return [_read_value(key, member, field_type) for member in value]
    if field_type is Any or not isinstance(value, int | float | str):
        return value
    try:
        return normalize(field_type, value)
    except ValueError as error:
        raise ValueError(f"{key} {error}, got {shorten(str(value), 100)}") from None


def _never_holds(space: SearchSpace, one: ConditionalRange) -> str | None:
    """A hyperparameter that is fixed at another value than a condition requires; None if the condition can hold."""
    for name, allowed in one.condition.items():
        values = [other.distribution.value for other in space.ranges[name] if isinstance(other.distribution, Fixed)]
        if values and not {*values} & {*allowed}:
            return name
    return None


def _check_fixed_conditions(space: SearchSpace) -> None:
    for name, ranges in space.ranges.items():
        for one in ranges:
            if fixed := _never_holds(space, one):
                values = " or ".join(_value(value) for value in one.condition[fixed])
                raise ValueError(f"{name}: its condition never holds, because {fixed} is fixed and never {values}")


def _check_points(space: SearchSpace, config_class: type[Any]) -> None:
    """Refuse a space with a point that the training does not accept; bounds and random points are checked."""
    for point in points_to_check(space):
        with errors_as_sentences(config_class.__name__, own_rules=True):
            make_config(config_class, space.add_fixed(point))


def points_to_check(space: SearchSpace) -> Iterator[Point]:
    """Random points of a space, and points with each bound and each choice; without the fixed values."""
    encoding = SpaceEncoding(space)
    samples = [encoding.random_sample(number) for number in range(POINTS_CHECKED)]
    yield from map(encoding.decode, samples)
    for name, distribution in encoding.distributions.items():
        choices = values_of(distribution) if isinstance(distribution, CategoricalDistribution) else bounds(distribution)
        for value in choices or ():
            yield from (encoding.decode({**sample, name: value}) for sample in samples[:10])
