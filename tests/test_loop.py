import contextlib
import dataclasses
import itertools
import random
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from studies import reported, without_seconds
from torch import nn

from training import loop
from training.checkpoint import Checkpoint
from training.config import DataConfig, TrialConfig
from training.images.image_data import ImageData, ImageSplit, batches, load_data
from training.metrics import EpochMetrics
from training.networks.network_config import config_type
from training.networks.networks import NeuralNetwork, build_network
from training.optimization.lr_schedule import learning_rate_at
from training.random_state import get_random_state, set_random_state
from training.user_code import load_code


def test_network_learns_64_images_by_heart(few_images: ImageData) -> None:
    config = TrialConfig(learning_rate=1e-3, optimizer="adam", batch_size=16, epochs=40)
    *_, last = loop.train(config, few_images)
    assert last.val_accuracy == 1
    assert last.train_loss < 0.05


def test_network_has_the_tutorials_layers(digits: ImageData) -> None:
    network = NeuralNetwork(inputs=784, classes=10)
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    assert shapes == [(512, 784), (512,), (512, 512), (512,), (10, 512), (10,)]
    assert [type(layer) for layer in network.linear_relu_stack] == [nn.Linear, nn.ReLU] * 2 + [nn.Linear]
    assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    assert build_network(TrialConfig(), (1, 8, 8), 10)(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_same_config_and_seed_give_the_same_numbers(digits: ImageData) -> None:
    config = TrialConfig(optimizer="adam", epochs=2, seed=5)
    first = without_seconds(list(loop.train(config, digits)))
    torch.rand(7)  # whoever draws in between changes nothing
    assert without_seconds(list(loop.train(config, digits))) == first
    other = without_seconds(list(loop.train(dataclasses.replace(config, seed=6), digits)))
    assert other[0].train_loss != first[0].train_loss


@pytest.mark.parametrize(
    "config",
    [
        TrialConfig(optimizer="sgd", momentum=0.9, epochs=4, seed=3),
        TrialConfig(optimizer="sgd", shuffle=False, epochs=4),
        TrialConfig(optimizer="adam", epochs=4),
        TrialConfig(optimizer="rmsprop", epochs=4),
        TrialConfig(optimizer="rmsprop", momentum=0.5, epochs=4),
        TrialConfig(optimizer="adam", precision="bf16", epochs=4),
        TrialConfig(optimizer="adam", lr_schedule="onecycle", shift=1, flip=True, label_smoothing=0.1, epochs=4),
        TrialConfig(optimizer="rmsprop", momentum=0.5, lr_schedule="cosine", flip=True, shuffle=False, epochs=4),
    ],
    ids=lambda config: f"{config.optimizer}-{config.momentum}-{config.precision}-{config.lr_schedule}",
)
@pytest.mark.parametrize("finished", [1, 3])
def test_interrupted_training_goes_on_with_the_numbers_of_an_uninterrupted_one(
    few_images: ImageData, tmp_path: Path, config: TrialConfig, finished: int
) -> None:
    config = dataclasses.replace(config, batch_size=24)
    whole = without_seconds(list(loop.train(config, few_images)))
    checkpoint = Checkpoint(tmp_path / "trial.pt")
    interrupted = reported(loop.train(config, few_images, checkpoint), checkpoint)
    before = list(itertools.islice(interrupted, finished))
    torch.rand(7)  # whatever happens in between
    after = loop.train(config, few_images, Checkpoint(tmp_path / "trial.pt", None, finished))
    assert without_seconds([*before, *after]) == whole
    assert not list(tmp_path.glob(".*"))


def in_one_process_a_step(config: TrialConfig, data: ImageData, file: Path) -> Iterator[EpochMetrics]:
    """Train so that each process must leave after a step, and another one goes on from its checkpoint."""
    epochs = 0
    while epochs < config.epochs:
        checkpoint = Checkpoint(file, None, epochs)
        checkpoint.must_leave = lambda: True
        torch.rand(7)  # whatever happens in between
        with contextlib.suppress(loop.TrainingLeftError):
            for metrics in reported(loop.train(config, data, checkpoint), checkpoint):
                epochs += 1
                yield metrics
        assert checkpoint.take_warning() is None


@pytest.mark.parametrize(
    "config",
    [
        TrialConfig(optimizer="sgd", momentum=0.9, epochs=3, seed=3),
        TrialConfig(network="cnn", optimizer="adam", lr_schedule="onecycle", shift=1, flip=True, epochs=2),
        TrialConfig(optimizer="rmsprop", lr_schedule="cosine", flip=True, shuffle=False, precision="bf16", epochs=3),
    ],
    ids=lambda config: config.optimizer,
)
def test_training_that_leaves_within_epochs_has_the_numbers_of_an_uninterrupted_one(
    few_images: ImageData, tmp_path: Path, config: TrialConfig
) -> None:
    config = dataclasses.replace(config, batch_size=24)
    whole = without_seconds(list(loop.train(config, few_images)))
    assert without_seconds([*in_one_process_a_step(config, few_images, tmp_path / "trial.pt")]) == whole
    assert [file.name for file in tmp_path.glob("*-last-*")] == [f"trial-last-{config.epochs:04}.pt"]


def test_epochs_count_from_one_and_stop_at_the_configured_number(digits: ImageData) -> None:
    assert [metrics.epoch for metrics in loop.train(TrialConfig(epochs=3), digits)] == [1, 2, 3]


def test_training_is_the_textbook_loop(digits: ImageData) -> None:
    """One epoch equals the same steps written out with torch's own unfused optimizer and mean losses."""
    config = TrialConfig(learning_rate=0.05, batch_size=100, shuffle=False, epochs=1, seed=1)
    torch.manual_seed(1)
    network = NeuralNetwork(64, 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, fused=False)
    losses = []
    for start in range(0, len(digits.train), 100):
        images = digits.train.images[start : start + 100].float() / 255
        loss = nn.functional.cross_entropy(network(images), digits.train.labels[start : start + 100], reduction="none")
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.detach())
    scores = network(digits.test.images.float() / 255)
    (metrics,) = loop.train(config, digits)
    assert metrics.train_loss == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert metrics.test_loss == pytest.approx(nn.functional.cross_entropy(scores, digits.test.labels).item(), rel=1e-5)
    assert metrics.test_accuracy == pytest.approx((scores.argmax(1) == digits.test.labels).float().mean().item())


