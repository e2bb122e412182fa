"""The metadata of a trained model, of a network or of a training of one's own: the fields of its `config.json`."""

from dataclasses import dataclass, field
from typing import Literal

from training.config import NETWORKS, is_passed_function

FORMAT = 1
"""Version of the format of `config.json`; another version may have other fields."""
CODE = "network.py"
"""File in the folder of a model that builds a network of the user."""
LARGEST_SIDE = 4096
"""Largest height, width and number of channels of an image."""

Background = Literal["dark", "unknown"]
DARK_BACKGROUND = ("fashion-mnist", "mnist", "kmnist", "digits")
"""Data sets of light objects on black."""

Value = float | int | str | bool


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """The metadata of a trained network."""

    format: int = FORMAT
    network: str
    """The value of `TrialConfig.network`, or `network.py:NAME` for a function in the folder of the model. That of a
    function or a class that a Python program passed has no file."""
    network_hyperparameters: dict[str, Value]
    """The hyperparameters of the network itself, such as its width."""
    network_sha256: str | None = None
    """Checksum of `network.py`, if there is one."""
    image_shape: list[int]
    """Channels, height and width."""
    pixels: Literal["uint8 / 255"] = "uint8 / 255"
    """How whole numbers from 0 to 255 become what the network takes."""
    background: Background = "unknown"
    """What surrounds the objects in the training images: `dark` (0) or `unknown`."""
    classes: list[str]
    dataset: str
    dataset_sha256: str
    training_images: int
    validation_images: int
    test_images: int
    training: dict[str, Value]
    """The other hyperparameters of the training, by field of `TrialConfig`."""
    trial: int | None = None
    """Number of the trial, if a study trained the network."""
    epoch: int
    """Number of epochs of the training."""
    selection: str
    """How the network was chosen, in one or two sentences."""
    command: str | None = None
    """The command line that trains the network again."""
    val_accuracy: float | None
    val_loss: float | None
    test_accuracy: float
    test_loss: float

    def __post_init__(self) -> None:
        """Refuse metadata that no model of ours has."""
        if len(self.image_shape) != 3 or not all(1 <= size <= LARGEST_SIDE for size in self.image_shape):
            raise ValueError(f"image_shape cannot be {self.image_shape}")
        if len(self.classes) < 2:
            raise ValueError("it has fewer than two classes")
        if self.epoch < 1 or self.training_images < 1 or self.test_images < 1 or self.validation_images < 0:
            raise ValueError("a number of epochs or images is too small")
        if not all(0 <= accuracy <= 1 for accuracy in (self.val_accuracy or 0.0, self.test_accuracy)):
            raise ValueError("an accuracy is not in [0, 1]")
        if self.val_accuracy is not None and not self.validation_images:
            raise ValueError("it has a val_accuracy, but no validation images")
        has_code = self.network_sha256 and self.network.partition(":")[0] == CODE
        of_user = self.function.isidentifier() and (has_code or is_passed_function(self.network))
        if self.network not in NETWORKS and not of_user:
            raise ValueError(f"network cannot be {self.network}")

    @property
    def function(self) -> str:
        """The function of `network.py` that builds the network."""
        return self.network.partition(":")[2]

    @property
    def color(self) -> str:
        """The kind of images for the network: grey, RGB or a number of channels."""
        return {1: "grey", 3: "RGB"}.get(self.image_shape[0], f"{self.image_shape[0]} channels")


@dataclass(frozen=True, kw_only=True)
class CustomModelMetadata:
    """The metadata of what a training function or a program of the user's own saved."""

    format: int = FORMAT
    train_function: str | None = None
    """The function and its file, without the folder; None if a program was trained."""
    program: str | None = None
    """The script or the module of the program, without the folder; None if a function was trained."""
    code_sha256: dict[str, str] = field(default_factory=dict)
    """Checksums of its files and of those that they import, without comments, when the study was run."""
    study: str
    trial: int
    """Number of the trial in the study that has this configuration."""
    hyperparameters: dict[str, Value]
    """Searched and fixed ones."""
    seed: int
    epoch: int
    """The best epoch, which has these metrics."""
    saved_epoch: int | None = None
    """The last reported epoch of a program, of which its files may be; None for a function, which saves by epoch."""
    metric: str
    mode: Literal["max", "min"]
    metrics: dict[str, float | None]
    """All metrics after this epoch; None for one that was not finite."""
    selection: str
    """How the model was chosen, in some sentences."""

    @property
    def training(self) -> str:
        """The kind and the name of what was trained."""
        return f"program {self.program}" if self.train_function is None else f"training function {self.train_function}"

    def __post_init__(self) -> None:
        """Refuse metadata that no model of ours has."""
        if (self.train_function is None) == (self.program is None):
            raise ValueError("it is of either a training function or a program")
        if self.saved_epoch is not None and self.saved_epoch < self.epoch:
            raise ValueError(f"its files are older than epoch {self.epoch}")
        if self.epoch < 1 or self.metrics.get(self.metric) is None:
            raise ValueError(f"it has no {self.metric} after {self.epoch} epochs")
