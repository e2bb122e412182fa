"""Runs a custom training function: a generator that yields a dictionary of metrics for each epoch."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from search.record.custom_metrics import CustomMetrics
from search.settings import check_metric_name
from training.config_fields import field_types, make_config
from training.loop import TrainingDivergedError
from training.random_state import seed_generators
from training.user_code import annotated_config, running

OPTION = "train_function"


def train_custom(
    import_path: str, hyperparameters: Mapping[str, Any], epochs: int, seed: int, metric: str
) -> Iterator[CustomMetrics]:
    """Run a training function; yield the metrics of each epoch. It ends when it returns or calls `sys.exit(0)`.

    The random generators of Python, NumPy and torch start from the seed, so that the same call yields the same metrics.

    Args:
        import_path: Import path of the function, `path/to/file.py:train` or `package.module:train`.
        hyperparameters: Searched and fixed ones; the function receives them as its dataclass, or as a dictionary.
        epochs: Number of epochs; the function receives it if its dataclass has a field `epochs`.
        seed: Seed of the trial; the function receives it if its dataclass has a field `seed` that is not searched.
        metric: The metric that is searched for; each epoch must have it.

    Raises:
        TrainingDivergedError: The metric is not finite.
        ValueError: The function yields something else, or nothing. One that ends early has stopped by itself.
        SystemExit: The function exits with a text or with a status other than 0.
    """
    config_class = annotated_config(OPTION, import_path)
    values = {"epochs": epochs, "seed": seed, **hyperparameters}
    epoch = 0
    with running(OPTION, import_path) as function:
        seed_generators(seed)
        if config_class is None:
            config: Any = values
        else:
            unused = {"epochs", "seed"} - field_types(config_class).keys()
            config = make_config(config_class, {name: value for name, value in values.items() if name not in unused})
        start = time.perf_counter()
        for epoch, yielded in enumerate(_until_exit(function, config), start=1):
            seconds = round(time.perf_counter() - start, 3)
            metrics = _check_metrics(yielded, metric, epoch)
            yield CustomMetrics(epoch=epoch, seconds=seconds, values=metrics)
            if epoch == epochs:
                return
            start = time.perf_counter()
    if epoch == 0:
        raise ValueError(f"the training function yielded only 0 of {epochs} epochs")


def _until_exit(function: Callable[..., Any], config: Any) -> Iterator[Any]:
    """What a training function yields until it ends or exits with status 0."""
    try:
        yield from function(config)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


def _check_metrics(yielded: object, metric: str, epoch: int) -> dict[str, float | None]:
    if not isinstance(yielded, Mapping):
        raise ValueError(f"the training function must yield a dictionary of metrics, got {type(yielded).__name__}")
    if yielded.get(metric) is None:
        raise ValueError(f"epoch {epoch} has no metric {metric}; it has {', '.join(map(str, yielded))}")
    metrics = {str(name): _number(str(name), value) for name, value in yielded.items()}
    if not math.isfinite(metrics[metric]):
        raise TrainingDivergedError(f"{metric} is {metrics[metric]} in epoch {epoch}")
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _number(name: str, value: Any) -> float:
    """A metric as a number; NaN for one that was not measured, which is None."""
    check_metric_name(name)
    if value is None:
        return math.nan
    try:
        if isinstance(value, str):
            raise TypeError  # float would convert it
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"metric {name} must be a number, got {value!r:.50}") from None
