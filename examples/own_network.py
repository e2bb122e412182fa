"""Search a network of your own: one convolution, and how many filters it has.

python search/run.py --network examples/own_network.py:build --space examples/own_network.toml --dataset digits
"""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters of the network; they can be searched or fixed, like those that every training has."""

    filters: int = 8
    """Filters of the convolution; >= 1."""
    activation: str = "relu"
    """relu or tanh."""


def build(config: Hyperparameters, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the network for images (channels, height, width); it returns logits (N, classes)."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, config.filters, kernel_size=3, padding=1),
        nn.ReLU() if config.activation == "relu" else nn.Tanh(),
        nn.Flatten(),
        nn.Linear(config.filters * height * width, classes),
    )
