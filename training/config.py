"""Settings of one training run: each hyperparameter with its type, default, unit and check."""

import difflib
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]
PrecisionName = Literal["fp32", "bf16", "auto"]
LrScheduleName = Literal["none", "cosine", "onecycle"]

DATASETS = ("fashion-mnist", "mnist", "kmnist", "cifar10", "digits")
"""The data sets known by name; any other value is a folder or the import path of a function."""
NETWORKS = ("mlp", "cnn")
"""The networks of this project; any other value is the import path of a function."""

PROJECT = Path(__file__).resolve().parent.parent
"""The folder of the packages `search` and `training`: a checkout, or where pip has installed them."""
IS_INSTALLED = any(PROJECT.glob("tunesmith-*.dist-info"))
"""Whether pip has installed this code, so that there is no checkout; an editable install is one."""
MAX_SEED = 2**32 - 1
"""The largest seed that torch, numpy and Optuna all take."""
MAX_IMAGE_SIZE = 1024
"""Largest side of an image in pixels; a thousand colour images of this size take 3 GB."""


def base_folder() -> Path:
    """The folder of `results/` and `data/`: the checkout, or the current folder if pip has installed this code."""
    if not IS_INSTALLED:
        return PROJECT
    try:
        return Path.cwd()
    except FileNotFoundError:  # a training has removed it
        return PROJECT


def _default_data_dir() -> Path:
    return Path(os.environ.get("TUNESMITH_DATA") or base_folder() / "data")


def check_choice(name: str, value: str, known: object) -> None:
    """Raise a ValueError if a name is not a member of a `Literal` type."""
    if value not in get_args(known):
        raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value}")


def is_import_path(name: str) -> bool:
    """Whether a text has the form of an import path, `path/to/file.py:name` or `package.module:name`."""
    module, _, function = name.rpartition(":")
    return bool(module and function.isidentifier())


def is_passed_function(path: str) -> bool:
    """Whether an import path stands for a function that a Python program passes, which has no file to import."""
    return path.startswith("__main__:")


def absolute_import_path(name: str) -> str:
    """An import path that is valid in any folder: that of a file becomes absolute."""
    module, colon, function = name.rpartition(":")
    return f"{Path(module).absolute()}{colon}{function}" if module.endswith(".py") else name


def is_folder(dataset: str) -> bool:
    """Whether a data set is the path of a folder: the folder exists, or the text contains a separator."""
    if dataset in ("auto", *DATASETS) or is_import_path(dataset):
        return False
    return "/" in dataset or os.sep in dataset or dataset == "~" or Path(dataset).is_dir()


def check_dataset(dataset: str) -> None:
    """Raise a ValueError if a text is not a data set, a folder or the import path of a function; read nothing."""
    known = ("auto", *DATASETS)
    if dataset in known or is_import_path(dataset) or is_folder(dataset):
        return
    matches = difflib.get_close_matches(dataset.lower(), known, n=1)
    suggestion = f"; did you mean {matches[0]}?" if matches else ""
    raise ValueError(
        f"dataset must be one of {', '.join(known)}, a folder of images, or an import path like "
        f"path/to/file.py:load, got {dataset}{suggestion}"
    )


def dataset_name(dataset: str) -> str:
    """A short name of a data set for sentences and files, of letters, digits, dots, dashes and underscores.

    A folder has its own name, a function the name of its file or module, unless another data set has this name.
    """
    if dataset in DATASETS:
        return dataset
    if is_import_path(dataset):
        name = function_name(dataset, "load")
    else:
        name = _short_name(Path(dataset).expanduser().absolute().name)
    name = name or "images"
    return f"{name}-images" if name in (*DATASETS, "auto", "latest") else name


def function_name(import_path: str, usual: str) -> str:
    """A short name of a function, of the same characters: that of its file or module, and its own unless `usual`.

    A function without a file has its own name.
    """
    module, _, function = import_path.rpartition(":")
    if is_passed_function(import_path):
        return _short_name(function)
    stem = Path(module).stem if module.endswith(".py") else module.rpartition(".")[2]
    return _short_name(stem if function == usual else f"{stem}-{function}")


