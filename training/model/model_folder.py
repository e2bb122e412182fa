"""A trained network as a folder that can be passed on: it loads without the study, and runs no code unless told to."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.config import NETWORKS, TrialConfig
from training.console.plain_data import check_type, from_plain
from training.images.image_data import ImageSplit, batches
from training.loop import EVALUATION_BATCH_SIZE
from training.model.model_card import model_card
from training.networks.network_config import config_type
from training.networks.networks import build_network

FOLDER = "model"
"""Its name in the folder of a study."""
FORMAT = 1
"""Of `config.json`; another number means that other fields may be there."""
WEIGHTS, CONFIG, CARD, NETWORK = "model.safetensors", "config.json", "README.md", "network.py"

LARGEST_CONFIG = 10**7
"""Bytes of a `config.json` that are read."""
LARGEST_SIDE = 4096
"""Pixels along a side of an image, and its channels."""

Background = Literal["dark", "unknown"]
DARK_BACKGROUND = ("fashion-mnist", "mnist", "kmnist", "digits")
"""Data sets of light things on black."""

Value = float | int | str | bool


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """All that is known of a trained network besides its weights; the fields are those of `config.json`."""

    format: int = FORMAT
    network: str
    """As `TrialConfig.network`; `network.py:NAME` for the function NAME of the folder's own file."""
    network_hyperparameters: dict[str, Value]
    """Its own, which shape it."""
    network_sha256: str | None = None
    """Checksum of `network.py`, if there is one."""
    image_shape: list[int]
    """Channels, height and width."""
    pixels: Literal["uint8 / 255"] = "uint8 / 255"
    """How whole numbers from 0 to 255 become what the network takes."""
    background: Background = "unknown"
    """What lies around the things in the images that it was trained on; dark: 0."""
    classes: list[str]
    dataset: str
    dataset_sha256: str
    training_images: int
    validation_images: int
    test_images: int
    training: dict[str, Value]
    """The other hyperparameters that it was trained with, by field of `TrialConfig`."""
    trial: int | None = None
    """Of the study, if it comes from one."""
    epoch: int
    """Epochs that it was trained for."""
    selection: str
    """How it was chosen, in a sentence or two."""
    command: str | None = None
    """Trains it again."""
    val_accuracy: float | None
    val_loss: float | None
    test_accuracy: float
    test_loss: float

    def __post_init__(self) -> None:
        """Refuse what no model of ours can be."""
        if len(self.image_shape) != 3 or not all(1 <= size <= LARGEST_SIDE for size in self.image_shape):
            raise ValueError(f"image_shape cannot be {self.image_shape}")
        if len(self.classes) < 2:
            raise ValueError("there are not two classes to tell apart")
        if self.epoch < 1 or self.training_images < 1 or self.test_images < 1 or self.validation_images < 0:
            raise ValueError("a number of epochs or images cannot be")
        if not all(0 <= accuracy <= 1 for accuracy in (self.val_accuracy or 0.0, self.test_accuracy)):
            raise ValueError("an accuracy is not in [0, 1]")
        if self.val_accuracy is not None and not self.validation_images:
            raise ValueError("it has a val_accuracy and no validation images")
        if self.network not in NETWORKS and not (
            self.network_sha256 and self.network.partition(":")[0] == NETWORK and self.function.isidentifier()
        ):
            raise ValueError(f"network cannot be {self.network}")

    @property
    def function(self) -> str:
        """The function of `network.py` that builds it."""
        return self.network.partition(":")[2]

    @property
    def color(self) -> str:
        """What kind of image it takes, in a word."""
        return {1: "grey", 3: "RGB"}.get(self.image_shape[0], f"{self.image_shape[0]} channels")


