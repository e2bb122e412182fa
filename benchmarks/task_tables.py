"""The recorded learning curves of one task, and what a search on them costs and loses."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from search.space.distributions import to_unit
from search.space.search_space import Point, SearchSpace, parse

FOLDER = Path(__file__).parent / "tables" / "tasks"


@dataclass(frozen=True)
class Measurement:
    """What is known of a training after some epochs."""

    epoch: float
    """Below 1, a part of the first epoch."""
    cost: float
    """The metric on validation examples, negative for an accuracy, so that the lowest is the best; infinity if the
    training diverged."""
    seconds: float
    """CPU seconds since the last measurement that is in the curve, its evaluation included."""


class TaskTable:
    """The curves of all configurations of a task."""

    def __init__(self, name: str, folder: Path = FOLDER) -> None:
        """Read the table.

        Raises:
            ValueError: From no seed all configurations were trained.
        """
        self.name = name
        facts: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        self.space: SearchSpace = parse(facts["space"])
        self.points: list[Point] = facts["configurations"]
        self.num_starts: int = facts["starting_points"]
        """Number of the points, the first ones, that a study tries first."""
        self.epochs: int = facts["epochs"]
        self.sign = -1.0 if facts["mode"] == "max" else 1.0
        rows = pd.read_csv(folder / f"{name}.csv.gz")
        recorded = rows[rows["made_for"] == self.epochs].groupby("seed")["configuration"].nunique()
        self.seeds = int((recorded == len(self.points)).sum())
        """Number of the seeds, from 0, from which all configurations were trained."""
        if self.seeds == 0:
            raise ValueError(f"{name}: {recorded.max()} of {len(self.points)} configurations were recorded")
        self._rows: dict[tuple[int, int, int], list[dict[Any, float]]] = {}
        for row in rows.to_dict("records"):
            key = int(row["configuration"]), int(row["seed"]), int(row["made_for"])
            self._rows.setdefault(key, []).append(row)

    def curve(
        self, configuration: int, seed: int, parts: tuple[float, ...] = (), made_for: int | None = None
    ) -> list[Measurement]:
        """The measurements of a training in full; a training that diverged ends with one of infinite cost.

        Args:
            configuration: Its number.
            seed: Number of the recorded seed.
            parts: The parts of the first epoch after which the metric is measured; each costs an evaluation.
            made_for: The epochs for which the schedule is made; those of a training in full by default.
        """
        curve, seconds = list[Measurement](), 0.0
        for row in self._rows[configuration, seed, made_for or self.epochs]:
            seconds += row["seconds"]
            if math.isnan(row["val"]):
                curve.append(Measurement(row["epoch"], math.inf, seconds))
            elif row["epoch"] >= 1 or row["epoch"] in parts:
                seconds += row["val_seconds"] + (0.0 if math.isnan(row["test_seconds"]) else row["test_seconds"])
                curve.append(Measurement(row["epoch"], self.sign * row["val"], seconds))
                seconds = 0.0
        return curve

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        """The mean over the seeds of the cost on test examples (configurations, epochs); infinity if one diverged."""
        costs = np.full((len(self.points), self.seeds, self.epochs), math.inf)
        for (configuration, seed, made_for), rows in self._rows.items():
            if made_for == self.epochs and seed < self.seeds:
                for row in rows:
                    if row["epoch"] >= 1 and not math.isnan(row["test"]):
                        costs[configuration, seed, int(row["epoch"]) - 1] = self.sign * row["test"]
        mean: NDArray[np.float64] = costs.mean(axis=1)
        return mean

    @cached_property
    def full_seconds(self) -> float:
        """CPU seconds of a training in full: the mean of the random configurations that did not diverge."""
        sums = [
            sum(step.seconds for step in self.curve(configuration, seed))
            for configuration in range(len(self.points))
            for seed in range(self.seeds)
        ]
        return float(np.mean(sums))

    def regret(self, configuration: int, epoch: int) -> float:
        """What a shipped training loses against the best of the table.

        Points of accuracy, or hundredths of the best loss; at most 100.
        """
        best = float(self.truth.min())
        scale = 100.0 if self.sign < 0 else 100.0 / best
        return min(100.0, scale * (float(self.truth[configuration, epoch - 1]) - best))

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Each configuration as coordinates (configurations, dimensions), as `encode` makes them."""
        return np.array([self.encode(point) for point in self.points])

    def encode(self, point: Point) -> list[float]:
        """A point as coordinates in which two different choices have distance 1, and so have a range and none."""
        coordinates: list[float] = []
        for name, distribution in self.space.items():
            if isinstance(distribution, CategoricalDistribution):
                coordinates += [
                    math.sqrt(0.5) * (name in point and point[name] == choice) for choice in distribution.choices
                ]
            elif name in point:
                coordinates += [to_unit(distribution, point[name]), 0.0]
            else:
                coordinates += [0.5, 1.0]
        return coordinates
