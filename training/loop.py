"""Training and evaluation: the tutorial's loops, and a generator that yields the metrics of each epoch."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoint
from training.config import MAX_SEED, NETWORKS, TrialConfig
from training.images.augmentation import sample_augmentation
from training.images.image_data import Batch, ImageData, ImageSplit, batch_starts, batches
from training.metrics import EpochMetrics
from training.micro_batch import MicroBatch, in_fitting_batches, spare_single_values
from training.networks.networks import Shape, build_network
from training.optimization.lr_schedule import learning_rate_at
from training.optimization.optimizers import FusedOptimizer, Optimizer, build_optimizer, set_learning_rate
from training.optimization.precision import autocast
from training.optimization.step_graph import StepGraph
from training.random_state import seed_generators
from training.user_code import errors_as_sentences

LossFunction = Callable[[Tensor, Tensor], Tensor]

STEPS_BETWEEN_CHECKS = 100
"""Optimizer steps between two checks of the loss: to read it, the processor has to wait for a GPU."""
AUXILIARY_WEIGHT = 0.3
"""Weight of the loss of auxiliary logits while training; that of the logits is 1."""
EVALUATION_BATCH_SIZE = 1000
"""Images per forward pass in the evaluation: large for speed; the metrics do not depend on it."""
CONVOLUTION_EVALUATION_BATCH_SIZE = 200
"""Images per forward pass in the evaluation of convolutions on a CPU, whose cache then holds all activations."""


class TrainingDivergedError(ArithmeticError):
    """A loss is infinite or not a number, so further training is pointless."""


class TrainingLeftError(Exception):
    """The process must end soon, so the training has saved where it is, to go on in another one."""


def train_loop(
    batches: Iterable[Batch],
    model: nn.Module,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    autocast: AbstractContextManager[object],
    *,
    micro_batch: MicroBatch | None = None,
    graph: StepGraph | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """Take one optimizer step for each batch, from its gradients or from the sum of those of its parts.

    Args:
        batches: Pairs of images (B, C, H, W), float32 in [0, 1], and labels (B,), int64.
        model: Turns images into logits (B, classes), or into a sequence that begins with them.
        loss_fn: Mean loss of (logits, labels).
        optimizer: Holds the parameters of `model`.
        autocast: Context in which the logits are computed; `training.optimization.precision` builds it.
        micro_batch: Says how many images go through the network at a time, and learns when the memory does not suffice;
            by default whole batches.
        graph: Replays the steps of whole batches, if there is one.

    Yields:
        The loss of each batch before its step, a tensor on the device of the batch, and its number of images.
    """
    micro_batch = micro_batch or MicroBatch(model)

    def backward(images: Tensor, labels: Tensor, share: float = 1.0) -> Tensor:
        with autocast:
            outputs = model(images)
        loss = training_loss(outputs, labels, loss_fn)
        if share != 1:
            loss = share * loss
        loss.backward()
        return loss.detach()

    def step(compute_gradients: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        try:
            loss = compute_gradients(images, labels)
            optimizer.step()
        finally:
            optimizer.zero_grad()
        return loss

    in_fitting_parts = partial(
        micro_batch.backward, backward, zero_grad=optimizer.zero_grad, give_back=graph.give_up if graph else bool
    )
    model.train()
    for images, labels in batches:
        loss = None
        if graph is not None and micro_batch.size is None:
            loss = graph.replay(images, labels, partial(step, backward))
        if loss is None:
            loss = step(in_fitting_parts, images, labels)
        yield loss, len(labels)


def training_loss(outputs: Tensor | Sequence[Tensor | None], labels: Tensor, loss_fn: LossFunction) -> Tensor:
    """The loss of a batch, of which auxiliary logits are a part (Szegedy et al. 2015, section 5).

    Args:
        outputs: Logits (B, classes); or a sequence of them and others, of which those of the same shape are auxiliary
            logits, as GoogLeNet and Inception of torchvision return them while training.
        labels: (B,), int64.
        loss_fn: Mean loss of (logits, labels).

    Raises:
        ValueError: The network returned something else.
    """
    logits, *others = [outputs] if isinstance(outputs, Tensor) or not isinstance(outputs, Sequence) else outputs
    if not isinstance(logits, Tensor):
        raise ValueError(f"the network must return logits while training, got {type(outputs).__name__}")
    loss = loss_fn(logits.float(), labels)
    for other in others:
        if isinstance(other, Tensor) and other.shape == logits.shape:
            loss = loss + AUXILIARY_WEIGHT * loss_fn(other.float(), labels)
    return loss


def check_step(network: str, model: nn.Module, input_shape: Shape, classes: int) -> None:
    """Refuse a network with which no optimizer step can be taken, by a loss of two empty images and its gradients.

    Args:
        network: The name or import path of the network, for the ValueError.
        model: On a CPU; its statistics, gradients and mode change.
        input_shape: Channels, height and width of an image.
        classes: Number of logits for each image.
    """
    size = " x ".join(map(str, input_shape))
    with errors_as_sentences(f"network {Path(network).name} cannot be trained on images of {size}"):
        model.train()
        outputs = model(torch.zeros(2, *input_shape))
        training_loss(outputs, torch.arange(2) % classes, nn.CrossEntropyLoss()).backward()


@torch.no_grad()
def test_loop(batches: Iterable[Batch], model: nn.Module, loss_fn: LossFunction) -> tuple[float, float]:
    """Measure a model without changing it.

    Returns:
        (accuracy in [0, 1], mean loss per image), both over all images of `batches`.
    """
    model.eval()
    images_seen = 0
    correct: Tensor | int = 0  # tensors stay on the device of the batches until the end
    loss_sum: Tensor | float = 0.0
    for images, labels in batches:
        logits = model(images)
        images_seen += len(labels)
        correct += (logits.argmax(1) == labels).sum()
        loss_sum += loss_fn(logits, labels).double() * len(labels)
    return float(correct) / images_seen, float(loss_sum) / images_seen


def evaluation_batch_size(model: nn.Module, data: ImageData) -> int:
    """The fastest number of images per forward pass on the device of the data."""
    on_processor = data.test.images.device.type == "cpu"
    has_convolutions = any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in model.modules())
    return CONVOLUTION_EVALUATION_BATCH_SIZE if on_processor and has_convolutions else EVALUATION_BATCH_SIZE


class Training:
    """The training of a network: weights, optimizer, order of the images and metrics of the finished epochs."""

    def __init__(self, config: TrialConfig, data: ImageData) -> None:
        """Build the network with random weights by `config.seed`, on the device of the data."""
        seed_generators(config.seed)
        torch.set_flush_denormal(True)  # denormal numbers, to which moments of constant weights decay, are slow
        self.config = config
        self.data = data
        device = data.train.images.device
        self.model = build_network(config, data.image_shape, len(data.classes)).to(device)
        can_be_replayed = device.type == "cuda" and config.network in NETWORKS  # of others, Python may be a part
        if can_be_replayed:
            self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(config, self.model.parameters())
        can_be_replayed = can_be_replayed and isinstance(self.optimizer, FusedOptimizer)
        self.graph = StepGraph(min(config.batch_size, len(data.train))) if can_be_replayed else None
        if min(config.batch_size, len(data.train)) == 1:
            spare_single_values(self.model)
        self.micro_batch = MicroBatch(self.model)
        self.evaluation_batch_size = evaluation_batch_size(self.model, data)
        self.loss_fn = nn.CrossEntropyLoss()
        self.training_loss_fn = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.autocast = autocast(config, device)
        self.shuffler = torch.Generator().manual_seed(config.seed) if config.shuffle else None
        self.augmenter = _augmenter(config)
        self.epoch = 0
        self.metrics: list[EpochMetrics] = []
        self._begun: dict[str, Any] | None = None
        """What an epoch that has begun and has not ended needs to go on: see `state_dict`."""

    def train_epoch(self) -> Iterator[tuple[Tensor, int]]:
        """Train for one epoch, or to its end; yield the loss of each batch and the images seen so far in the epoch.

        Raises:
            TrainingDivergedError: A loss is not finite; it is checked every `STEPS_BETWEEN_CHECKS` steps.
        """
        begun = self._begun or {"steps": 0, "images_seen": 0, "loss_sum": torch.zeros((), dtype=torch.float64)}
        self._epoch_start = time.perf_counter() - begun.get("seconds", 0.0)
        self.epoch += 1
        self._images_seen = begun["images_seen"]
        self._loss_sum = begun["loss_sum"].to(self.data.train.images.device)
        self._begun = begun | self._orders()
        steps = train_loop(
            itertools.islice(self._batches(), begun["steps"], None),
            self.model,
            self.training_loss_fn,
            self.optimizer,
            self.autocast,
            micro_batch=self.micro_batch,
            graph=self.graph,
        )
        for step, (loss, images) in enumerate(steps, start=begun["steps"] + 1):
            self._images_seen += images
            self._loss_sum += loss.double() * images
            self._begun["steps"] = step
            if step % STEPS_BETWEEN_CHECKS == 0:
                self._check_train_loss()
            yield loss, self._images_seen
        self._begun = None
        self._check_train_loss()

    def measure_epoch(self) -> EpochMetrics:
        """Measure the network after `train_epoch`; a loss that is not finite raises a TrainingDivergedError."""
        training_end = time.perf_counter()
        val_accuracy, val_loss = self._evaluate("val_loss", self.data.val) if len(self.data.val) else (None, None)
        test_accuracy, test_loss = self._evaluate("test_loss", self.data.test)
        end = time.perf_counter()
        metrics = EpochMetrics(
            epoch=self.epoch,
            train_loss=float(self._loss_sum) / self._images_seen,
            val_accuracy=val_accuracy,
            val_loss=val_loss,
            test_accuracy=test_accuracy,
            test_loss=test_loss,
            seconds=round(end - self._epoch_start, 3),
            evaluation_seconds=round(end - training_end, 3),
        )
        self.metrics.append(metrics)
        return metrics

    @property
    def objects(self) -> dict[str, Any]:
        """What a checkpoint saves, by name; the random generators besides go along."""
        return {"model": self.model, "optimizer": self.optimizer, "progress": self}

    def state_dict(self) -> dict[str, Any]:
        """The state without model and optimizer: the metrics so far, and what draws the order of the images.

        In the middle of an epoch, the order is that of the epoch, and `begun` says how far it has come.
        """
        kept = {"metrics": [asdict(metrics) for metrics in self.metrics], "micro_batch_size": self.micro_batch.size}
        if self._begun is None:
            return {"epoch": self.epoch, **kept, **self._orders(), "begun": None}
        orders = {name: self._begun[name] for name in self._orders()}
        begun = {
            "steps": self._begun["steps"],
            "images_seen": self._images_seen,
            "loss_sum": self._loss_sum.cpu(),
            "seconds": time.perf_counter() - self._epoch_start,
        }
        return {"epoch": self.epoch - 1, **kept, **orders, "begun": begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state that `state_dict` of another training returned, to go on from there."""
        self.epoch = state["epoch"]
        self.metrics = [EpochMetrics(**metrics) for metrics in state["metrics"]]
        if self.shuffler is not None:
            self.shuffler.set_state(state["shuffler"])
        if self.augmenter is not None:
            self.augmenter.set_state(state["augmenter"])
        self.micro_batch.limit(state.get("micro_batch_size"))  # earlier versions saved none
        self._begun = state.get("begun")  # earlier versions saved only whole epochs

    def _orders(self) -> dict[str, Tensor | None]:
        """The states of what draws the order and the augmentation of the images of an epoch when it begins."""
        generators = {"shuffler": self.shuffler, "augmenter": self.augmenter}
        return {name: None if one is None else one.get_state() for name, one in generators.items()}

    def _batches(self) -> Iterator[Batch]:
        """The batches of this epoch; each sets the learning rate of its optimizer step."""
        config, split, augmentation = self.config, self.data.train, None
        if self.augmenter is not None:
            device = split.images.device
            augmentation = sample_augmentation(
                len(split), config.shift, flip=config.flip, generator=self.augmenter, device=device
            )
        epoch_batches = batches(split, config.batch_size, self.shuffler, augmentation, merge_single=True)
        return epoch_batches if config.lr_schedule == "none" else self._scheduled(epoch_batches)

    def _scheduled(self, epoch_batches: Iterator[Batch]) -> Iterator[Batch]:
        config = self.config
        steps_per_epoch = len(batch_starts(len(self.data.train), config.batch_size, merge_single=True))
        first, steps = (self.epoch - 1) * steps_per_epoch, config.epochs * steps_per_epoch
        for step, batch in enumerate(epoch_batches, start=first):
            set_learning_rate(self.optimizer, learning_rate_at(config.lr_schedule, config.learning_rate, step, steps))
            yield batch

    def _evaluate(self, loss_name: str, split: ImageSplit) -> tuple[float, float]:
        def measure(size: int) -> tuple[float, float]:
            self.evaluation_batch_size = size
            return test_loop(batches(split, size), self.model, self.loss_fn)

        accuracy, loss = in_fitting_batches(measure, self.evaluation_batch_size)
        self._check_finite(loss_name, loss)
        return accuracy, loss

    def _check_train_loss(self) -> None:
        self._check_finite("train_loss", float(self._loss_sum), f" after {self._images_seen} images")

    def _check_finite(self, name: str, loss: float, where: str = "") -> None:
        if not math.isfinite(loss):
            raise TrainingDivergedError(f"{name} is {loss} in epoch {self.epoch}{where}")