@dataclass(frozen=True)
class ShippedModel:
    """A network with its weights, ready to classify, and what is known of it."""

    network: nn.Module
    facts: ModelFacts
    folder: Path = field(compare=False)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, C, H, W), uint8, of the shape that `facts` name.

        Returns:
            The probability of each class, (N, classes), float32.

        Raises:
            ValueError: The images are of another shape or type.
        """
        if images.dtype != torch.uint8 or list(images.shape[1:]) != self.facts.image_shape:
            shape = " x ".join(map(str, self.facts.image_shape))
            raise ValueError(f"images must be uint8 (N, {shape}), got {images.dtype} {tuple(images.shape)}")
        split = ImageSplit(images, torch.zeros(len(images), dtype=torch.int64))
        scores = [self.network(pixels) for pixels, _ in batches(split, EVALUATION_BATCH_SIZE)]
        return torch.cat(scores).softmax(1) if scores else torch.zeros(0, len(self.facts.classes))


def save_model(folder: Path, weights: Mapping[str, Tensor], facts: ModelFacts, code: Path | None = None) -> None:
    """Write a model's folder; an earlier one is replaced when the new one is whole.

    Args:
        folder: Where; what is beside it stays.
        weights: The `state_dict` of the network.
        facts: All else that is known of it.
        code: The file whose function builds the network, if it is none of this project.

    Raises:
        ValueError: The weights are not those of this network.
        OSError: It cannot be written.
    """
    draft, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("draft", "old"))
    _remove(draft)
    draft.mkdir(parents=True)
    try:
        _save_weights(weights, draft / WEIGHTS)
        if code is not None:
            (draft / NETWORK).write_bytes(code.read_bytes())
        (draft / CONFIG).write_text(json.dumps(asdict(facts), indent=2) + "\n")
        (draft / CARD).write_text(model_card(facts), encoding="utf-8")
        if code is None:
            load_model(draft)  # what does not load is not passed on
        for file in draft.iterdir():
            file.chmod(0o666 & ~_umask())  # safetensors lets nobody else read what is to be passed on
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        _remove(old)
        if folder.exists() or folder.is_symlink():
            folder.rename(old)
        draft.rename(folder)
        _remove(old)
    finally:
        _remove(draft)  # a part of it would only fill the disk


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_model(folder: Path, *, trust_network: bool = False) -> ShippedModel:
    """Load a model from its folder, wherever it comes from.

    Args:
        folder: Of the model.
        trust_network: Whether Python code in the folder may be run to build the network.

    Raises:
        ValueError: It is no model's folder, it is damaged, or it needs code to be run that is not trusted.
    """
    facts = read_facts(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        network = _build(folder, facts, shapes, trust_network=trust_network)
        weights = load_file(folder / WEIGHTS)
        _check_weights(network, weights)
        network.load_state_dict(weights, assign=True)
    except ValueError:
        raise
    except Exception as error:  # whatever the damage does to safetensors and torch, or a network's own code does
        raise ValueError(f"the model in {folder} cannot be loaded: {type(error).__name__}: {error}") from None
    return ShippedModel(network.eval(), facts, folder)


def read_facts(folder: Path) -> ModelFacts:
    """What is known of the model in a folder; its weights are not looked at.

    Raises:
        ValueError: There is none, or its description is damaged.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{folder} is no model's folder: it has no {CONFIG}")
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"it is larger than {LARGEST_CONFIG} bytes")
        values = json.loads(file.read_bytes())
        version = check_type(CONFIG, values, dict[str, Any]).get("format")
        if version != FORMAT:
            raise ValueError(f"its format is {version!r:.20}, and this version knows {FORMAT}")
        return from_plain(ModelFacts, values)
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{file} does not describe a model: {error}") from None


def _build(folder: Path, facts: ModelFacts, shapes: dict[str, list[int]], *, trust_network: bool) -> nn.Module:
    """Build the network; one of ours without memory for its weights, as sizes in a file that was sent may be absurd."""
    channels, height, width = facts.image_shape
    shape, classes = (channels, height, width), len(facts.classes)
    if facts.network in NETWORKS:
        config = _config(folder, facts.network, facts.network_hyperparameters)
        if getattr(config, "depth", 1) > len(shapes):
            raise ValueError(f"{folder / CONFIG}: depth is more than {WEIGHTS} has weights for")
        with torch.device("meta"):
            network = build_network(config, shape, classes)
        wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        if wanted != shapes:
            raise ValueError(f"{folder / WEIGHTS} holds the weights of another network than {CONFIG} describes")
        return network
    if not trust_network:
        raise ValueError(
            f"loading this model runs the Python code in {folder / NETWORK}, which can do anything; read it, then add "
            "--trust-network"
        )
    _check_code(folder / NETWORK, facts)
    place = f"{folder / NETWORK}:{facts.function}"
    known = {field.name for field in fields(TrialConfig)} - {"network"}
    training = {name: value for name, value in facts.training.items() if name in known}  # of other versions: no use
    return build_network(_config(folder, place, training | facts.network_hyperparameters), shape, classes)


def _config(folder: Path, network: str, hyperparameters: Mapping[str, object]) -> TrialConfig:
    kind = config_type(network)
    try:
        return from_plain(kind, {**hyperparameters, "network": network})
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} does not describe a network: {error}") from None


def _save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    try:
        for name, tensor in weights.items():
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise ValueError(f"{name} repeats its numbers")  # as a view does, which takes no memory until copied
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, file)
    except OSError:
        raise
    except Exception as error:  # whatever tensors of other kinds do to torch and safetensors
        raise ValueError(f"the weights cannot be saved: {type(error).__name__}: {error}") from None


def _check_code(file: Path, facts: ModelFacts) -> None:
    if not file.is_file():
        raise ValueError(f"the model has no {file}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != facts.network_sha256:
        raise ValueError(f"{file} is not the code that the model was trained with: its checksum is another one")


def _check_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in network.state_dict().items():
        if name in weights and weights[name].dtype != tensor.dtype:
            raise ValueError(f"{WEIGHTS}: {name} must be {tensor.dtype}, got {weights[name].dtype}")
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{WEIGHTS}: {name} holds numbers that are not finite")


def _remove(folder: Path) -> None:
    """Remove a folder of ours, or a link in its place, which is not followed."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
