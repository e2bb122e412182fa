"""Data sets as whole tensors in memory: loading, checking, splitting and batching."""

import hashlib
import socket
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from training.config import DataConfig, DatasetName

Batch = tuple[Tensor, Tensor]
"""Images (B, C, H, W), float32 in [0, 1], and labels (B,), int64."""

CONNECT_SECONDS = 5.0
"""How long `--dataset auto` waits for the download server's first answer before it falls back."""
STALL_SECONDS = 30.0
"""A download that receives nothing for this long has failed."""


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
        # NumPy arrays are what Ray's object store hands to every worker without a copy; tensors it would copy.
        return self.images.numpy(), self.labels.numpy()

    def __setstate__(self, arrays: tuple[Any, Any]) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            object.__setattr__(self, "images", torch.from_numpy(arrays[0]))
            object.__setattr__(self, "labels", torch.from_numpy(arrays[1]))


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set, split for training, for choosing (validation) and for the final word (test)."""

    name: DatasetName
    classes: tuple[str, ...]
    train: ImageSplit
    val: ImageSplit
    """Empty when `val_fraction` is 0."""
    test: ImageSplit
    sha256: str
    """Checksum of all images and labels before the split."""

    def to(self, device: str) -> "ImageData":
        """Put all images and labels on a device; networks are then trained there."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))


def batches(split: ImageSplit, batch_size: int, shuffler: torch.Generator | None = None) -> Iterator[Batch]:
    """Cut a split into batches, in its own order or in a random one; the last batch may be smaller.

    Images are scaled to [0, 1] exactly as torchvision's `ToTensor` does: as float32, divided by 255.
    """
    order = None if shuffler is None else torch.randperm(len(split), generator=shuffler).to(split.labels.device)
    for start in range(0, len(split), batch_size):
        if order is None:
            images, labels = split.images[start : start + batch_size], split.labels[start : start + batch_size]
        else:
            chosen = order[start : start + batch_size]
            images, labels = split.images.index_select(0, chosen), split.labels.index_select(0, chosen)
        yield images.to(torch.float32).div_(255), labels


