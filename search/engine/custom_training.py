"""A training function of the user's own: any generator that yields a dictionary of metrics for each epoch."""

import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from search.record.custom_metrics import CustomMetrics, metrics_type
from search.settings import check_metric_name
from training.loop import TrainingDivergedError
from training.user_code import annotated_config, load_function

OPTION = "train_function"


def train_custom(
    place: str, hyperparameters: Mapping[str, Any], epochs: int, seed: int, metric: str
) -> Iterator[CustomMetrics]:
    """Run a training function; yield what it measures.

    The random generators of Python, NumPy and torch start from the seed, so that the same call measures the same.

    Args:
        place: Of the function, `path/to/file.py:train` or `package.module:train`.
        hyperparameters: Searched and fixed ones; the function gets them as its dataclass, or else as a dictionary.
        epochs: How many there are to be; the function gets them too, if it has a place for `epochs`.
        seed: Of the trial; the function gets it too, if it has a place for `seed`.
        metric: What is searched for; each epoch must have it.

    Raises:
        TrainingDivergedError: The metric is not finite.
        ValueError: The function yields something else, or too little.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    kind = annotated_config(OPTION, place)
    known = {"epochs": epochs, "seed": seed}
    if kind is None:
        config: Any = {**hyperparameters, **known}
    else:
        names = {field.name for field in fields(kind)}
        config = kind(**hyperparameters, **{name: value for name, value in known.items() if name in names})
    start = time.perf_counter()
    epoch = 0
    for epoch, yielded in enumerate(iter(load_function(OPTION, place)(config)), start=1):
        seconds = round(time.perf_counter() - start, 3)
        measured = _checked(yielded, metric, epoch)
        yield metrics_type(tuple(measured))(epoch=epoch, seconds=seconds, **measured)  # type: ignore[arg-type]
        if epoch == epochs:
            return
        start = time.perf_counter()
    fewer = f"; --epochs {epoch} asks for no more" if epoch else ""
    raise ValueError(f"the training function yielded {epoch} of {epochs} epochs{fewer}")


def _checked(yielded: object, metric: str, epoch: int) -> dict[str, float]:
    if not isinstance(yielded, Mapping):
        raise ValueError(f"the training function must yield a dictionary of metrics, got {type(yielded).__name__}")
    if metric not in yielded:
        raise ValueError(f"epoch {epoch} has no metric {metric}; it has {', '.join(map(str, yielded))}")
    measured = {name: _number(name, value) for name, value in yielded.items()}
    if not math.isfinite(measured[metric]):
        raise TrainingDivergedError(f"{metric} is {measured[metric]} in epoch {epoch}")
    return {name: value for name, value in measured.items() if math.isfinite(value)}


def _number(name: object, value: Any) -> float:
    check_metric_name(str(name))
    try:
        if isinstance(value, str):
            raise TypeError  # float would read it
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"metric {name} must be a number, got {value!r:.50}") from None