def _augmenter(config: TrialConfig) -> torch.Generator | None:
    """The generator of shifts and flips, with another seed than the shuffler; None without shifts and flips."""
    return torch.Generator().manual_seed(config.seed + MAX_SEED + 1) if config.shift or config.flip else None


def train(config: TrialConfig, data: ImageData, checkpoint: Checkpoint | None = None) -> Iterator[EpochMetrics]:
    """Train one network; yield the metrics of each epoch when it ends.

    The same config and data give the same metrics (apart from the seconds) on the same machine with the same number
    of threads, whether or not the training was interrupted and went on from its checkpoint.

    Args:
        config: Hyperparameters.
        data: Images and labels.
        checkpoint: Stores the training after each epoch. If it holds epochs, training goes on from there; if these
            cannot be read, it starts again.

    Raises:
        TrainingDivergedError: A loss is not finite.
        TrainingLeftError: The process must end soon; the checkpoint has the training as it is after the last step.
    """
    training = Training(config, data)
    if checkpoint is not None:
        try:
            checkpoint.load(**training.objects)
        except ValueError as error:
            file, cause = str(error).partition(" ")[0], type(error.__cause__).__name__
            checkpoint.warn(f"checkpoint {file} is damaged ({cause}); the trial starts again")
            training = Training(config, data)
    while training.epoch < config.epochs:
        for _ in training.train_epoch():
            if checkpoint is not None and checkpoint.must_leave():
                if _saves(checkpoint, checkpoint.save_within, training, training.epoch - 1):
                    raise TrainingLeftError
                checkpoint = None
        metrics = training.measure_epoch()
        if checkpoint is not None and not _saves(checkpoint, checkpoint.save, training, training.epoch):
            checkpoint = None
        yield metrics


def _saves(checkpoint: Checkpoint, save: Callable[..., None], training: Training, epoch: int) -> bool:
    """Save the training, unless its network has objects beside its weights that cannot be saved.

    Also note how many images went through the network at a time.
    """
    checkpoint.micro_batch_size = training.micro_batch.size
    try:
        save(epoch, **training.objects)
    except TypeError:
        checkpoint.warn("the state of the network cannot be saved; a trial that is interrupted starts again")
        return False
    return True