@pytest.mark.parametrize("batch_size", [64, 1000])
def test_metrics_are_means_over_images_whatever_the_batch_size(digits: ImageData, batch_size: int) -> None:
    torch.manual_seed(0)
    network = NeuralNetwork(64, 10)
    accuracy, loss = loop.test_loop(batches(digits.test, batch_size), network, nn.CrossEntropyLoss())
    scores = network(digits.test.images.float() / 255)
    assert loss == pytest.approx(nn.functional.cross_entropy(scores, digits.test.labels).item(), rel=1e-5)
    assert accuracy == (scores.argmax(1) == digits.test.labels).sum().item() / len(digits.test)


def test_evaluation_leaves_weights_and_gradients_alone(digits: ImageData) -> None:
    network = NeuralNetwork(64, 10)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    loop.test_loop(batches(digits.test, 100), network, nn.CrossEntropyLoss())
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(("batch_size", "images"), [(4, 4 * loop.STEPS_BETWEEN_CHECKS), (64, 1198)])
def test_infinite_training_loss_ends_the_training_within_the_epoch(
    digits: ImageData, batch_size: int, images: int
) -> None:
    training = loop.Training(TrialConfig(learning_rate=1e20, batch_size=batch_size), digits)
    with pytest.raises(loop.TrainingDivergedError, match=rf"train_loss is (nan|inf) in epoch 1 after {images} images"):
        list(training.train_epoch())


def test_numbers_too_small_for_full_speed_become_zero(digits: ImageData) -> None:
    loop.Training(TrialConfig(), digits)
    assert torch.tensor(1e-30) * torch.tensor(1e-10) == 0


def test_infinite_validation_loss_ends_the_training(digits: ImageData) -> None:
    training = loop.Training(TrialConfig(epochs=1), digits)
    list(training.train_epoch())
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    with pytest.raises(loop.TrainingDivergedError, match="val_loss is nan in epoch 1"):
        training.measure_epoch()


def test_without_validation_images_their_metrics_are_none() -> None:
    data, _ = load_data(DataConfig(dataset="digits", val_fraction=0), split_seed=0)
    (metrics,) = loop.train(TrialConfig(epochs=1), data)
    assert metrics.val_accuracy is None
    assert metrics.val_loss is None
    assert 0 < metrics.test_accuracy < 1


def test_validation_and_test_metrics_come_from_their_own_images(digits: ImageData) -> None:
    swapped = dataclasses.replace(digits, val=digits.test, test=digits.val)
    config = TrialConfig(optimizer="adam", epochs=1)
    (straight,), (crossed,) = loop.train(config, digits), loop.train(config, swapped)
    assert (straight.val_accuracy, straight.val_loss) == (crossed.test_accuracy, crossed.test_loss)
    assert straight.val_loss != straight.test_loss


def test_data_decides_the_device(digits: ImageData) -> None:
    split = ImageSplit(digits.train.images[:4], digits.train.labels[:4]).to("meta")
    training = loop.Training(TrialConfig(), dataclasses.replace(digits, train=split))
    assert {parameter.device.type for parameter in training.model.parameters()} == {"meta"}


