"""Trainings that can be measured inside an epoch: of images by this project's loop, and of other tensors."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Protocol

import torch
from task_data import SYMBOLS, Pair, Splits
from torch import Tensor, nn

from search.space.search_space import Point
from training.config import TrialConfig
from training.config_fields import make_config
from training.images.image_data import ImageData, batches
from training.loop import Training as ImageTraining
from training.loop import test_loop
from training.networks.network_config import config_type
from training.optimization.lr_schedule import learning_rate_at
from training.optimization.optimizers import build_optimizer

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class TaskTraining(Protocol):
    """A training that goes on epoch by epoch and can be measured after any optimizer step."""

    def train_epoch(self) -> Iterator[float]:
        """Train for one epoch; after each optimizer step, yield the part of the epoch that is done, in (0, 1]."""

    def measure(self, part: str) -> float:
        """The task's metric on the examples for `val` or `test`; the training goes on as if it had not been asked."""


class ClassifiesImages:
    """The training of this project's network on images; its metric is the accuracy."""

    def __init__(self, data: ImageData, network: str, point: Point, seed: int, epochs: int) -> None:
        values = {**point, "network": network, "seed": seed, "epochs": epochs}
        self._training = ImageTraining(make_config(config_type(network), values), data)

    def train_epoch(self) -> Iterator[float]:
        """Train for one epoch; a TrainingDivergedError says that a loss is not finite."""
        for _, images_seen in self._training.train_epoch():
            yield images_seen / len(self._training.data.train)

    def measure(self, part: str) -> float:
        """The accuracy on the validation or test images."""
        training = self._training
        split = training.data.val if part == "val" else training.data.test
        accuracy, loss = test_loop(batches(split, training.evaluation_batch_size), training.model, training.loss_fn)
        training.model.train()
        return accuracy if math.isfinite(loss) else math.nan


class FitsTensors:
    """The training of a network on inputs and targets in memory; its metric is a loss."""

    def __init__(
        self,
        splits: Splits,
        model: nn.Module,
        losses: tuple[nn.Module, nn.Module],
        *,
        point: Point,
        seed: int,
        epochs: int,
    ) -> None:
        """Prepare it.

        Args:
            splits: Examples for training, validation and test.
            model: Turns inputs (N, ...) into outputs for the losses.
            losses: The mean loss that is minimised, and the one that is the metric.
            point: Hyperparameters, among them those of `TrialConfig` that choose the optimizer; and `clip`, the
                largest norm of the gradients.
            seed: Seed of the order of the examples.
            epochs: Number of epochs for which a schedule of the learning rate is made.
        """
        known = {field.name for field in fields(TrialConfig)}
        options: dict[str, Any] = {name: value for name, value in point.items() if name in known}
        self._config = TrialConfig(**options, seed=seed, epochs=epochs)
        self._train, self._val, self._test = splits
        self._model, (self._loss, self._metric) = model, losses
        self._optimizer = build_optimizer(self._config, model.parameters())
        self._clip = float(point.get("clip", math.inf))
        self._noise = float(point.get("noise", 0.0))
        self._shuffler = torch.Generator().manual_seed(seed)
        self._step = 0

    def train_epoch(self) -> Iterator[float]:
        """Train for one epoch."""
        inputs, targets = self._train
        size, config = self._config.batch_size, self._config
        steps = config.epochs * math.ceil(len(inputs) / size)
        order = torch.randperm(len(inputs), generator=self._shuffler)
        self._model.train()
        for start in range(0, len(inputs), size):
            rate = learning_rate_at(config.lr_schedule, config.learning_rate, self._step, steps)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            chosen = order[start : start + size]
            batch = inputs[chosen]
            if self._noise:
                batch = batch + self._noise * torch.randn(batch.shape, generator=self._shuffler)
            self._loss(self._model(batch), targets[chosen]).backward()
            if math.isfinite(self._clip):
                nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._step += 1
            yield min(1.0, (start + size) / len(inputs))

    @torch.no_grad()
    def measure(self, part: str) -> float:
        """The metric on the examples for validation or test."""
        self._model.eval()
        inputs, targets = self._val if part == "val" else self._test
        value = float(self._metric(self._model(inputs), targets))
        self._model.train()
        return value


class RootMeanSquare(nn.Module):
    """The root of the mean squared error."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compare outputs and targets of the same shape."""
        return nn.functional.mse_loss(outputs, targets).sqrt()


class NextCharacterLoss(nn.Module):
    """The mean cross entropy of the next characters, in nats."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare logits (N, length, symbols) and targets (N, length)."""
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class RecurrentNetwork(nn.Module):
    """Predicts the next character of a text at each place."""

    def __init__(self, cell: str, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.embedding = nn.Embedding(len(SYMBOLS), 16)
        self.recurrent = kind(16, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, len(SYMBOLS))

    def forward(self, symbols: Tensor) -> Tensor:
        """Turn symbols (N, length), int64, into logits (N, length, symbols)."""
        states, _ = self.recurrent(self.embedding(symbols))
        logits: Tensor = self.head(self.dropout(states))
        return logits


def perceptron(inputs: int, outputs: int, point: Point, bottleneck: int | None = None) -> nn.Module:
    """A network of `depth` hidden layers of `width` units; with a bottleneck, an autoencoder of that on both sides."""
    width, depth = int(point["width"]), int(point["depth"])
    activation, dropout = ACTIVATIONS[str(point["activation"])], float(point.get("dropout", 0.0))

    def stack(first: int, last: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for layer in range(depth):
            layers += [nn.Linear(width if layer else first, width), activation()]
            layers += [nn.Dropout(dropout)] if dropout else []
        return [*layers, nn.Linear(width, last)]

    if bottleneck is None:
        return nn.Sequential(*stack(inputs, outputs))
    return nn.Sequential(*stack(inputs, bottleneck), *stack(bottleneck, outputs))


def standardized(splits: Splits) -> Splits:
    """Inputs with mean 0 and standard deviation 1 over the training examples."""
    mean, deviation = splits[0][0].mean(0), splits[0][0].std(0)

    def scale(pair: Pair) -> Pair:
        return (pair[0] - mean) / deviation, pair[1]

    return scale(splits[0]), scale(splits[1]), scale(splits[2])
