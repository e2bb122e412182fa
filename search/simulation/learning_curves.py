"""Learning curves of a grid of configurations, against which studies are replayed."""

import gzip
import hashlib
import io
import json
import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.record.trial import Failure
from search.space.distributions import HyperparameterValue
from search.task.custom_metrics import CustomMetrics
from training.metrics import EpochMetrics

Curve = Sequence[EpochMetrics | CustomMetrics | Failure]
"""The metrics of each epoch of a trial that is not stopped, and the failure at its end, if it fails."""

GRID_COLUMNS = ("optimizer", "batch_size", "learning_rate", "seed")
LARGEST_TABLE = 1 << 28
"""Largest size of a table in bytes; a small compressed file may contain much more."""
METRICS = ("train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "seconds")
"""Columns that a table of learning curves and the `epochs.csv` of every study have."""


@dataclass(frozen=True)
class GridCurves:
    """The curves of all combinations of optimizer, batch size, learning rate (interpolated) and seed."""

    metadata: dict[str, Any]
    """The content of the JSON file beside the table."""
    learning_rates: tuple[float, ...]
    """The learning rates of the grid, in ascending order."""
    metrics: dict[tuple[str, int], NDArray[np.float64]]
    """For each optimizer and batch size, (learning rates, seeds, epochs, metrics); NaN after a training diverged."""

    @property
    def epochs(self) -> int:
        """Number of epochs of a full run."""
        return int(next(iter(self.metrics.values())).shape[2])

    @property
    def seeds(self) -> int:
        """Number of seeds with which each combination was trained."""
        return int(next(iter(self.metrics.values())).shape[1])

    def curve(self, hyperparameters: dict[str, HyperparameterValue], trial_seed: int) -> Curve:
        """The curve of a training from one of the grid's seeds, which the trial's seed selects."""
        values = self._interpolate(hyperparameters)[random.Random(trial_seed).randrange(self.seeds)]
        steps: list[EpochMetrics | Failure] = []
        for epoch, row in enumerate(values, start=1):
            if np.isnan(row).any():
                seconds = steps[-1].seconds if steps else 0.0
                return [*steps, Failure("diverged", f"it diverged in epoch {epoch}", seconds=seconds)]
            values = dict(zip(METRICS, row.tolist(), strict=True))
            steps.append(EpochMetrics(epoch=epoch, evaluation_seconds=0.0, **values))
        return steps

    def truth(self, hyperparameters: dict[str, HyperparameterValue], epoch: int, metric: str) -> float:
        """The mean of a metric over the seeds after an epoch of a configuration."""
        values = self._interpolate(hyperparameters)[:, epoch - 1, METRICS.index(metric)]
        return float(_diverged_last(values, metric).mean())

    def best_truth(self, metric: str) -> float:
        """The best mean over the seeds, among all configurations and epochs."""
        best = np.min if metric.endswith("_loss") else np.max
        columns = (values[..., METRICS.index(metric)] for values in self.metrics.values())
        return float(best([best(_diverged_last(values, metric).mean(axis=1)) for values in columns]))

    def _interpolate(self, hyperparameters: dict[str, HyperparameterValue]) -> NDArray[np.float64]:
        """Curves of all seeds (seeds, epochs, metrics), interpolated linearly in the logarithm of the learning rate."""
        key = str(hyperparameters["optimizer"]), int(hyperparameters["batch_size"])
        rate, rates = float(hyperparameters["learning_rate"]), self.learning_rates
        if key not in self.metrics:
            known = ", ".join(f"{optimizer} {batch_size}" for optimizer, batch_size in self.metrics)
            raise ValueError(f"the table has no curves of {key[0]} with batch size {key[1]}, only of {known}")
        if not rates[0] * (1 - 1e-9) <= rate <= rates[-1] * (1 + 1e-9):
            raise ValueError(f"the table's learning rates go from {rates[0]} to {rates[-1]}, and {rate} was proposed")
        runs = self.metrics[key]
        position = float(np.interp(math.log(rate), np.log(rates), np.arange(len(rates))))
        below, weight = int(position), position % 1
        return np.asarray(runs[below] if weight == 0 else (1 - weight) * runs[below] + weight * runs[below + 1])


def _diverged_last(values: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Values of a metric, with the worst possible value for diverged runs."""
    return np.where(np.isnan(values), math.inf if metric.endswith("_loss") else 0.0, values)


def is_grid(table: pd.DataFrame) -> bool:
    """Whether a table has the columns of one that `benchmarks/learning_curves.py` recorded."""
    return {*GRID_COLUMNS, *METRICS, "epoch"} <= {*table.columns}


def read_csv(file: Path) -> pd.DataFrame:
    """Read a table; a ValueError says that the file is missing or is not a table."""
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(LARGEST_TABLE + 1)
        if len(content) > LARGEST_TABLE:
            raise ValueError(f"it has more than {LARGEST_TABLE >> 20} MiB")
        return pd.read_csv(io.BytesIO(content))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read as a table: {error}") from None


def numbers_of(file: Path, table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """Columns of a table as finite numbers >= 0; a ValueError names the columns of a damaged table."""
    numbers: NDArray[np.float64] = table[[*columns]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(numbers).all() or (numbers < 0).any():
        raise ValueError(f"{file} is damaged: a value of {', '.join(columns)} is not a number >= 0")
    return numbers


def read_grid(file: Path, table: pd.DataFrame) -> GridCurves:
    """Read a table that `benchmarks/learning_curves.py` recorded; a ValueError says how it is damaged.

    A combination without rows in the table diverged in its first epoch.
    """
    json_file = file.with_name(file.name.removesuffix(".gz").removesuffix(".csv") + ".json")
    try:
        metadata = json.loads(json_file.read_text())
        runs, epochs, sha256 = int(metadata["runs"]), int(metadata["epochs"]), str(metadata["sha256"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{json_file}, which belongs to the table, cannot be read: {type(error).__name__}") from None
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{file} is not the table that {json_file.name} describes: its SHA-256 differs")
    numbers = numbers_of(file, table, ("batch_size", "learning_rate", "seed", "epoch", *METRICS))
    batch_sizes, rates, seeds = (tuple(np.unique(column).tolist()) for column in numbers.T[:3])
    optimizers = tuple(dict.fromkeys(table["optimizer"]))
    combinations = len(optimizers) * len(batch_sizes) * len(rates) * len(seeds)
    if combinations == 0 or combinations != runs:
        raise ValueError(
            f"{file} is incomplete: {runs} trainings were recorded, but a complete grid has {combinations}"
        )
    shape = len(rates), len(seeds), epochs, len(METRICS)
    metrics = {(name, int(size)): np.full(shape, np.nan) for name in optimizers for size in batch_sizes}
    for optimizer, (batch_size, rate, seed, epoch, *values) in zip(table["optimizer"], numbers.tolist(), strict=True):
        if epoch not in range(1, epochs + 1):
            raise ValueError(f"{file} is damaged: epoch {epoch:g} of {epochs}")
        metrics[optimizer, int(batch_size)][rates.index(rate), seeds.index(seed), int(epoch) - 1] = values
    return GridCurves(metadata, rates, metrics)
