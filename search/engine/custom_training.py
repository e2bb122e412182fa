"""Runs a training function of the user's own: it yields its metrics after each epoch, or returns them at its end."""

import functools
import inspect
import math
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from typing import Any, TypeAlias, get_type_hints

import torch

from search.engine.trial_folder import in_trial_folder
from search.record.custom_metrics import CustomMetrics
from search.record.trial import Objective
from search.settings import check_metric_name
from training.config_fields import field_types, make_config, read_value
from training.console.terminal import printable
from training.custom_checkpoint import CustomCheckpoint
from training.loop import TrainingDivergedError
from training.random_state import seed_generators
from training.user_code import annotated_config, load_function, running

OPTION = "train_function"
CHECKPOINT = "checkpoint"
"""A parameter of this name receives the checkpoint."""
Parameters: TypeAlias = Mapping[str, inspect.Parameter]
OURS = ("epochs", "seed", "trial_folder")
"""Values that a function receives if it has a place for them and does not search them."""


LEFT_OUT = (
    "the training function also yields what is not recorded, because it is not a number "
    "or because its name has other signs than letters, digits, spaces and _ . / : @ -"
)


def check_call(import_path: str, names: Collection[str]) -> None:
    """Check that a training function can be called with hyperparameters of these names; nothing is trained.

    Raises:
        ValueError: It cannot be called so, or is no function that yields metrics.
    """
    function = load_function(OPTION, import_path)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"{OPTION} {import_path} is asynchronous; its definition must begin with def, not async def")
    if inspect.isclass(function):
        raise ValueError(f"{OPTION} {import_path} is a class; name a function that yields metrics")
    if annotated_config(OPTION, import_path) is None:
        _check_names(import_path, _parameters(import_path, function), {*names, *OURS})


def train_custom(
    import_path: str,
    hyperparameters: Mapping[str, Any],
    *,
    epochs: int | None,
    seed: int,
    objective: Objective,
    checkpoint: CustomCheckpoint,
) -> Iterator[CustomMetrics]:
    """Run a training function; yield the metrics of each epoch until it returns, or calls `sys.exit(0)`.

    The random generators of Python, NumPy and torch start from the seed, so that the same call yields the same metrics.
    After `epochs` epochs it may return by itself if it knows their number; otherwise it is closed at its last `yield`.

    Args:
        import_path: Import path of the function, `path/to/file.py:train` or `package.module:train`.
        hyperparameters: Searched and fixed ones.
        epochs: The largest number of epochs; None if there is none.
        seed: Seed of the trial.
        objective: What is searched for; each epoch must have its metric.
        checkpoint: The function receives it if it has a parameter `checkpoint`. The first epoch that it yields is the
            one after those that it has loaded. What the function prints goes to `log.txt` in the folder of the trial.

    Raises:
        TrainingDivergedError: The metric is not finite.
        ValueError: The function yields something else, or nothing.
        SystemExit: The function exits with a text or with a status other than 0.
    """
    with in_trial_folder(checkpoint.folder), running(OPTION, import_path) as function:
        limit = {} if epochs is None else {"epochs": epochs}
        values = {**limit, "seed": seed, "trial_folder": str(checkpoint.folder), **hyperparameters}
        positional, named = _arguments(import_path, function, values, checkpoint)
        seed_generators(seed)
        training = _until_exit(functools.partial(function, *positional, **named), objective.metric)
        epoch, left_out, start = 0, False, time.perf_counter()
        for epoch, yielded in enumerate(training, start=1):
            number = checkpoint.epochs_restored + epoch
            seconds = round(time.perf_counter() - start, 6)
            metrics = _check_metrics(yielded, objective.metric, number)
            if not left_out and (others := [printable(str(name)) for name in yielded if str(name) not in metrics]):
                left_out = True
                checkpoint.warn(f"{LEFT_OUT}: {', '.join(others)}")
            measured = CustomMetrics(epoch=number, seconds=seconds, values=metrics)
            try:
                yield measured
            finally:
                checkpoint.reported(number, objective.minimized(measured))
            if epochs is not None and number >= epochs:
                if _takes_epochs(import_path, named):
                    next(training, None)  # what stands behind its loop
                training.close()
                return
            start = time.perf_counter()
    if epoch + checkpoint.epochs_restored == 0:
        raise ValueError("the training function ended without a metric")


