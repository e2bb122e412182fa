"""The networks: the tutorial's, a small convolutional one, and those that functions of the user build."""

from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from training.config import NETWORKS, TrialConfig, is_passed_function
from training.networks.builder import build_by_function
from training.networks.network_config import CnnHyperparameters, MlpHyperparameters, config_type
from training.program_files import checksum, meaning
from training.random_state import get_random_state, set_random_state
from training.user_code import code_of, errors_as_sentences, running

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class NeuralNetwork(nn.Module):
    """The tutorial's network: hidden layers with ReLU, by default two of 512 units."""

    def __init__(self, inputs: int, classes: int, depth: int = 2, width: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        layers: list[nn.Module] = []
        for layer in range(depth):
            layers += [nn.Linear(width if layer else inputs, width), nn.ReLU(), *_dropout(dropout)]
        self.linear_relu_stack = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W), float32 in [0, 1], into logits (N, classes) before the softmax."""
        logits: Tensor = self.linear_relu_stack(self.flatten(images))
        return logits


class ConvolutionalNetwork(nn.Module):
    """Two convolutions 3 x 3, each with pooling by two, batch normalisation and ReLU, and one hidden layer.

    Pooling comes before the other operations, which then have a quarter of the work. The channels of a pixel lie side
    by side in memory, because this is fastest for convolution and pooling on a CPU.
    """

    def __init__(self, shape: Shape, classes: int, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolution(shape[0], channels), *_convolution(channels, 2 * channels))
        self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            inputs = self.features.eval()(torch.zeros(1, *shape)).numel()
        self.features.train()
        self.classifier = nn.Sequential(
            nn.Flatten(),
            *_dropout(dropout),
            nn.Linear(inputs, width),
            nn.ReLU(),
            *_dropout(dropout),
            nn.Linear(width, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W), float32 in [0, 1], into logits (N, classes) before the softmax."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def _dropout(part: float) -> list[nn.Module]:
    return [nn.Dropout(part)] if part else []


def build_mlp(config: MlpHyperparameters, input_shape: Shape, classes: int) -> nn.Module:
    """Build the tutorial's network."""
    channels, height, width = input_shape
    return NeuralNetwork(channels * height * width, classes, config.depth, config.width, config.dropout)


def build_cnn(config: CnnHyperparameters, input_shape: Shape, classes: int) -> nn.Module:
    """Build the small convolutional network."""
    return ConvolutionalNetwork(input_shape, classes, config.channels, config.width, config.dropout)


def build_network(config: TrialConfig, input_shape: Shape, classes: int) -> nn.Module:
    """Build the network that `config.network` names.

    Args:
        config: Configuration of the type that `config_type` returns for this network.
        input_shape: Channels, height and width of an image.
        classes: Number of logits for each image.

    Raises:
        ValueError: The function of the user does not build a network that can be trained on such images.
    """
    full_type = config_type(config.network)
    if not isinstance(config, full_type):  # then the network has its default hyperparameters
        config = full_type(**{field.name: getattr(config, field.name) for field in fields(TrialConfig)})
    match config.network:
        case "mlp":
            return build_mlp(config, input_shape, classes)  # type: ignore[arg-type]
        case "cnn":
            return build_cnn(config, input_shape, classes)  # type: ignore[arg-type]
    with running("network", config.network) as build:
        name = Path(config.network).name  # without the folder, because the sentence is also a cell of a table
        with errors_as_sentences(f"network {name} failed"):
            network = build_by_function(build, config, input_shape=input_shape, classes=classes)
        _check_network(name, network, input_shape, classes)
    return network  # type: ignore[no-any-return]


def network_code(network: str) -> dict[str, bytes]:
    """The files of a user's network, by path below its folder; empty for the networks of this module."""
    if network in NETWORKS:
        return {}
    return {name: file.read_bytes() for name, file in code_of("network", network).files.items()}


def network_checksum(network: str) -> str | None:
    """SHA-256 of what the code of a user's network means, without comments; None for the networks of this module."""
    if is_passed_function(network):
        sums = code_of("network", network).checksums
        return checksum({name: value.encode() for name, value in sums.items()})
    files = {name: meaning(content) for name, content in network_code(network).items()}
    return checksum(files) if network not in NETWORKS else None


def _check_network(name: str, network: object, input_shape: Shape, classes: int) -> None:
    """Refuse a network that cannot be trained, by a forward pass of two empty images, and of one."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"network {name} returned {type(network).__name__}, which is not a torch.nn.Module")
    with errors_as_sentences(f"network {name} failed"):
        is_trained = any(parameter.requires_grad for parameter in network.parameters())
    if not is_trained:
        raise ValueError(f"network {name} has no parameters to train")
    for images in (2, 1):
        number, size = "a single image" if images == 1 else "images", " x ".join(map(str, input_shape))
        state, was_training = get_random_state(), network.training
        try:
            with errors_as_sentences(f"network {name} cannot take {number} of {size}"), torch.no_grad():
                network.eval()  # a network of the user's may return None here
                logits = network(torch.zeros(images, *input_shape, dtype=torch.float32))
                network.train(was_training)
        finally:
            set_random_state(state)
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if shape != (images, classes):
            raise ValueError(
                f"network {name} must return logits of shape (N, {classes}), got {shape} for {images} "
                f"image{'' if images == 1 else 's'}"
            )
        if not logits.is_floating_point():
            raise ValueError(f"network {name} must return logits that are real numbers, got {logits.dtype}")
