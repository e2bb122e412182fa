"""The data of the tasks on which searches are compared: images, a table of numbers, and text made by a grammar."""

import random
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from training.config import DataConfig
from training.images.image_data import ImageData, ImageSplit, load_data

Pair = tuple[Tensor, Tensor]
"""Inputs and targets, with the examples along the first axis."""
Splits = tuple[Pair, Pair, Pair]
"""The examples for training, validation and test."""

SYMBOLS = "\n0123456789abcdef+-*()=;"
"""The characters of the grammar's text; the number of a character is its place."""


def images(dataset: str, sizes: tuple[int, int, int]) -> ImageData:
    """The first images of a data set, in its order after a fixed split.

    Args:
        dataset: `fashion-mnist` or `digits`.
        sizes: Numbers of training, validation and test images.
    """
    data, _ = load_data(DataConfig(dataset=dataset, val_fraction=0.4 if dataset == "digits" else 0.2), split_seed=0)
    parts = zip((data.train, data.val, data.test), sizes, strict=True)
    train, val, test = (ImageSplit(split.images[:size], split.labels[:size]) for split, size in parts)
    return replace(data, train=train, val=val, test=test)


def unequal_images(largest: int, ratio: float, sizes: tuple[int, int]) -> ImageData:
    """Images of Fashion-MNIST whose training set has fewer of each class than of the one before.

    Args:
        largest: Number of training images of class 0.
        ratio: `largest` divided by the number of training images of class 9.
        sizes: Numbers of validation and test images, whose classes are about equal.
    """
    data = images("fashion-mnist", (48_000, *sizes))
    labels = data.train.labels
    chosen = torch.cat(
        [(labels == label).nonzero()[: round(largest * ratio ** (-label / 9)), 0] for label in range(10)]
    )
    return replace(data, train=ImageSplit(data.train.images[chosen], labels[chosen]))


def table(sizes: tuple[int, int, int]) -> Splits:
    """A table of 12 numbers a row with a target of variance 1: smooth parts, thresholds, products and noise.

    The numbers have different scales and tails, and four of them have no influence.
    """
    generator = np.random.default_rng(0)
    rows = sum(sizes)
    uniform = generator.random((rows, 12))
    signal = (
        np.sin(np.pi * uniform[:, 0] * uniform[:, 1]) * 2
        + 4 * (uniform[:, 2] - 0.5) ** 2
        + 1.5 * (uniform[:, 3] > 0.6) * uniform[:, 4]
        - 1.2 * np.sqrt(uniform[:, 5])
        + np.cos(6 * uniform[:, 6]) * (uniform[:, 7] > 0.3)
    )
    target = signal + generator.normal(0, 0.15 + 0.2 * uniform[:, 5], rows)
    inputs = np.where(np.arange(12) % 3 == 0, -np.log1p(-uniform * 0.999), uniform) * generator.uniform(0.5, 4, 12)
    target = (target - target.mean()) / target.std()
    return _split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(target, dtype=torch.float32)[:, None], sizes)


def text(sizes: tuple[int, int, int], length: int = 41) -> Splits:
    """Programs of assignments whose expressions use names that were assigned before; brackets are closed.

    Returns:
        Characters (N, length - 1) and the next characters (N, length - 1), int64, as places in `SYMBOLS`.
    """
    chance = random.Random(0)
    stream = ""
    while len(stream) < sum(sizes) * length:
        stream += _program(chance)
    numbers = torch.tensor([SYMBOLS.index(symbol) for symbol in stream[: sum(sizes) * length]]).view(-1, length)
    return _split(numbers[:, :-1].contiguous(), numbers[:, 1:].contiguous(), sizes)


def flat_digits(sizes: tuple[int, int, int]) -> Splits:
    """The digits as 64 numbers in [0, 1], which are also the targets of an autoencoder."""
    data = images("digits", sizes)
    train, val, test = (
        (split.images.flatten(1).float() / 255, split.images.flatten(1).float() / 255)
        for split in (data.train, data.val, data.test)
    )
    return train, val, test


def _program(chance: random.Random) -> str:
    names: list[str] = []
    lines = []
    for _ in range(chance.randint(2, 5)):
        name = chance.choice([name for name in "abcdef" if name not in names])
        lines.append(f"{name}={_expression(chance, names, depth=0)};")
        names.append(name)
    return "".join(lines) + "\n"


def _expression(chance: random.Random, names: list[str], depth: int) -> str:
    kind = chance.random()
    if kind < 0.35 and names:
        return chance.choice(names)
    if kind < 0.6 or depth == 2:
        return str(chance.randint(1, 99))
    left, right = (_expression(chance, names, depth + 1) for _ in range(2))
    return f"({left}{chance.choice('+-*')}{right})"


def _split(inputs: Tensor, targets: Tensor, sizes: tuple[int, int, int]) -> Splits:
    train, val, test = zip(inputs.split(sizes), targets.split(sizes), strict=True)
    return train, val, test
