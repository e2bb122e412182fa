"""Calls a function or a class of the user that builds a network: with a configuration, or with names and defaults."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any

from training.config_fields import is_plain

GIVEN = ("input_shape", "classes")
"""Parameters that receive the shape of an image and the number of classes, if there are such ones."""
CONFIG = "config"


def build_by_function(build: Callable[..., Any], config: Any, **given: Any) -> Any:
    """Build a network.

    Args:
        build: The function or the class.
        config: The configuration, whose fields are the hyperparameters.
        given: The values of `GIVEN`.
    """
    parameters = named_parameters(build)
    if parameters is None:
        return build(config, *given.values())
    values = {name: getattr(config, name) for name in _hyperparameters(parameters)} | given
    return build(**{name: values[name] for name in parameters if name in values})


def named_hyperparameters(build: Callable[..., Any]) -> type[Any] | None:
    """A frozen dataclass of the hyperparameters that a function or a class takes by name; None if it has none.

    These are its parameters whose defaults, or annotations, are numbers, texts, true or false. The others keep their
    defaults. A ValueError says that it takes its hyperparameters in no known way.
    """
    return _dataclass_of(build) if named_parameters(build) else None


@cache  # the same class each time
def _dataclass_of(build: Callable[..., Any]) -> type[Any] | None:
    parameters = named_parameters(build) or {}
    types = _hyperparameters(parameters)
    fields = [(name, types[name], field(default=parameters[name].default)) for name in types]
    return make_dataclass(getattr(build, "__name__", "Hyperparameters"), fields, frozen=True) if fields else None


def named_parameters(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a function that takes its hyperparameters by name; None if it takes a configuration first.

    Raises:
        ValueError: It takes neither three values, the first of which is a configuration, nor defaults only.
    """
    try:
        signature = inspect.signature(build, eval_str=True)
    except (TypeError, ValueError):  # something that is written in C
        return None
    parameters = signature.parameters
    required = [name for name, one in parameters.items() if _is_required(one) and name not in GIVEN]
    if not required and CONFIG not in parameters:
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {name: one for name, one in parameters.items() if one.kind in by_name}
    try:
        signature.bind(None, None, None)
    except TypeError:
        without = [name for name in required if name != CONFIG][:1]
        reason = "".join(f"; {name} has none" for name in without)
        raise ValueError(
            f"must take (config, input_shape, classes), or its hyperparameters by name, each with a default{reason}"
        ) from None
    return None


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


def _hyperparameters(parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The types of the parameters that can be searched."""
    types = {
        name: type(one.default) if one.annotation is one.empty else one.annotation
        for name, one in parameters.items()
        if name not in GIVEN
    }
    return {name: kind for name, kind in types.items() if kind is not type(None) and is_plain(kind)}
