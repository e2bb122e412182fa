"""Reads the search space of another program: a sweep of W&B, or the sweeper of Optuna for Hydra, from its YAML."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.importing.names import hyperparameter_names
from search.space.search_space import SearchSpace
from search.space.toml_file import read_tables
from training.console.terminal import printable, shorten

SUFFIXES = (".yaml", ".yml")
LARGEST_FILE = 1_000_000
_MEANS = {
    "metric": "--metric and --mode say it",
    "method": "--sampler says how configurations are proposed",
    "early_terminate": "--scheduler says which trials are stopped",
    "run_cap": "--num-samples says how many trials there are",
    "command": "--command takes it, with {NAME} for each hyperparameter",
    "program": "--command or --train-function names it",
    "n_trials": "--num-samples says how many trials there are",
    "n_jobs": "--max-concurrent says how many trials run at the same time",
    "direction": "--mode says it",
    "sampler": "--sampler says how configurations are proposed",
}
"""What has another place here than the search space."""
_NOT_SAID = ("name", "description", "project", "entity", "_target_", "study_name", "storage", "max_failure_rate")


@dataclass(frozen=True)
class Sweep:
    """A search space of another program."""

    space: SearchSpace
    left_out: list[str]
    """What is not in the space, and why or where it belongs."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Makes plain values only, and refuses aliases, by which a small file could become a very large value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias."""
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*), which is not read")
        return super().compose_node(parent, index)


def read_sweep(file: Path) -> Sweep:
    """Read a search space as far as it can be one here; a ValueError says that nothing of it can, an OSError why."""
    try:
        content = _load(file)
        settings, ranges = _parts(content)
        described: dict[str, dict[str, Any]] = {}
        left_out = [f"{printable(name)}: {_MEANS[name]}" for name in settings if name in _MEANS]
        names = hyperparameter_names([name for name, _, _ in ranges])
        for name, value, convert in ranges:
            try:
                described[names[name]] = convert(value)
                read_tables({"another": {"choices": [1, 2]}, names[name]: described[names[name]]}, None)
            except (ValueError, TypeError, OverflowError) as error:
                described.pop(names[name], None)
                left_out.append(f"{printable(name)}: {str(error).removeprefix(f'{names[name]}: ')}")
        others = [name for name in settings if name not in (*_MEANS, *_NOT_SAID)]
        left_out += [f"{shorten(printable(str(name)), 80)}: no part of a search space" for name in others]
        if not described:
            why = "; ".join(left_out) or "there is none"
            raise ValueError(f"none of its hyperparameters can be searched here ({why})")
        return Sweep(read_tables(described, None), left_out)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be imported: {shorten(' '.join(str(error).split()), 600)}") from None


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError("there is no such file")
    if file.stat().st_size > LARGEST_FILE:
        raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes, which no search space needs")
    try:
        content = yaml.load(file.read_text("utf-8-sig", errors="replace"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("it has no parameters")
    return content


Convert = Callable[[Any], dict[str, Any]]


def _parts(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any, Convert]]]:
    """The settings besides the space; and the name, the range and the reader of each hyperparameter."""
    if isinstance(content.get("parameters"), dict):
        settings = {str(name): value for name, value in content.items() if name != "parameters"}
        return settings, [(name, value, _of_wandb) for name, value in _flat(content["parameters"])]
    hydra = content.get("hydra")
    sweeper = hydra.get("sweeper") if isinstance(hydra, dict) else None
    if not isinstance(sweeper, dict):
        raise ValueError("it has neither parameters, as a sweep of W&B, nor hydra.sweeper, as a search of Hydra")
    found: list[tuple[str, Any, Convert]] = []
    for part in ("params", "search_space"):
        if isinstance(sweeper.get(part), dict):
            found += [(str(name), value, _of_hydra) for name, value in sweeper[part].items()]
    return {str(name): value for name, value in sweeper.items() if name not in ("params", "search_space")}, found


