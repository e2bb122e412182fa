"""Calls a training function of the user's own: hyperparameters come in one argument or by name."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_type_hints

from search.space.objective_space import OPTION, TRIAL
from training.config_fields import field_types, make_config, read_value
from training.user_code import annotated_config, load_function

VALUES = ("epochs", "seed", "trial_folder")
"""Values that a function receives if it has a place for them and does not search them."""
SHARED_DATA = "data"
LOADER = "load"
"""Name of the function beside a training function that loads its data."""
SERVICES = ("checkpoint", "report", SHARED_DATA, TRIAL)
"""A parameter of such a name receives the checkpoint, the function that reports, the data of all trials, or the trial
of an Optuna objective."""
Parameters: TypeAlias = Mapping[str, inspect.Parameter]


@dataclass(frozen=True)
class FunctionCall:
    """A training function with its arguments."""

    function: Callable[..., Any]
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    knows_epochs: bool
    """Whether the function receives the largest number of epochs, so that its loop ends by itself."""

    def __call__(self) -> Any:
        """Call the function."""
        return self.function(*self.positional, **self.named)


def find_loader(import_path: str) -> Callable[[], Any] | None:
    """The function `load` beside a training function that has a parameter `data`; None if there is none."""
    function = load_function(OPTION, import_path)
    if SHARED_DATA not in _parameters(import_path, function):
        return None
    loader = getattr(function, "__globals__", {}).get(LOADER)
    return loader if inspect.isfunction(loader) else None


def check_call(import_path: str, names: Collection[str]) -> None:
    """Check that a training function can be called with hyperparameters of these names; nothing is trained.

    Args:
        import_path: Import path of the function.
        names: Names of all hyperparameters.

    Raises:
        ValueError: It cannot be called so, or is no function that yields metrics.
    """
    function = load_function(OPTION, import_path)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"{OPTION} {import_path} is asynchronous; its definition must begin with def, not async def")
    if inspect.isclass(function):
        raise ValueError(f"{OPTION} {import_path} is a class; name a function that yields metrics")
    data = _parameters(import_path, function).get(SHARED_DATA)
    if data and data.default is data.empty and SHARED_DATA not in names and find_loader(import_path) is None:
        raise ValueError(
            f"{OPTION} {import_path} needs {SHARED_DATA}, which is no hyperparameter of the search space: define a "
            f"function {LOADER}() beside it that returns the data of all trials"
        )
    if annotated_config(OPTION, import_path) is None:
        _check_names(import_path, _parameters(import_path, function), {*names, *VALUES})


def takes_seed(import_path: str, names: Collection[str]) -> bool:
    """Whether a function with hyperparameters of these names has a place for its seed; a ValueError as `check_call`."""
    config_class = annotated_config(OPTION, import_path)
    if config_class is not None:
        return "seed" in field_types(config_class)
    parameters = _parameters(import_path, load_function(OPTION, import_path))
    return "seed" in parameters or _takes_all(parameters) or _takes_dictionary(parameters, {*names, *VALUES})


def prepare_call(
    import_path: str, function: Callable[..., Any], values: Mapping[str, Any], services: Mapping[str, Any]
) -> FunctionCall:
    """Put the arguments of a training function together.

    It takes one configuration, a dataclass or a dictionary; or each hyperparameter under its name.

    Args:
        import_path: Import path of the function.
        function: The function itself.
        values: Hyperparameters and `VALUES`, by name.
        services: Members of `SERVICES`, by name.

    Raises:
        ValueError: The function has no parameter for a hyperparameter, or needs one that there is not.
    """
    parameters = _parameters(import_path, function)
    named = {name: service for name, service in services.items() if name in parameters and name not in values}
    config_class = annotated_config(OPTION, import_path)
    if config_class is not None:
        names = field_types(config_class).keys()
        config = make_config(
            config_class, {name: values[name] for name in values if name in names or name not in VALUES}
        )
        return FunctionCall(function, (config,), named, knows_epochs="epochs" in names)
    if _takes_dictionary(parameters, values):
        return FunctionCall(function, (dict(values),), named, knows_epochs=False)
    _check_names(import_path, parameters, values)
    types = get_type_hints(function)
    named |= {
        name: read_value(types[name], value) if name in types else value
        for name, value in values.items()
        if name in parameters or _takes_all(parameters)
    }
    return FunctionCall(function, (), named, knows_epochs="epochs" in named)


def _parameters(import_path: str, function: Callable[..., Any]) -> Parameters:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:  # something that is written in C
        raise ValueError(f"{OPTION} {import_path} does not say which parameters it has") from error


def _takes_dictionary(parameters: Parameters, names: Collection[str]) -> bool:
    """Whether a function has one parameter for all hyperparameters, which has the name of none."""
    others = [name for name in parameters if name not in SERVICES]
    return len(others) == 1 and others[0] not in names and not _takes_all(parameters)


def _takes_all(parameters: Parameters) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_names(import_path: str, parameters: Parameters, names: Collection[str]) -> None:
    """Refuse a function that takes hyperparameters by name, but not these."""
    if _takes_dictionary(parameters, names):
        return
    suggests = TRIAL in parameters and TRIAL not in names
    for name, parameter in parameters.items():
        is_required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if is_required and name not in {*SERVICES, *names}:
            raise ValueError(f"{OPTION} {import_path} needs {name}, which is no hyperparameter of the search space")
    for name in names:
        if name not in {*parameters, *VALUES} and not _takes_all(parameters) and not suggests:
            raise ValueError(f"{OPTION} {import_path} has no parameter for the hyperparameter {name}")
