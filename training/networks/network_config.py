"""The hyperparameters of each network beside those of every training."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from training.config import DataConfig, TrialConfig, check_network
from training.config_fields import is_plain
from training.networks.builder import named_hyperparameters
from training.user_code import annotated_config, errors_as_sentences, load_function

COMMAND_OPTIONS = {"split_seed", "threads", "help"}
"""Options of `python training/run.py` that are in no configuration."""


@dataclass(frozen=True, kw_only=True)
class MlpHyperparameters:
    """Hyperparameters of `--network mlp`; the defaults are the tutorial's network."""

    depth: int = 2
    """Number of hidden layers of the mlp; >= 1."""
    width: int = 512
    """Number of units in each hidden layer of the mlp; >= 1."""
    dropout: float = 0.0
    """Fraction of the hidden units that each training step leaves out, in [0, 1)."""

    def __post_init__(self) -> None:
        _check_network_shape(depth=self.depth, width=self.width, dropout=self.dropout)


@dataclass(frozen=True, kw_only=True)
class CnnHyperparameters:
    """Hyperparameters of `--network cnn`."""

    channels: int = 16
    """Number of channels of the first convolution of the cnn; the second one has twice as many; >= 1."""
    width: int = 128
    """Number of units in the hidden layer after the convolutions; >= 1."""
    dropout: float = 0.3
    """Fraction of the inputs and outputs of the hidden layer that each training step leaves out, in [0, 1)."""

    def __post_init__(self) -> None:
        _check_network_shape(channels=self.channels, width=self.width, dropout=self.dropout)


def config_type(network: str) -> type[TrialConfig]:
    """`TrialConfig` with the hyperparameters of a network; the fields are all that can be searched.

    The frozen dataclass also inherits from the class that the network's function takes. A ValueError says that there is
    no such network, or that the class of its hyperparameters breaks a rule.
    """
    check_network(network)
    declared = _hyperparameters(network)
    return TrialConfig if declared is None else _merged(network, declared)  # type: ignore[arg-type]


@cache  # by both: a program may pass another network under the same name
def _merged(network: str, declared: type[Any]) -> type[TrialConfig]:
    def check(self: TrialConfig) -> None:
        TrialConfig.__post_init__(self)
        if hasattr(declared, "__post_init__"):
            with errors_as_sentences(f"network {network}: {declared.__name__}", own_rules=True):
                declared.__post_init__(self)

    namespace = {"__doc__": TrialConfig.__doc__, "__post_init__": check, "__module__": __name__}
    merged = type("NetworkConfig", (TrialConfig, declared), namespace)
    return dataclass(frozen=True, kw_only=True)(merged)


def _hyperparameters(network: str) -> type[Any] | None:
    """The dataclass of a network's own hyperparameters; None if its function takes any `TrialConfig`."""
    match network:
        case "mlp":
            return MlpHyperparameters
        case "cnn":
            return CnnHyperparameters
    declared = annotated_config("network", network) or _taken_by_name(network)
    if declared is None or issubclass(TrialConfig, declared):
        return None
    if not declared.__dataclass_params__.frozen:
        raise ValueError(f"network {network}: {declared.__name__} must be a frozen dataclass")
    types = get_type_hints(declared)
    common = {field.name for config in (TrialConfig, DataConfig) for field in fields(config)} | COMMAND_OPTIONS
    all_types = types | get_type_hints(TrialConfig)
    common |= {f"no_{name}" for name, field_type in all_types.items() if field_type is bool}  # --no-shuffle
    for field in fields(declared):
        field_type = types[field.name]
        if field.name in common:
            raise ValueError(f"network {network}: {field.name} is already an option of every training")
        if not is_plain(field_type):
            rule = "must be an int, float, str, bool, Literal, Enum or Path, or such a type or None"
            raise ValueError(f"network {network}: {field.name} {rule}, got {field_type}")
    return declared


def _taken_by_name(network: str) -> type[Any] | None:
    try:
        return named_hyperparameters(load_function("network", network))
    except ValueError as error:
        raise ValueError(f"network {network} {error}") from None


def _check_network_shape(*, dropout: float, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be >= 1, got {size}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