def _flat(parameters: Mapping[Any, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    """The parameters of W&B, of which one may hold others."""
    for name, value in parameters.items():
        if isinstance(value, dict) and isinstance(value.get("parameters"), dict):
            yield from _flat(value["parameters"], f"{outer}{name}.")
        else:
            yield f"{outer}{name}", value


def _of_wandb(table: Any) -> dict[str, Any]:
    """A parameter of a sweep (https://docs.wandb.ai, sweep configuration keys) as a range."""
    if not isinstance(table, dict):
        raise ValueError("it is no parameter with value, values, or min and max")
    if "value" in table:
        return {"value": _plain(table["value"])}
    if "values" in table:
        if "probabilities" in table:
            raise ValueError("its values have probabilities, and here all are equally likely")
        return _choices(table["values"])
    kind = str(table.get("distribution", ""))
    if table.get("min") is None or table.get("max") is None:
        raise ValueError(f"distribution {kind or 'without min and max'} has no bounds")
    low, high = _plain(table["min"]), _plain(table["max"])
    is_whole = isinstance(low, int) and isinstance(high, int)
    match kind:
        case "" | "uniform" | "int_uniform":
            number = int if kind == "int_uniform" or (kind == "" and is_whole) else float
            return {"low": number(low), "high": number(high)}
        case "q_uniform":
            return {"low": low, "high": high, "step": _plain(table.get("q", 1))}
        case "log_uniform_values":
            return {"low": float(low), "high": float(high), "log": True}
        case "log_uniform":
            return {"low": float(f"{math.exp(low):.6g}"), "high": float(f"{math.exp(high):.6g}"), "log": True}
    raise ValueError(f"distribution {kind:.40} is none of a search space here")


def _of_hydra(value: Any) -> dict[str, Any]:
    """An override of Hydra, such as tag(log, interval(1e-5, 0.1)), or a table of its older form, as a range."""
    if isinstance(value, dict):
        return _of_old_hydra(value)
    if not isinstance(value, str):
        return {"value": _plain(value)}
    text = value.strip()
    tagged = re.fullmatch(r"tag\(\s*log\s*,\s*(.*)\)|(?:log|int)\((.*)\)", text)
    inner = (tagged[1] or tagged[2]) if tagged else text
    is_log, is_whole = bool(re.match(r"tag\(\s*log|log\(", text)), text.startswith("int(")
    call = re.fullmatch(r"(interval|range|choice|shuffle)\((.*)\)", inner.strip())
    if call is None:
        if re.search(r"[(),]", text):
            raise ValueError(f"{text:.60} is none of interval, range and choice")
        return {"value": _scalar(text)}
    arguments = [part.strip() for part in call[2].split(",")]
    words = {name.strip(): word.strip() for name, _, word in (part.partition("=") for part in arguments if "=" in part)}
    given = [_scalar(part) for part in arguments if "=" not in part]
    if call[1] in ("choice", "shuffle"):
        return _choices(given)
    numbers = given + [_scalar(words[name]) for name in ("start", "stop") if name in words]
    if len(numbers) < 2 or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{text:.60} has no two bounds")
    low, high = numbers[:2]
    if call[1] == "interval":
        number = int if is_whole else float
        return {"low": number(low), "high": number(high), "log": is_log}
    step = numbers[2] if len(numbers) > 2 else _scalar(words.get("step", "1"))
    last = high - step if isinstance(high, int) and isinstance(step, int) else high  # the end is not one of the values
    return {"low": low, "high": last, "step": step}


def _of_old_hydra(table: Mapping[str, Any]) -> dict[str, Any]:
    kind = table.get("type")
    if kind == "categorical":
        return _choices(table.get("choices"))
    if kind not in ("int", "float") or table.get("low") is None or table.get("high") is None:
        raise ValueError("it has no type int, float or categorical with its bounds or choices")
    number = int if kind == "int" else float
    described = {"low": number(table["low"]), "high": number(table["high"]), "log": bool(table.get("log", False))}
    return described | ({"step": number(table["step"])} if table.get("step") is not None else {})


def _choices(values: Any) -> dict[str, Any]:
    """Ascending numbers as an ordered list, other values as choices, and a single one as a fixed value."""
    if not isinstance(values, list) or not values:
        raise ValueError("it has no values")
    plain = [*map(_plain, values)]
    if len(plain) == 1:
        return {"value": plain[0]}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in plain):
        return {"ordered": sorted(set(plain))}
    return {"choices": plain}


def _plain(value: Any) -> Any:
    """A number, a text, true or false; YAML reads 1e-3, which has no dot, as a text."""
    if isinstance(value, str):
        return _scalar(value) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value
    if not isinstance(value, bool | int | float):
        raise ValueError(f"{shorten(printable(str(value)), 60)} is no number, text, true or false")
    return value


def _scalar(text: str) -> Any:
    """A word of an override as Hydra reads it."""
    word = text.strip()
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word.strip("'\"")
