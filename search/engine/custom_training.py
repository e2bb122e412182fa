"""A training function of the user's own: any generator that yields a dictionary of metrics for each epoch."""

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from functools import cache
from typing import Any, get_type_hints

import numpy as np
import torch

from search.settings import check_metric_name
from training.loop import TrainingDivergedError
from training.networks.network_config import load_function

OPTION = "train_function"


@dataclass(frozen=True, kw_only=True)
class OwnMetrics:
    """What a training function measured in one epoch; `metrics_type` adds a field for each metric."""

    epoch: int
    """Finished epochs, from 1."""
    seconds: float
    """Wall-clock time of the epoch."""
    evaluation_seconds: None = None
    """Only the function knows which part of the time was evaluation."""


@cache
def metrics_type(names: tuple[str, ...]) -> type[OwnMetrics]:
    """`OwnMetrics` with these metrics; one that an epoch did not have is None."""
    metrics = [(name, float | None, None) for name in names]
    return make_dataclass("OwnMetrics", metrics, bases=(OwnMetrics,), frozen=True, kw_only=True)


def config_kind(place: str) -> type[Any] | None:
    """The dataclass by which a training function annotates its argument; None if it takes a dictionary.

    Raises:
        ValueError: There is no such function, or a field of the dataclass has no default.
    """
    train = load_function(OPTION, place)
    try:
        declared = next(iter(get_type_hints(train).values()), None)
    except Exception as error:  # an annotation that cannot be resolved
        raise ValueError(f"{OPTION} {place}: its annotations cannot be read: {error}") from error
    if not (isinstance(declared, type) and is_dataclass(declared)):
        return None
    try:
        declared()
    except TypeError as error:
        raise ValueError(f"{OPTION} {place}: every hyperparameter needs a default: {error}") from None
    return declared


def train_own(
    place: str, hyperparameters: Mapping[str, Any], epochs: int, seed: int, metric: str
) -> Iterator[OwnMetrics]:
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
    kind = config_kind(place)
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


def names_of(metrics: OwnMetrics) -> Sequence[str]:
    """The metrics of an epoch."""
    own = {field.name for field in fields(OwnMetrics)}
    return [field.name for field in fields(metrics) if field.name not in own]