def _short_name(full_name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", full_name)[:60].strip("-._")


def absolute_dataset(dataset: str) -> str:
    """The name of a data set in a form that is valid in any folder."""
    return str(Path(dataset).expanduser().absolute()) if is_folder(dataset) else absolute_import_path(dataset)


def check_network(network: str) -> None:
    """Raise a ValueError if a name is not a network or the import path of a function; import nothing."""
    if network not in NETWORKS and not is_import_path(network):
        raise ValueError(
            f"network must be one of {', '.join(NETWORKS)} or an import path like path/to/file.py:build, got {network}"
        )


def check_import_path(option: str, path: str) -> None:
    """Raise a ValueError if a text does not have the form of an import path; import nothing."""
    if not is_import_path(path):
        raise ValueError(f"{option} must be an import path like path/to/file.py:function, got {path}")


def check_seed(name: str, seed: int) -> None:
    """Raise a ValueError if a seed is not a 32-bit unsigned integer."""
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"{name} must be between 0 and {MAX_SEED}, got {seed}")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Hyperparameters of one trial; field names are also search-space keys and CSV columns."""

    learning_rate: float = 1e-3
    """Learning rate of the optimizer; > 0."""
    batch_size: int = 64
    """Number of images per optimizer step; >= 1."""
    optimizer: OptimizerName = "sgd"
    """Algorithm that updates the weights."""
    momentum: float = 0.0
    """For sgd and rmsprop: fraction of the last step that is added to the next one; in [0, 1)."""
    weight_decay: float = 0.0
    """Strength of the pull of the weights towards zero (L2 penalty; decoupled for adamw); >= 0."""
    lr_schedule: LrScheduleName = "none"
    """How the learning rate changes during the training. none: it stays the same; cosine: it falls to 0 along half a
    cosine; onecycle: it rises to the given learning rate in the first 30 % of the steps, and then falls to almost 0."""
    label_smoothing: float = 0.0
    """Fraction of each training label that is distributed over all classes; in [0, 1)."""
    shift: int = 0
    """Largest shift of a training image in pixels, up, down, left and right. The shifts are random, and new in each
    epoch; >= 0."""
    flip: bool = False
    """Mirror a random half of the training images left to right; each epoch chooses another half."""
    epochs: int = 10
    """Number of passes over the training images; >= 1."""
    shuffle: bool = True
    """Train on the images in a new random order in each epoch."""
    network: str = "mlp"
    """mlp: the tutorial's network, 784-512-512-10 with ReLU; cnn: a small convolutional network; or the import path of
    your own function or class that builds a network, path/to/file.py:build or package.module:build."""
    precision: PrecisionName = "fp32"
    """Number format of the matrix products in training. fp32: 32 bits; bf16: 16 bits; auto: bf16 where it was measured
    to be faster, which is from batch size 64 on, on processors with instructions for it; otherwise fp32."""
    seed: int = 0
    """Seed of the first weights, of the order, shifts and flips of the images, and of what a network draws at
    random."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {self.batch_size}")
        check_choice("optimizer", self.optimizer, OptimizerName)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if self.momentum > 0 and self.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is for sgd and rmsprop, got momentum {self.momentum} with {self.optimizer}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")
        check_choice("lr_schedule", self.lr_schedule, LrScheduleName)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.shift < 0:
            raise ValueError(f"shift must be >= 0, got {self.shift}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be >= 1, got {self.epochs}")
        check_network(self.network)
        check_choice("precision", self.precision, PrecisionName)
        check_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set, its folder and the part that is held out for validation."""

    dataset: str = "auto"
    """fashion-mnist, mnist, kmnist or cifar10: downloaded if they are not in the data folder; digits: small and
    bundled; a folder that has a folder of images for each class, or such folders in train/ and test/; or the import
    path of your own function that returns images, path/to/file.py:load or package.module:load. auto: fashion-mnist if
    it is available, otherwise digits."""
    image_size: int = 32
    """Width and height in pixels to which the images of a folder are resized, whatever their shape; from 1 to 1024."""
    data_dir: Path = field(default_factory=_default_data_dir)
    """Folder of the data sets in torchvision's layout; the environment variable TUNESMITH_DATA changes the default,
    which is data/ in the checkout, or in the current folder if there is none."""
    val_fraction: float = 1 / 6
    """Fraction of the training images that is held out for validation, in [0, 1); 0 trains on all of them, as the
    tutorial does."""

    def __post_init__(self) -> None:
        """Check every field; nothing on disk is touched."""
        check_dataset(self.dataset)
        if not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise ValueError(f"image_size must be between 1 and {MAX_IMAGE_SIZE}, got {self.image_size}")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), got {self.val_fraction}")
        if self.data_dir.exists() and not self.data_dir.is_dir():
            raise ValueError(f"data_dir must be a folder, got {self.data_dir}")