def test_no_step_waits_for_what_the_device_computes(digits: ImageData) -> None:
    """Meta tensors have no values to read: steps are taken all the same, until the loss of the epoch is looked at."""
    training = loop.Training(TrialConfig(optimizer="adam", batch_size=16), digits.to("meta"))
    steps = training.train_epoch()
    assert [images_seen for _, images_seen in itertools.islice(steps, 74)][-1] == 74 * 16
    with pytest.raises(RuntimeError, match="meta"):
        list(steps)


def test_shifted_flipped_and_scheduled_steps_are_taken_where_the_data_lie(digits: ImageData) -> None:
    config = TrialConfig(optimizer="adam", batch_size=16, shift=2, flip=True, lr_schedule="cosine", label_smoothing=0.1)
    steps = loop.Training(config, digits.to("meta")).train_epoch()
    assert [images_seen for _, images_seen in itertools.islice(steps, 74)][-1] == 74 * 16


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_each_step_has_the_learning_rate_of_the_schedule(digits: ImageData, optimizer: Any) -> None:
    for schedule in ("none", "cosine", "onecycle"):
        config = TrialConfig(optimizer=optimizer, batch_size=300, epochs=3, lr_schedule=schedule)
        training = loop.Training(config, digits)
        rates = [training.optimizer.param_groups[0]["lr"] for _ in range(3) for _ in training.train_epoch()]
        assert rates == [learning_rate_at(config.lr_schedule, 1e-3, step, 12) for step in range(12)]


def test_momentum_of_rmsprop_goes_on_schedule_too(digits: ImageData) -> None:
    training = loop.Training(TrialConfig(optimizer="rmsprop", momentum=0.9, lr_schedule="cosine", epochs=1), digits)
    *_, last = (training.optimizer.state_dict()["param_groups"][0]["lr"] for _ in training.train_epoch())
    assert last == learning_rate_at("cosine", 1e-3, 18, 19)


def test_labels_are_smoothed_in_training_only(digits: ImageData) -> None:
    few = dataclasses.replace(digits, train=ImageSplit(digits.train.images[:50], digits.train.labels[:50]))
    config = TrialConfig(label_smoothing=0.2, batch_size=50, shuffle=False, epochs=1)
    scores = loop.Training(config, few).model(few.train.images / 255)
    (metrics,) = loop.train(config, few)
    smoothed = nn.functional.cross_entropy(scores, few.train.labels, label_smoothing=0.2)
    assert metrics.train_loss == pytest.approx(smoothed.item(), rel=1e-6)
    training = loop.Training(config, few)
    list(training.train_epoch())
    loss = nn.functional.cross_entropy(training.model(few.test.images / 255), few.test.labels)
    assert metrics.test_loss == pytest.approx(loss.item(), rel=1e-5)


def test_only_training_images_are_shifted_and_flipped(digits: ImageData) -> None:
    """A learning rate too small to change anything leaves the evaluation as it is without augmentation."""
    plain = TrialConfig(learning_rate=1e-30, epochs=1)
    augmented = dataclasses.replace(plain, shift=2, flip=True)
    (before,), (after,) = loop.train(plain, digits), loop.train(augmented, digits)
    assert (after.val_loss, after.test_loss) == (before.val_loss, before.test_loss)
    assert after.train_loss != before.train_loss


def test_shifts_and_flips_leave_the_order_of_the_images_and_the_weights_alone(digits: ImageData) -> None:
    plain, augmented = (loop.Training(config, digits) for config in (TrialConfig(), TrialConfig(shift=1, flip=True)))
    for training in plain, augmented:
        next(training.train_epoch())
    assert plain.shuffler is not None
    assert augmented.shuffler is not None
    assert torch.equal(plain.shuffler.get_state(), augmented.shuffler.get_state())


