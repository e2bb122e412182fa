"""What can be set of each network: its own hyperparameters beside those of every training."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_origin, get_type_hints

from training.config import TrialConfig, check_network


@dataclass(frozen=True, kw_only=True)
class MlpHyperparameters:
    """Hyperparameters of `--network mlp`; the defaults are the tutorial's network."""

    depth: int = 2
    """Hidden layers of the mlp; >= 1."""
    width: int = 512
    """Units of each hidden layer of the mlp; >= 1."""
    dropout: float = 0.0
    """Part of the hidden units that is left out in each training step, in [0, 1)."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check_at_least_one("depth", self.depth)
        _check_at_least_one("width", self.width)
        _check_dropout(self.dropout)


@dataclass(frozen=True, kw_only=True)
class CnnHyperparameters:
    """Hyperparameters of `--network cnn`."""

    channels: int = 16
    """Channels of the first convolution of the cnn; the second has twice as many; >= 1."""
    width: int = 128
    """Units of the hidden layer after the convolutions; >= 1."""
    dropout: float = 0.3
    """Part of what enters and of what leaves the hidden layer that is left out in each training step, in [0, 1)."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check_at_least_one("channels", self.channels)
        _check_at_least_one("width", self.width)
        _check_dropout(self.dropout)


@cache
def config_type(network: str) -> type[TrialConfig]:
    """`TrialConfig` with the hyperparameters of a network; its fields are all that can be searched.

    Args:
        network: As `TrialConfig.network`.

    Returns:
        A frozen dataclass that is both a `TrialConfig` and what the network's own function takes.

    Raises:
        ValueError: There is no such network, or its hyperparameters are not declared as they must be.
    """
    check_network(network)
    declared = _hyperparameters(network)
    if declared is None:
        return TrialConfig

    def check(self: TrialConfig) -> None:
        TrialConfig.__post_init__(self)
        if hasattr(declared, "__post_init__"):
            declared.__post_init__(self)

    namespace = {"__doc__": TrialConfig.__doc__, "__post_init__": check, "__module__": __name__}
    merged = type("NetworkConfig", (TrialConfig, declared), namespace)
    return dataclass(frozen=True, kw_only=True)(merged)


@cache
def load_function(option: str, place: str) -> Callable[..., Any]:
    """The function at a place like `path/to/file.py:name` or `package.module:name`.

    Raises:
        ValueError: There is none, or its file cannot be imported; the message names the option.
    """
    where, _, name = place.rpartition(":")
    try:
        module = _import_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:  # whatever the file does
        raise ValueError(f"{option} {place} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{option} {place}: {where} has no function {name}")
    return function  # type: ignore[no-any-return]


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    name = f"tunesmith_file_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec, "a .py file has a loader"
    assert spec.loader, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _hyperparameters(network: str) -> type | None:
    """The dataclass by which a network's function annotates its first argument; None if it takes any `TrialConfig`."""
    match network:
        case "mlp":
            return MlpHyperparameters
        case "cnn":
            return CnnHyperparameters
    build = load_function("network", network)
    try:
        declared = next(iter(get_type_hints(build).values()), None)
    except Exception as error:  # an annotation that cannot be resolved
        raise ValueError(f"network {network}: its annotations cannot be read: {error}") from error
    if not (isinstance(declared, type) and is_dataclass(declared)) or issubclass(TrialConfig, declared):
        return None
    if not declared.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ValueError(f"network {network}: {declared.__name__} must be a frozen dataclass")
    types, taken = get_type_hints(declared), {field.name for field in fields(TrialConfig)}
    for field in fields(declared):
        kind = types[field.name]
        if field.name in taken:
            raise ValueError(f"network {network}: {field.name} is already a hyperparameter of every training")
        if field.default is MISSING:
            raise ValueError(f"network {network}: hyperparameter {field.name} needs a default")
        if kind not in (int, float, str, bool) and get_origin(kind) is not Literal:
            raise ValueError(f"network {network}: {field.name} must be an int, float, str, bool or Literal, got {kind}")
    return declared


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")


def _check_dropout(part: float) -> None:
    if not 0 <= part < 1:
        raise ValueError(f"dropout must be in [0, 1), got {part}")