def _arguments(
    import_path: str, function: Callable[..., Any], values: Mapping[str, Any], checkpoint: CustomCheckpoint
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a training function, by position and by name.

    It takes one configuration, a dataclass or a dictionary; or each hyperparameter under its name.
    """
    parameters = _parameters(import_path, function)
    ours = {CHECKPOINT: checkpoint} if CHECKPOINT in parameters else {}
    config_class = annotated_config(OPTION, import_path)
    if config_class is not None:
        unused = {*OURS} - field_types(config_class).keys()
        return [make_config(config_class, {name: value for name, value in values.items() if name not in unused})], ours
    if _takes_dictionary(parameters, values):
        return [dict(values)], ours
    _check_names(import_path, parameters, values)
    types = get_type_hints(function)
    return [], ours | {
        name: read_value(types[name], value) if name in types else value
        for name, value in values.items()
        if name in parameters or _takes_all(parameters)
    }


def _parameters(import_path: str, function: Callable[..., Any]) -> Parameters:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:  # something that is written in C
        raise ValueError(f"{OPTION} {import_path} does not say which parameters it has") from error


def _takes_dictionary(parameters: Parameters, names: Collection[str]) -> bool:
    """Whether a function has one parameter for all hyperparameters, which has the name of none."""
    others = [name for name in parameters if name != CHECKPOINT]
    return len(others) == 1 and others[0] not in names and not _takes_all(parameters)


def _takes_all(parameters: Parameters) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_names(import_path: str, parameters: Parameters, names: Collection[str]) -> None:
    """Refuse a function that takes hyperparameters by name, but not these."""
    if _takes_dictionary(parameters, names):
        return
    for name, parameter in parameters.items():
        is_required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if is_required and name not in {CHECKPOINT, *names}:
            raise ValueError(f"{OPTION} {import_path} needs {name}, which is no hyperparameter of the search space")
    for name in names:
        if name not in {*parameters, *OURS} and not _takes_all(parameters):
            raise ValueError(f"{OPTION} {import_path} has no parameter for the hyperparameter {name}")


def _takes_epochs(import_path: str, named: Mapping[str, Any]) -> bool:
    """Whether a function was told the number of epochs, so that its loop ends by itself."""
    config_class = annotated_config(OPTION, import_path)
    return "epochs" in (field_types(config_class) if config_class else named)


def _until_exit(train: Callable[[], Any], metric: str) -> Generator[Any, None, None]:
    """What a training function yields, or the one result that it returns, until it returns or exits with status 0."""
    try:
        result = train()
        if isinstance(result, Mapping):
            yield result
        elif _number(result) is not None:
            yield {metric: result}
        elif result is not None:
            yield from result
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


def _check_metrics(yielded: object, metric: str, epoch: int) -> dict[str, float | None]:
    """The metrics of an epoch, of which the searched one must be finite; None for others that are not."""
    if not isinstance(yielded, Mapping):
        raise ValueError(f"the training function must yield a dictionary of metrics, got {type(yielded).__name__}")
    if yielded.get(metric) is None:
        others = ", ".join(str(name) for name, value in yielded.items() if value is not None)
        raise ValueError(f"epoch {epoch} has no metric {metric}; it has {others or 'none at all'}")
    numbers = {str(name): _number(value) for name, value in yielded.items() if _is_metric_name(name)}
    value = numbers[metric]
    if value is None:
        raise ValueError(f"metric {metric} must be a number, got {yielded[metric]!r:.50}")
    if not math.isfinite(value):
        raise TrainingDivergedError(f"{metric} is {value} in epoch {epoch}")
    return {name: number if math.isfinite(number) else None for name, number in numbers.items() if number is not None}


def _number(value: Any) -> float | None:
    """A number of Python, NumPy or torch as a float; None for anything else."""
    if isinstance(value, str | bytes):  # float would convert it
        return None
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _is_metric_name(name: object) -> bool:
    try:
        check_metric_name(str(name))
    except ValueError:
        return False
    return True
