"""What the studies of `advice.py` search: recorded tables of learning curves, and planted functions with noise."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.simulation.learning_curves import read_csv, read_grid
from search.space.search_space import Point
from training.metrics import EpochMetrics

EPOCHS = 10
"""Epochs of a study; a table knows no more."""
PLANTED_EPOCHS = 2 * EPOCHS
IMAGES = 10_000
Numbers = NDArray[np.float64]


class Table:
    """Recorded curves; the truth is their mean over the seeds."""

    epochs = EPOCHS

    def __init__(self, name: str) -> None:
        file = Path(__file__).with_name("tables") / f"{name}.csv.gz"
        self.curves = read_grid(file, read_csv(file))
        self.rates = self.curves.learning_rates
        self.images = int(self.curves.metadata["dataset"]["validation_images"])

    def curve(self, point: Point, seed: int) -> Any:
        """The curve of one training."""
        return self.curves.curve(point, seed)

    def mean_curve(self, point: Point) -> Numbers:
        """The true mean accuracy after each epoch."""
        return self._mean_curve(tuple(sorted(point.items())))

    @cache  # noqa: B019 - there are two tables
    def _mean_curve(self, items: tuple[tuple[str, Any], ...]) -> Numbers:
        return np.array([self.curves.truth(dict(items), epoch, "val_accuracy") for epoch in range(1, EPOCHS + 1)])

    def can_train(self, point: Point) -> bool:
        """Whether the table has such a configuration."""
        sizes = {size for _, size in self.curves.metrics}
        return point["batch_size"] in sizes and self.rates[0] <= float(point["learning_rate"]) <= self.rates[-1]


Effect = Callable[[float, float, bool, float], float]
"""Of the learning rate in decades above 0.01, the batch size in doublings of 64, whether it is SGD, its momentum."""


class Planted:
    """A function of the hyperparameters, with noise in each training and each epoch."""

    images, epochs = IMAGES, PLANTED_EPOCHS

    def __init__(self, cost: Effect, rise: Effect = lambda *_: 0.5) -> None:
        """A trial is worse than 0.9 by its cost; in each epoch it keeps this part, `rise`, of what it has to rise."""
        self._cost, self._rise = cost, rise

    def with_rise(self, rise: float) -> "Planted":
        """The same function, of which each trial keeps this part in each epoch."""
        return Planted(self._cost, lambda *_: rise)

    def mean_curve(self, point: Point) -> Numbers:
        """The true mean accuracy after each epoch."""
        decades, doublings = math.log10(float(point["learning_rate"]) / 1e-2), math.log2(point["batch_size"] / 64)  # type: ignore[operator]
        inputs = decades, doublings, point["optimizer"] == "sgd", float(point.get("momentum", 0))
        cost, rise = self._cost(*inputs), self._rise(*inputs)
        return np.array((0.9 - cost) * (1 - rise ** np.arange(1, PLANTED_EPOCHS + 1)))

    def curve(self, point: Point, seed: int) -> list[EpochMetrics]:
        """The curve of one training."""
        noise = np.random.default_rng(seed)
        values = self.mean_curve(point) + noise.normal(0, 0.002) + noise.normal(0, 0.001, PLANTED_EPOCHS)
        return [_epoch(number, float(value)) for number, value in enumerate(values, 1)]

    def can_train(self, _: Point) -> bool:
        """Whether there is a truth about a configuration."""
        return True


def _epoch(number: int, accuracy: float) -> EpochMetrics:
    others = dict.fromkeys(("train_loss", "val_loss", "test_accuracy", "test_loss", "evaluation_seconds"), 0.0)
    return EpochMetrics(epoch=number, val_accuracy=accuracy, seconds=1.0, **others)


WORLDS: dict[str, Table | Planted] = {
    "digits": Table("digits"),
    "fashion-mnist": Table("fashion-mnist"),
    "planted, only the learning rate": Planted(lambda decades, *_: 0.05 * decades**2),
    "planted, all three": Planted(
        lambda decades, doublings, sgd, *_: 0.05 * decades**2 + 0.003 * abs(doublings) + 0.02 * sgd
    ),
    "planted, nothing": Planted(lambda *_: 0.0),
    "planted, just below a point": Planted(lambda decades, _, sgd, *__: 0.05 * decades**2 + 0.008 * sgd),
    "planted, just above a point": Planted(lambda decades, _, sgd, *__: 0.05 * decades**2 + 0.012 * sgd),
    "planted, only near the best": Planted(
        lambda decades, doublings, *_: 0.05 * decades**2 + 0.005 * abs(doublings) * (abs(decades) < 0.5)
    ),
    "planted, interactions": Planted(
        lambda decades, doublings, sgd, *_: 0.05 * (decades - 0.3 * doublings + 0.5 * sgd) ** 2 + 0.01 * sgd
    ),
    "planted, the best are slow": Planted(
        lambda decades, _, sgd, *__: 0.05 * (decades + 0.5) ** 2 + 0.02 * (not sgd),
        lambda decades, _, sgd, *__: min(0.75, max(0.2, 0.45 - 0.1 * decades + 0.15 * sgd)),
    ),
    "planted, momentum without effect": Planted(lambda decades, _, sgd, *__: 0.05 * decades**2 + 0.02 * (not sgd)),
    "planted, momentum": Planted(
        lambda decades, _, sgd, momentum: 0.05 * decades**2 + (0.03 * abs(momentum - 0.8) if sgd else 0.02)
    ),
}
"""A point is 0.01, the smallest effect that is worth having."""
