"""What is known of a trained network besides its weights: the fields of its `config.json`."""

from dataclasses import dataclass
from typing import Literal

from training.config import NETWORKS

FORMAT = 1
"""Of `config.json`; another number means that other fields may be there."""
CODE = "network.py"
"""File in a model's folder that builds a network of the user's own."""
LARGEST_SIDE = 4096
"""Pixels along a side of an image, and its channels."""

Background = Literal["dark", "unknown"]
DARK_BACKGROUND = ("fashion-mnist", "mnist", "kmnist", "digits")
"""Data sets of light things on black."""

Value = float | int | str | bool


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
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
            self.network_sha256 and self.network.partition(":")[0] == CODE and self.function.isidentifier()
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