def split_train_val(num_images: int, val_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Choose disjoint random image indices for training and validation.

    The same seed gives the same split in every trial of a study, so trials are comparable.

    Args:
        num_images: Images to share out; >= 2.
        val_fraction: Part that goes to validation, in [0, 1).
        seed: Fixes the choice.

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
    """Load the data set that `config` asks for, downloading it first where it is absent.

    Args:
        config: Data set, folder and validation fraction.
        split_seed: Fixes which training images are held out for validation.

    Returns:
        The data, and one sentence of warning when `auto` fell back to digits.

    Raises:
        ValueError: A file is missing, truncated or corrupt, or the download failed; the message names the file.
        OSError: The folder cannot be read or written.
    """
    name, warning = _choose_dataset(config)
    if name == "digits":
        pool, test, classes = _load_digits()
    else:
        pool, test, classes = _load_idx_dataset(name, config.data_dir)
    train_indices, val_indices = split_train_val(len(pool), config.val_fraction, split_seed)
    data = ImageData(
        name=name,
        classes=classes,
        train=ImageSplit(pool.images[train_indices], pool.labels[train_indices]),
        val=ImageSplit(pool.images[val_indices], pool.labels[val_indices]),
        test=test,
        sha256=_checksum(pool, test),
    )
    return data, warning


def _choose_dataset(config: DataConfig) -> tuple[DatasetName, str | None]:
    if config.dataset != "auto":
        return config.dataset, None
    if any(file.exists() for file in _idx_files("fashion-mnist", config.data_dir)):
        return "fashion-mnist", None  # present, perhaps damaged: then loading says so, instead of a silent fall-back
    try:
        _check_server_answers("fashion-mnist")
        _download("fashion-mnist", config.data_dir)
    except ValueError as error:
        return "digits", f"{error}; using the small digits data set instead"
    return "fashion-mnist", None


def _load_digits() -> tuple[ImageSplit, ImageSplit, tuple[str, ...]]:
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8; a fixed random fifth of them is the test set."""
    from sklearn.datasets import load_digits  # over a second: only for those who need it

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    pool, test = split_train_val(len(labels), val_fraction=0.2, seed=0)
    classes = tuple(str(name) for name in digits.target_names)
    return ImageSplit(images[pool], labels[pool]), ImageSplit(images[test], labels[test]), classes


# The MNIST family: four files in the IDX format (http://yann.lecun.com/exdb/mnist), read by torchvision.

_IDX_FILES = {
    "train-images-idx3-ubyte": (2051, (60_000, 28, 28)),
    "train-labels-idx1-ubyte": (2049, (60_000,)),
    "t10k-images-idx3-ubyte": (2051, (10_000, 28, 28)),
    "t10k-labels-idx1-ubyte": (2049, (10_000,)),
}
"""File name -> magic number and shape in its header."""

_IDX_MD5 = {
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
}
"""Published checksums of the uncompressed files, where they are known."""


def _idx_class(name: DatasetName) -> Any:
    from training.torchvision_import import import_torchvision_datasets

    class_name = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}[name]
    return getattr(import_torchvision_datasets(), class_name)


def _idx_folder(name: DatasetName, data_dir: Path) -> Path:
    return data_dir / {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}[name] / "raw"


def _idx_files(name: DatasetName, data_dir: Path) -> list[Path]:
    return [_idx_folder(name, data_dir) / file for file in _IDX_FILES]


def _load_idx_dataset(name: DatasetName, data_dir: Path) -> tuple[ImageSplit, ImageSplit, tuple[str, ...]]:
    files = _idx_files(name, data_dir)
    if not any(file.exists() for file in files):
        _download(name, data_dir)
    for file in files:
        _check_idx_file(name, file)
    dataset_class = _idx_class(name)
    splits = []
    for train in (True, False):
        dataset = dataset_class(data_dir, train=train, download=False)
        splits.append(ImageSplit(dataset.data.unsqueeze(1), dataset.targets.to(torch.int64)))
    return splits[0], splits[1], tuple(dataset_class.classes)


def _check_idx_file(name: DatasetName, file: Path) -> None:
    remedy = "delete it to have the data set downloaded again"
    if not file.is_file():
        raise ValueError(f"missing file of {name}: {file} (delete the folder to have the data set downloaded again)")
    magic, shape = _IDX_FILES[file.name]
    header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
    expected_size = len(header) + torch.Size(shape).numel()
    if file.stat().st_size != expected_size:
        raise ValueError(
            f"truncated file of {name}: {file} has {file.stat().st_size} of {expected_size} bytes; {remedy}"
        )
    content = file.read_bytes()
    md5 = _IDX_MD5.get(name, {}).get(file.name)
    if not content.startswith(header) or (md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5):
        raise ValueError(f"corrupt file of {name}: {file} does not hold the published content; {remedy}")
    if "labels" in file.name and max(content[len(header) :]) > 9:
        raise ValueError(f"corrupt file of {name}: {file} holds labels above 9; {remedy}")


def _check_server_answers(name: DatasetName) -> None:
    """Refuse within seconds where there is no way to the server, even where looking up its name hangs.

    Raises:
        ValueError: No answer from the server of `name`.
    """
    reasons = ["no answer"]

    def ask() -> None:
        request = urllib.request.Request(_idx_class(name).mirrors[0], method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
            reasons.clear()
        except urllib.error.HTTPError:
            reasons.clear()  # an error page is an answer too
        except OSError as error:
            reasons[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if reasons:
        raise ValueError(f"{name} is not in the data folder and its server cannot be reached ({reasons[0]})")


def _download(name: DatasetName, data_dir: Path) -> None:
    """Download a data set beside its place, check it, then move it there: it is there whole or not at all.

    Raises:
        ValueError: The download failed or brought a damaged file.
        OSError: The folder cannot be written.
    """
    made_folder = not data_dir.exists()
    data_dir.mkdir(parents=True, exist_ok=True)
    old_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torchvision downloads without a time-out of its own
    try:
        with TemporaryDirectory(prefix=f".{name}-", dir=data_dir) as incoming:
            _idx_class(name)(incoming, download=True)
            for file in _idx_files(name, Path(incoming)):
                _check_idx_file(name, file)
            _idx_folder(name, data_dir).mkdir(parents=True, exist_ok=True)
            for file in _idx_files(name, Path(incoming)):
                file.replace(_idx_folder(name, data_dir) / file.name)
    except (RuntimeError, OSError, EOFError) as error:
        if made_folder:
            data_dir.rmdir()
        raise ValueError(f"{name} could not be downloaded to {data_dir}: {error}") from error
    finally:
        socket.setdefaulttimeout(old_timeout)


def _checksum(*splits: ImageSplit) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.images.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()
