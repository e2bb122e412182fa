"""A batch that does not fit into the memory is divided, and its gradients are added up."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from serial_ray import run_command
from studies import reported
from torch import Tensor, nn

from training import loop
from training.checkpoint import Checkpoint
from training.config import TrialConfig
from training.images.image_data import ImageData, ImageSplit, batches
from training.metrics import EpochMetrics
from training.micro_batch import MicroBatch, is_of_gpu, is_out_of_memory
from training.networks.networks import NeuralNetwork
from training.optimization.optimizers import build_optimizer
from training.optimization.precision import autocast


class Limited(nn.Module):
    """A network with a memory of its own, which holds so many images at a time."""

    def __init__(self, images: int, *, in_backward: bool = False) -> None:
        super().__init__()
        self.network = NeuralNetwork(64, 10)
        self.images = images
        self.in_backward = in_backward
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        logits: Tensor = self.network(images)
        if len(images) > self.images and self.in_backward and self.training:
            logits.register_hook(self._refuse)
        elif len(images) > self.images:
            self._refuse()
        return logits

    def _refuse(self, *_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def gradients(images: int, batch: int, digits: ImageData, *, in_backward: bool = False) -> tuple[Any, Limited, float]:
    """The weights after one step with a network that holds so many images, and the loss of the batch."""
    torch.manual_seed(0)
    model = Limited(images, in_backward=in_backward)
    config = TrialConfig(learning_rate=1.0)
    optimizer = build_optimizer(config, model.parameters())
    few = ImageSplit(digits.train.images[:batch], digits.train.labels[:batch])
    context = autocast(config, torch.device("cpu"))
    ((loss, seen),) = loop.train_loop(batches(few, batch), model, nn.CrossEntropyLoss(), optimizer, context)
    assert seen == batch
    return [parameter.detach().clone() for parameter in model.parameters()], model, loss.item()


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize(("images", "batch", "parts"), [(50, 100, 2), (13, 97, 8), (1, 5, 5)])
def test_step_in_parts_is_the_step_of_the_whole_batch(
    digits: ImageData, images: int, batch: int, parts: int, *, in_backward: bool
) -> None:
    whole, _, loss = gradients(batch, batch, digits)
    divided, model, sum_of_parts = gradients(images, batch, digits, in_backward=in_backward)
    for one, other in zip(whole, divided, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert sum_of_parts == pytest.approx(loss, rel=1e-6)
    assert sum(model.seen[-parts:]) == batch
    assert max(model.seen[-parts:]) <= images
    assert model.seen[0] == batch


def test_parts_are_of_nearly_equal_size_and_their_shares_sum_up_to_one() -> None:
    micro_batch = MicroBatch(nn.Linear(1, 1))
    micro_batch.limit(40)
    parts = [(len(labels), share) for _, labels, share in micro_batch.parts(torch.zeros(97, 1), torch.zeros(97))]
    assert parts == [(33, 33 / 97), (32, 32 / 97), (32, 32 / 97)]
    micro_batch.limit(None)
    assert [len(labels) for _, labels, _ in micro_batch.parts(torch.zeros(97, 1), torch.zeros(97))] == [97]


def test_it_is_halved_until_one_image_is_left() -> None:
    micro_batch = MicroBatch(nn.Linear(1, 1))
    sizes = [micro_batch.size for _ in itertools.takewhile(lambda _: micro_batch.halve(13), range(99))]
    assert sizes == [7, 4, 2, 1]
    assert micro_batch.size == 1


def test_other_errors_are_raised_and_an_image_that_does_not_fit_too(digits: ImageData) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        gradients(0, 8, digits)
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 10))
    optimizer = build_optimizer(TrialConfig(), model.parameters())
    steps = loop.train_loop(
        batches(digits.train, 8), model, nn.CrossEntropyLoss(), optimizer, autocast(TrialConfig(), torch.device("cpu"))
    )
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        next(steps)


def test_step_itself_is_not_repeated(digits: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer that runs out of memory may have changed some weights."""
    training = loop.Training(TrialConfig(), digits)

    def fail() -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(training.optimizer, "step", fail)
    with pytest.raises(torch.OutOfMemoryError):
        next(training.train_epoch())
    assert training.micro_batch.size is None


NETWORK = """
import torch
from torch import nn

class Limited(nn.Module):
    def __init__(self, images, normalises):
        super().__init__()
        layers = [nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20) if normalises else nn.Dropout(0.5)]
        self.layers, self.images = nn.Sequential(*layers, nn.ReLU(), nn.Linear(20, 10)), images

    def forward(self, x):
        if len(x) > self.images:
            raise RuntimeError(f"[enforce fail] DefaultCPUAllocator: can't allocate memory for {len(x)} images")
        return self.layers(x)

def of_20(config, shape, classes): return Limited(20, False)
def normalised(config, shape, classes): return Limited(2, True)
"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    file = tmp_path / "limited.py"
    file.write_text(NETWORK)
    return file


def numbers(epochs: list[EpochMetrics]) -> list[EpochMetrics]:
    return [dataclasses.replace(metrics, seconds=0, evaluation_seconds=0) for metrics in epochs]


def test_training_and_evaluation_divide_batches_and_go_on_after_an_interruption(
    few_images: ImageData, networks: Path, tmp_path: Path
) -> None:
    config = TrialConfig(network=f"{networks}:of_20", batch_size=32, optimizer="adam", epochs=4)
    whole = numbers(list(loop.train(config, few_images)))
    checkpoint = Checkpoint(tmp_path / "trial.pt")
    before = list(itertools.islice(reported(loop.train(config, few_images, checkpoint), checkpoint), 2))
    assert checkpoint.micro_batch_size == 16
    later = Checkpoint(tmp_path / "trial.pt", None, 2)
    assert numbers([*before, *loop.train(config, few_images, later)]) == whole
    assert later.micro_batch_size == 16


def test_batch_normalisation_learns_from_single_images(few_images: ImageData, networks: Path) -> None:
    training = loop.Training(TrialConfig(network=f"{networks}:normalised", batch_size=8), few_images)
    training.model.images = 1  # type: ignore[assignment]
    list(training.train_epoch())
    assert training.micro_batch.size == 1
    assert training.measure_epoch().test_accuracy >= 0
    assert training.evaluation_batch_size == 1


def test_errors_that_say_it() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    wrapped = RuntimeError("the network failed")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(wrapped)
    assert is_of_gpu("CUDA out of memory")
    assert not is_of_gpu("DefaultCPUAllocator: can't allocate memory")


def test_study_and_training_say_that_batches_are_divided(networks: Path, tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--network", f"{networks}:of_20", "--epochs", "1"]
    where = ["--results-dir", str(tmp_path / "out"), "--name", "study", "--no-dashboard"]
    run = run_command("search/run.py", *options, "--num-samples", "3", *where)
    assert run.status == 0, run.stderr
    assert run.stdout.count("the memory does not suffice for whole batches") == 1
    header, *rows = (tmp_path / "out/study/trials.csv").read_text().splitlines()
    column = header.split(",").index("micro_batch_size")
    assert [row.split(",")[column] for row in rows] == ["16"] * 3
    run = run_command("training/run.py", *options)
    assert "at most 16 images go through the network at a time, and gradients are added up" in run.stdout