NETWORKS = """
import random
import numpy as np
import torch
from studies import reported
from torch import nn

ORDER = np.random.permutation(64)  # drawn while the file is imported

class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        with torch.no_grad():
            self.first.weight.copy_(torch.from_numpy(np.random.randn(16, 64) / 8))
            self.first.bias.fill_(random.gauss(0, 0.1))
        self.projection = torch.randn(16, 16) / 4  # no weights and no buffer

    def forward(self, images):
        x = self.first(images.flatten(1)[:, ORDER]).relu()
        if not self.training or random.random() < 0.8:
            x = x + self.second(x).relu()
        if self.training:
            x = x + 0.1 * np.random.randn() + 0.1 * random.gauss(0, 1)
        return self.last(nn.functional.dropout(x @ self.projection, 0.1, self.training))

def drawing(config, input_shape, classes):
    return Drawing()

def normalised(config, input_shape, classes):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Unflatten(1, (16, 1, 1)), nn.BatchNorm2d(16),
        nn.Flatten(), nn.Linear(16, classes),
    )
"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    return file


def test_all_generators_are_seeded_and_restored(digits: ImageData, networks: Path, tmp_path: Path) -> None:
    config = config_type(f"{networks}:drawing")(network=f"{networks}:drawing", learning_rate=0.1, epochs=4, seed=7)
    whole = without_seconds(list(loop.train(config, digits)))
    for finished in (1, 3):
        checkpoint = Checkpoint(tmp_path / f"{finished}.pt")
        before = list(itertools.islice(reported(loop.train(config, digits, checkpoint), checkpoint), finished))
        np.random.rand(7), random.gauss(0, 1), torch.rand(7)  # whatever happens in between
        load_code.cache_clear()  # another process imports the file again
        del sys.modules[networks.stem]
        again = Checkpoint(tmp_path / f"{finished}.pt", None, finished)
        assert without_seconds([*before, *reported(loop.train(config, digits, again), again)]) == whole
        assert again.take_warning() is None
    config = dataclasses.replace(config, batch_size=500, epochs=2)
    whole = without_seconds(list(loop.train(config, digits)))
    assert without_seconds([*in_one_process_a_step(config, digits, tmp_path / "steps.pt")]) == whole


def test_generators_of_a_gpu_are_restored_where_it_is_in_use() -> None:
    with (
        mock.patch("torch.cuda.is_initialized", return_value=True),
        mock.patch("torch.cuda.get_rng_state_all", return_value=["state"]),
        mock.patch("torch.cuda.set_rng_state_all") as set_states,
    ):
        set_random_state(get_random_state())
    set_states.assert_called_once_with(["state"])


def few(digits: ImageData, images: int) -> ImageData:
    return dataclasses.replace(digits, train=ImageSplit(digits.train.images[:images], digits.train.labels[:images]))


@pytest.mark.parametrize(("images", "batch_size"), [(129, 64), (3, 2), (65, 64), (2, 1), (3, 1), (1, 1), (1, 64)])
@pytest.mark.parametrize("network", ["normalised", "cnn"])
def test_no_sizes_make_a_network_with_batch_normalisation_fail(
    digits: ImageData, networks: Path, network: str, images: int, batch_size: int
) -> None:
    data = few(digits, images)
    if network == "cnn":  # its second batch normalisation sees 1 x 1 pixels
        splits = {name: getattr(data, name) for name in ("train", "val", "test")}
        small: dict[str, Any] = {
            name: ImageSplit(split.images[:, :, :4, :4], split.labels) for name, split in splits.items()
        }
        data = dataclasses.replace(data, **small)
    name = network if network == "cnn" else f"{networks}:{network}"
    config = config_type(name)(network=name, batch_size=batch_size, epochs=2, lr_schedule="onecycle")
    training = loop.Training(config, data)
    before = {name: weight.clone() for name, weight in training.model.named_parameters()}
    steps = [[seen for _, seen in training.train_epoch()] for _ in range(2)]
    assert [seen[-1] for seen in steps] == [images, images]
    assert len(steps[0]) == (images // batch_size or 1)
    last = 2 * len(steps[0]) - 1
    assert training.optimizer.param_groups[0]["lr"] == learning_rate_at("onecycle", 1e-3, last, last + 1)
    assert any(not torch.equal(weight, before[name]) for name, weight in training.model.named_parameters())
    assert training.measure_epoch().test_accuracy >= 0


def test_only_a_last_batch_of_one_is_merged(digits: ImageData) -> None:
    for images, batch_size in ((128, 64), (130, 64), (5, 3), (2, 1), (1, 1), (1, 5)):
        split = few(digits, images).train
        sizes = [len(labels) for _, labels in batches(split, batch_size, merge_single=True)]
        assert sizes == [len(labels) for _, labels in batches(split, batch_size)]
    assert [len(labels) for _, labels in batches(few(digits, 129).train, 64, merge_single=True)] == [64, 65]


def test_auxiliary_logits_are_a_part_of_the_training_loss() -> None:
    """GoogLeNet and Inception of torchvision return named tuples while training, with None for what is switched off."""
    outputs = namedtuple("outputs", ["logits", "aux_logits2", "aux_logits1", "features"])
    logits, first, second = torch.randn(3, 4, 10)
    labels, loss_fn = torch.tensor([0, 3, 9, 1]), nn.CrossEntropyLoss()
    both = loss_fn(logits, labels) + 0.3 * (loss_fn(first, labels) + loss_fn(second, labels))
    for returned, loss in (
        (logits, loss_fn(logits, labels)),
        ((logits, None), loss_fn(logits, labels)),
        ([logits, first, second], both),
        (outputs(logits, first, second, torch.randn(4, 7)), both),
    ):
        torch.testing.assert_close(loop.training_loss(returned, labels, loss_fn), loss)
    with pytest.raises(ValueError, match="the network must return logits while training, got dict"):
        loop.training_loss({"logits": logits}, labels, loss_fn)  # type: ignore[arg-type]
