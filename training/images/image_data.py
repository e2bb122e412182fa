"""Data sets as whole tensors in memory: loading, checking, splitting and batching."""

import hashlib
import itertools
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.config import DATASETS, DataConfig, dataset_name, is_folder, is_import_path
from training.console.terminal import counted
from training.images import cifar10, mnist
from training.images.augmentation import Augmentation
from training.images.custom_images import load_by_function
from training.images.image_folder import Part, load_image_folder

UNEQUAL = 2
"""A note is printed if a class has more than this times the images of another, because it dominates the accuracy."""

RETRY_SECONDS = 3600
"""Seconds for which `--dataset auto` does not ask a server again that did not answer."""

Batch = tuple[Tensor, Tensor]
"""Images (B, C, H, W), float32 in [0, 1], and labels (B,), int64."""


@dataclass(frozen=True)
class ImageSplit:
    """Images with their labels."""

    images: Tensor
    """(N, C, H, W), uint8."""
    labels: Tensor
    """(N,), int64: the index of the class."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> "ImageSplit":
        """Put both tensors on a device."""
        return ImageSplit(self.images.to(device), self.labels.to(device))

    def __getstate__(self) -> tuple[Any, Any]:
        # Ray's object store passes NumPy arrays to every worker without a copy, but not tensors.
        return self.images.numpy(), self.labels.numpy()

    def __setstate__(self, arrays: tuple[Any, Any]) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            object.__setattr__(self, "images", torch.from_numpy(arrays[0]))
            object.__setattr__(self, "labels", torch.from_numpy(arrays[1]))


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set, split for training, for the selection (validation) and for the final measurement (test)."""

    name: str
    """A short name of letters, digits, dots, dashes and underscores."""
    classes: tuple[str, ...]
    train: ImageSplit
    val: ImageSplit
    """Empty when `val_fraction` is 0."""
    test: ImageSplit
    sha256: str
    """Checksum of all images and labels before the split."""

    def class_sizes(self) -> list[int]:
        """Number of images of each class, validation and test images included."""
        labels = torch.cat([self.train.labels, self.val.labels, self.test.labels])
        return torch.bincount(labels, minlength=len(self.classes)).tolist()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: str) -> "ImageData":
        """Put all images and labels on a device, where networks are then trained."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))


def batches(
    split: ImageSplit,
    batch_size: int,
    shuffler: torch.Generator | None = None,
    augmentation: Augmentation | None = None,
    *,
    merge_single: bool = False,
) -> Iterator[Batch]:
    """Cut a split into batches, in its own order or in a random one; `batch_starts` says where.

    Images are scaled to [0, 1] exactly as torchvision's `ToTensor` does: as float32, divided by 255. An augmentation
    shifts and flips them before.
    """
    order = None if shuffler is None else torch.randperm(len(split), generator=shuffler).to(split.labels.device)
    starts = batch_starts(len(split), batch_size, merge_single=merge_single)
    for start, end in itertools.pairwise([*starts, len(split)]):
        if order is None:
            images, labels = split.images[start:end], split.labels[start:end]
        else:
            chosen = order[start:end]
            images, labels = split.images.index_select(0, chosen), split.labels.index_select(0, chosen)
        if augmentation is not None:
            images = augmentation.apply(images, start)
        yield images.to(torch.float32).div_(255), labels


def batch_starts(num_images: int, batch_size: int, *, merge_single: bool) -> list[int]:
    """The number of the first image of each batch; the last batch may be smaller.

    Args:
        num_images: Number of images.
        batch_size: Images in a batch; >= 1.
        merge_single: Whether a last batch of one image becomes a part of the batch before: a single image has no
            variance, which batch normalisation needs in training.
    """
    starts = list(range(0, num_images, batch_size))
    return starts[:-1] if merge_single and num_images > batch_size > 1 == num_images % batch_size else starts


def split_train_val(num_images: int, val_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Choose disjoint random image indices for training and validation.

    The same seed gives the same split in every trial of a study, so trials are comparable.

    Args:
        num_images: Number of images; >= 2.
        val_fraction: Part of the images for validation, in [0, 1).
        seed: Seed of the choice.

    Returns:
        (train, val) indices in ascending order, int64, shapes (num_images - v,) and (v,) with
        v = round(num_images * val_fraction).

    Raises:
        ValueError: `val_fraction` is not in [0, 1), or leaves no image to train on.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
    num_val = round(num_images * val_fraction)
    if num_val >= num_images:
        raise ValueError(f"val_fraction {val_fraction} leaves none of the {num_images} images to train on")
    if val_fraction > 0 and num_val == 0:
        raise ValueError(f"val_fraction {val_fraction} leaves none of the {num_images} images for validation")
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    return order[num_val:].sort().values, order[:num_val].sort().values


def load_data(config: DataConfig, split_seed: int) -> tuple[ImageData, str | None]:
    """Load a data set, and download it first if it is absent.

    Args:
        config: Data set, folder and validation fraction.
        split_seed: Seed of the choice of validation images.

    Returns:
        The data, and a note or None: `auto` became digits, files of a folder are no images, or classes are unequal.

    Raises:
        ValueError: A file is missing, truncated or corrupt, the download failed, or no network can be trained on the
            images.
        OSError: The folder cannot be read or written.
    """
    chosen, *notes = _choose_dataset(config)
    pool, test, classes, *more_notes = _load(chosen, config)
    train_indices, val_indices = split_train_val(len(pool), config.val_fraction, split_seed)
    data = ImageData(
        name=dataset_name(chosen),
        classes=classes,
        train=ImageSplit(pool.images[train_indices], pool.labels[train_indices]),
        val=ImageSplit(pool.images[val_indices], pool.labels[val_indices]),
        test=test,
        sha256=_checksum(pool, test),
    )
    if chosen not in DATASETS:
        _check_classes_are_trained(data)
    return data, "; ".join(filter(None, [*notes, *more_notes, _inequality(data)])) or None


def is_at_hand(dataset: str, data_dir: Path) -> bool:
    """Whether a data set with a name can be loaded without a download; False for folders and functions."""
    match dataset:
        case "digits":
            return True
        case "cifar10":
            return cifar10.is_present(data_dir)
        case "fashion-mnist" | "mnist" | "kmnist":
            return mnist.is_present(dataset, data_dir)
    return False


def _load(dataset: str, config: DataConfig) -> tuple[ImageSplit, ImageSplit, tuple[str, ...], str | None]:
    """The images for training and validation, the test images, the names of the classes, and a note."""
    note = None
    if dataset == "digits":
        pool, test, classes = _load_digits()
    elif is_import_path(dataset):
        pool, test, classes, note = load_by_function(dataset)
    elif is_folder(dataset):
        pool, test, classes, note = load_image_folder(Path(dataset), config.image_size)
    elif dataset == "cifar10":
        pool, test, classes = cifar10.load(config.data_dir)
    else:
        pool, test, classes = mnist.load(dataset, config.data_dir)
    return ImageSplit(*pool), ImageSplit(*test), classes, note


def _check_classes_are_trained(data: ImageData) -> None:
    """Refuse a split that leaves a class without a training image."""
    sizes = torch.bincount(data.train.labels, minlength=len(data.classes))
    if 0 in sizes:
        missing = data.classes[int(sizes.argmin())]
        size = data.class_sizes()[int(sizes.argmin())]
        raise ValueError(
            f'class "{missing}" has {counted(size, "image")}, but none of them is a training image: '
            "add images, or make val_fraction smaller"
        )


def _inequality(data: ImageData) -> str | None:
    """A note if a class has many more images than another."""
    sizes = data.class_sizes()
    smallest, largest = min(sizes), max(sizes)
    if largest <= UNEQUAL * smallest:
        return None
    few, many = data.classes[sizes.index(smallest)], data.classes[sizes.index(largest)]
    return f'the sizes of classes differ a lot: "{few}" has {counted(smallest, "image")}, and "{many}" has {largest:,}'


def _choose_dataset(config: DataConfig) -> tuple[str, str | None]:
    if config.dataset != "auto":
        return config.dataset, None
    if mnist.is_present("fashion-mnist", config.data_dir):
        return "fashion-mnist", None  # if it is damaged, loading raises an error
    unanswered = config.data_dir / ".fashion-mnist-unanswered"
    if unanswered.exists() and 0 <= (age := time.time() - unanswered.stat().st_mtime) < RETRY_SECONDS:
        minutes = f"{counted(int(age // 60), 'minute')} ago"
        return "digits", (
            f"the server of fashion-mnist did not answer {minutes}; using the small digits data set instead "
            "(--dataset fashion-mnist asks the server again)"
        )
    try:
        mnist.check_server_answers("fashion-mnist")
        mnist.download("fashion-mnist", config.data_dir)
    except ValueError as error:
        with suppress(OSError):  # then the next run waits again
            config.data_dir.mkdir(parents=True, exist_ok=True)
            unanswered.touch()
        return "digits", f"{error}; using the small digits data set instead"
    return "fashion-mnist", None


def _load_digits() -> tuple[Part, Part, tuple[str, ...]]:
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8; a fixed random fifth of them is the test set."""
    sklearn = find_spec("sklearn")  # its import takes over a second
    assert sklearn is not None and sklearn.origin is not None, "it is a dependency"  # noqa: PT018
    rows = torch.from_numpy(np.loadtxt(Path(sklearn.origin).parent / "datasets/data/digits.csv.gz", delimiter=","))
    images = (rows[:, :-1].view(-1, 1, 8, 8) * (255 / 16)).round().to(torch.uint8)
    labels = rows[:, -1].to(torch.int64)
    pool, test = split_train_val(len(labels), val_fraction=0.2, seed=0)
    return (images[pool], labels[pool]), (images[test], labels[test]), tuple("0123456789")


def _checksum(*splits: ImageSplit) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()
