"""Calls a training function of the user's own: hyperparameters come in one argument or by name."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAlias, get_args, get_origin, is_typeddict

from search.space.objective_space import OPTION, TRIAL
from search.space.search_space import SearchSpace
from search.space.toml_file import points_to_check
from training.config_fields import field_types, make_config, read_value
from training.user_code import annotated_config, load_function

VALUES = ("epochs", "seed", "trial_folder")
"""Values that a function receives if it has a place for them and does not search them."""
SHARED_DATA = "data"
LOADER = "load"
"""Name of the function beside a training function that loads its data."""
CONFIG = "config"
"""A parameter of this name may receive all hyperparameters, although others, which have defaults, stand beside it."""
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
    loader = getattr(_innermost(function), "__globals__", {}).get(LOADER)
    return loader if inspect.isfunction(loader) else None


def check_call(import_path: str, space: SearchSpace, epochs: int | None) -> None:
    """Check that a training function can be called with the points of a search space; nothing is trained.

    Args:
        import_path: Import path of the function.
        space: The search space.
        epochs: The largest number of epochs; None if there is none.

    Raises:
        ValueError: It cannot be called so, or is no function that yields metrics.
    """
    function, names = load_function(OPTION, import_path), space.order
    innermost = _innermost(function)
    if inspect.iscoroutinefunction(innermost) or inspect.isasyncgenfunction(innermost):
        raise ValueError(f"{OPTION} {import_path} is asynchronous; its definition must begin with def, not async def")
    if inspect.isclass(function):
        raise ValueError(f"{OPTION} {import_path} is a class; name a function that yields metrics")
    data = _parameters(import_path, function).get(SHARED_DATA)
    if data and data.default is data.empty and SHARED_DATA not in names and find_loader(import_path) is None:
        raise ValueError(
            f"{OPTION} {import_path} needs {SHARED_DATA}, which is no hyperparameter of the search space: define a "
            f"function {LOADER}() beside it that returns the data of all trials"
        )
    if annotated_config(OPTION, import_path) is None:  # otherwise the points were checked when the space was read
        _check_points(import_path, function, space, epochs)


def _check_points(import_path: str, function: Callable[..., Any], space: SearchSpace, epochs: int | None) -> None:
    """Refuse a function that cannot be called with some points of a search space."""
    given = {"seed": 0, "trial_folder": "", **({} if epochs is None else {"epochs": epochs})}
    parameters = _parameters(import_path, function)
    required = [name for name in space.order if name in parameters and _is_required(parameters[name])]
    for point in points_to_check(space):
        values = {**given, **space.add_fixed(point)}
        for name in required:
            if name not in values:
                raise ValueError(
                    f"{OPTION} {import_path}: {name} needs a default, for the search space does not always have it"
                )
        prepare_call(import_path, function, values, dict.fromkeys(SERVICES))


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
        fields = field_types(config_class).keys()
        own = {name: value for name, value in values.items() if name in fields or name not in VALUES}
        named[next(iter(parameters))] = make_config(config_class, own)
        knows_epochs = "epochs" in fields
    elif (name := _dictionary_name(parameters, values)) is not None:
        _check_dictionary(import_path, parameters[name])
        named[name] = dict(values)
        knows_epochs = False
    else:
        _check_names(import_path, parameters, values)
        named |= {
            name: _read(import_path, parameters.get(name), name, value)
            for name, value in values.items()
            if name in parameters or _takes_all(parameters)
        }
        knows_epochs = "epochs" in named
    by_place = [name for name, parameter in parameters.items() if parameter.kind in _BY_PLACE and name in named]
    return FunctionCall(function, tuple(named.pop(name) for name in by_place), named, knows_epochs)


_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function within decorators, `functools.partial` and objects that can be called."""
    function = inspect.unwrap(function)
    if isinstance(function, partial):
        return _innermost(function.func)
    is_object = not (inspect.isroutine(function) or inspect.isclass(function))
    return _innermost(type(function).__call__) if is_object else function


def _parameters(import_path: str, function: Callable[..., Any]) -> Parameters:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (TypeError, ValueError) as error:  # something that is written in C
        raise ValueError(f"{OPTION} {import_path} does not say which parameters it has") from error


def _read(import_path: str, parameter: inspect.Parameter | None, name: str, value: Any) -> Any:
    """Read a hyperparameter as the type by which its parameter is annotated."""
    if parameter is None or parameter.annotation is parameter.empty:
        return value
    annotation = parameter.annotation
    try:
        return read_value(get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation, value)
    except ValueError as error:
        raise ValueError(f"{OPTION} {import_path}: {name} {error}, got {value}") from None


def _check_dictionary(import_path: str, parameter: inspect.Parameter) -> None:
    """Refuse a parameter for all hyperparameters that is annotated with something else than a dictionary."""
    annotation = parameter.annotation
    if annotation in (parameter.empty, Any) or not isinstance(annotation, type) or is_typeddict(annotation):
        return
    if not issubclass(dict, get_origin(annotation) or annotation):
        raise ValueError(
            f"{OPTION} {import_path}: {parameter.name} is no hyperparameter of the search space, so it receives a "
            f"dictionary of all, but its type is {annotation.__name__}; only a dataclass in the first place is made "
            "from the hyperparameters"
        )


def _dictionary_name(parameters: Parameters, names: Collection[str]) -> str | None:
    """The one parameter for all hyperparameters, which has the name of none; None if they come by name."""
    others = [name for name in parameters if name not in SERVICES]
    is_objective = TRIAL in parameters and TRIAL not in names
    has_config = CONFIG in others and not any(name in names for name in others if name not in VALUES)
    if is_objective or has_config:
        others = [name for name in others if name == CONFIG or _is_required(parameters[name])]
    return others[0] if len(others) == 1 and others[0] not in names and not _takes_all(parameters) else None


def _takes_dictionary(parameters: Parameters, names: Collection[str]) -> bool:
    return _dictionary_name(parameters, names) is not None


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


def _takes_all(parameters: Parameters) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_names(import_path: str, parameters: Parameters, names: Collection[str]) -> None:
    """Refuse a function that takes hyperparameters by name, but not these."""
    if _takes_dictionary(parameters, names):
        return
    suggests = TRIAL in parameters and TRIAL not in names
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ValueError(
                f"{OPTION} {import_path} does not name its parameters, but takes *{name}; "
                "a decorator keeps the names with functools.wraps"
            )
        if _is_required(parameter) and name not in {*SERVICES, *names}:
            remedy = "only --epochs sets" if name == "epochs" else "is no hyperparameter of the search space"
            raise ValueError(f"{OPTION} {import_path} needs {name}, which {remedy}")
    for name in names:
        if name not in {*parameters, *VALUES} and not _takes_all(parameters) and not suggests:
            raise ValueError(f"{OPTION} {import_path} has no parameter for the hyperparameter {name}")
