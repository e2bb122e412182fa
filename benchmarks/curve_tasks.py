"""The ten tasks on whose recorded learning curves ways to search are compared; `tables/halves.toml` says which choose.

Each task has a search space, defaults, a metric and a small training, so that hundreds of configurations can be
recorded in full by `record_curves.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
from task_data import flat_digits, images, table, text, unequal_images
from task_training import (
    ClassifiesImages,
    FitsTensors,
    NextCharacterLoss,
    RecurrentNetwork,
    RootMeanSquare,
    TaskTraining,
    perceptron,
    standardized,
)
from torch import nn

from search.space.search_space import Point, SearchSpace, random_value, starting_points
from search.space.toml_file import read_tables

CONFIGURATIONS = 300
"""Random configurations of each task, beside its starting points."""

LEARNING_RATE = {"low": 1e-4, "high": 1e-1, "log": True}
BATCH_SIZE = {"ordered": [32, 64, 128, 256, 512]}
OPTIMIZER = {"choices": ["sgd", "rmsprop", "adam"]}
MOMENTUM = {"low": 0.0, "high": 0.99, "when": {"optimizer": "sgd"}}
WEIGHT_DECAY = {"low": 1e-6, "high": 1e-2, "log": True}
DROPOUT = {"low": 0.0, "high": 0.6}
WIDTHS = {"ordered": [64, 128, 256, 512]}
SCHEDULE = {"choices": ["none", "cosine", "onecycle"]}
ACTIVATION = {"choices": ["relu", "gelu", "tanh"]}
BASIC: dict[str, Any] = {"learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "optimizer": OPTIMIZER}
DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 64,
    "optimizer": "sgd",
    "momentum": 0.0,
    "weight_decay": 1e-6,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "lr_schedule": "none",
    "activation": "relu",
}
"""What a user would begin with; a task adds those of its network."""


@dataclass(frozen=True)
class CurveTask:
    """A training with hyperparameters, of which learning curves are recorded."""

    name: str
    space: SearchSpace
    defaults: dict[str, Any]
    """Values of all hyperparameters with which a user would begin."""
    epochs: int
    """Epochs of a training in full."""
    mode: Literal["max", "min"]
    """Whether the highest or the lowest value of the metric is the best: an accuracy or a loss."""
    load: Callable[[], Any]
    """Loads the data; this takes its time once."""
    train: Callable[[Point, int, int], TaskTraining]
    """Prepares the training of a point, from a seed, with a schedule that is made for a number of epochs."""

    def starting_points(self) -> list[Point]:
        """The points that a study tries first."""
        return starting_points(self.space, self.defaults)

    def configurations(self) -> list[Point]:
        """The starting points of a study, and the random configurations."""
        return [*self.starting_points(), *(self._draw(number) for number in range(CONFIGURATIONS))]

    def _draw(self, number: int) -> Point:
        return self.space.build_point(
            lambda name, distribution: random_value(distribution, number, f"{self.name} {name}")
        )


def _tasks() -> list[CurveTask]:
    return [
        _image_task("fashion-mlp", BASIC, partial(images, "fashion-mnist", (8000, 6000, 6000)), epochs=10),
        _image_task(
            "fashion-regularised",
            BASIC
            | {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "dropout": DROPOUT, "lr_schedule": SCHEDULE}
            | {"label_smoothing": {"low": 0.0, "high": 0.2}, "depth": {"low": 1, "high": 4}}
            | {"width": WIDTHS},
            partial(images, "fashion-mnist", (8000, 6000, 6000)),
            epochs=10,
        ),
        _image_task(
            "fashion-cnn",
            BASIC
            | {"weight_decay": WEIGHT_DECAY, "dropout": DROPOUT, "lr_schedule": SCHEDULE}
            | {"channels": {"ordered": [8, 12, 16, 24]}, "width": {"ordered": [32, 64, 128, 256]}},
            partial(images, "fashion-mnist", (3000, 3000, 3000)),
            epochs=8,
            network="cnn",
        ),
        _image_task(
            "fashion-few",
            BASIC
            | {"weight_decay": WEIGHT_DECAY, "dropout": DROPOUT, "lr_schedule": SCHEDULE}
            | {"depth": {"low": 1, "high": 3}, "width": WIDTHS},
            partial(images, "fashion-mnist", (2000, 6000, 6000)),
            epochs=12,
        ),
        _image_task(
            "fashion-unequal",
            BASIC
            | {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "dropout": DROPOUT}
            | {"label_smoothing": {"low": 0.0, "high": 0.2}, "width": WIDTHS},
            partial(unequal_images, 2000, 50.0, (5000, 5000)),
            epochs=10,
        ),
        _image_task(
            "digits",
            BASIC | {"dropout": DROPOUT, "depth": {"low": 1, "high": 4}, "width": {"ordered": [32, 64, 128, 256]}},
            partial(images, "digits", (863, 575, 359)),
            epochs=15,
        ),
        _image_task(
            "cost",
            BASIC
            | {"depth": {"low": 1, "high": 5}, "width": {"low": 32, "high": 1024, "log": True}}
            | {"dropout": DROPOUT, "batch_size": {"ordered": [16, 32, 64, 128, 256, 512]}},
            partial(images, "fashion-mnist", (3000, 4000, 4000)),
            epochs=8,
        ),
        _regression(),
        _grammar(),
        _autoencoder(),
    ]


def _image_task(
    name: str, tables: dict[str, Any], data: Callable[[], Any], *, epochs: int, network: str = "mlp"
) -> CurveTask:
    load = cache(data)
    defaults = DEFAULTS | {"depth": 2, "width": 512, "channels": 16}
    if network == "cnn":
        defaults |= {"width": 128, "dropout": 0.3}

    def train(point: Point, seed: int, made_for: int) -> TaskTraining:
        return ClassifiesImages(load(), network, point, seed, made_for)

    return CurveTask(name, read_tables(tables, None), defaults, epochs, "max", load, train)


def _regression() -> CurveTask:
    tables = BASIC | {"weight_decay": WEIGHT_DECAY, "dropout": DROPOUT, "activation": ACTIVATION}
    tables |= {"depth": {"low": 1, "high": 4}, "width": {"low": 16, "high": 256, "log": True}}
    tables |= {"loss": {"choices": ["mse", "huber"]}}
    data = cache(lambda: standardized(table((3000, 2000, 2000))))

    def train(point: Point, seed: int, made_for: int) -> TaskTraining:
        torch.manual_seed(seed)
        loss = nn.MSELoss() if point["loss"] == "mse" else nn.HuberLoss()
        return FitsTensors(
            data(), perceptron(12, 1, point), (loss, RootMeanSquare()), point=point, seed=seed, epochs=made_for
        )

    defaults = DEFAULTS | {"depth": 2, "width": 64, "loss": "mse"}
    return CurveTask("regression", read_tables(tables, None), defaults, 12, "min", data, train)


def _grammar() -> CurveTask:
    tables = BASIC | {"batch_size": {"ordered": [16, 32, 64, 128]}, "dropout": {"low": 0.0, "high": 0.5}}
    tables |= {"cell": {"choices": ["rnn", "gru", "lstm"]}, "hidden": {"low": 16, "high": 128, "log": True}}
    tables |= {"layers": {"low": 1, "high": 2}, "clip": {"low": 0.1, "high": 10.0, "log": True}}
    data = cache(lambda: text((1200, 600, 600)))

    def train(point: Point, seed: int, made_for: int) -> TaskTraining:
        torch.manual_seed(seed)
        network = RecurrentNetwork(
            str(point["cell"]), int(point["hidden"]), int(point["layers"]), float(point["dropout"])
        )
        loss = NextCharacterLoss()
        return FitsTensors(data(), network, (loss, loss), point=point, seed=seed, epochs=made_for)

    defaults = DEFAULTS | {"cell": "gru", "hidden": 64, "layers": 1, "clip": 1.0}
    return CurveTask("grammar", read_tables(tables, None), defaults, 9, "min", data, train)


def _autoencoder() -> CurveTask:
    tables = BASIC | {"weight_decay": WEIGHT_DECAY, "activation": ACTIVATION, "lr_schedule": SCHEDULE}
    tables |= {"depth": {"low": 1, "high": 3}, "width": {"low": 16, "high": 256, "log": True}}
    tables |= {"noise": {"low": 0.0, "high": 0.5}}
    data = cache(lambda: flat_digits((863, 575, 359)))

    def train(point: Point, seed: int, made_for: int) -> TaskTraining:
        torch.manual_seed(seed)
        network = perceptron(64, 64, point, bottleneck=8)
        return FitsTensors(data(), network, (nn.MSELoss(), RootMeanSquare()), point=point, seed=seed, epochs=made_for)

    defaults = DEFAULTS | {"depth": 1, "width": 64, "noise": 0.0}
    return CurveTask("autoencoder", read_tables(tables, None), defaults, 15, "min", data, train)


TASKS = {task.name: task for task in _tasks()}
