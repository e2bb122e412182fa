"""MNIST and its replacements: four files in the IDX format, which torchvision downloads and this module reads."""

import hashlib
import math
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from training.images.image_folder import Part
from training.images.torchvision_import import import_torchvision_datasets

CONNECT_SECONDS = 5.0
"""Seconds that `--dataset auto` waits for an answer of the download server before it takes digits instead."""
STALL_SECONDS = 30.0
"""A download fails if it receives nothing for this time."""

FILES = {
    "train-images-idx3-ubyte": (2051, (60_000, 28, 28)),
    "train-labels-idx1-ubyte": (2049, (60_000,)),
    "t10k-images-idx3-ubyte": (2051, (10_000, 28, 28)),
    "t10k-labels-idx1-ubyte": (2049, (10_000,)),
}
"""Magic number and shape in the header of each file, as at http://yann.lecun.com/exdb/mnist."""

_MD5 = {
    ("fashion-mnist", "train-images-idx3-ubyte"): "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    ("fashion-mnist", "train-labels-idx1-ubyte"): "9018921c3c673c538a1fc5bad174d6f9",
    ("fashion-mnist", "t10k-images-idx3-ubyte"): "8181f5470baa50b63fa0f6fddb340f0a",
    ("fashion-mnist", "t10k-labels-idx1-ubyte"): "15d484375f8d13e6eb1aabb0c3f46965",
}
"""Checksums of the uncompressed files of one data set; torchvision checks the compressed downloads of the others."""

_TORCHVISION_NAMES = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = {
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": tuple(f"{number} - {name}" for number, name in enumerate(_DIGITS)),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
"""Names of the classes, as torchvision has them; its import takes as long as that of torch."""


def is_present(name: str, data_dir: Path) -> bool:
    """Whether any file of the data set exists, also a damaged one."""
    return any(file.exists() for file in _files(name, data_dir))


def load(name: str, data_dir: Path) -> tuple[Part, Part, tuple[str, ...]]:
    """Read a data set, and download it first if it is absent.

    Returns:
        Training images (60,000, 1, 28, 28), test images (10,000, 1, 28, 28) and the names of the classes.

    Raises:
        ValueError: A file is missing, truncated or corrupt, or the download failed; the message names the file.
        OSError: The folder cannot be read or written.
    """
    if not is_present(name, data_dir):
        download(name, data_dir)
    train_images, train_labels, test_images, test_labels = (_read(name, file) for file in _files(name, data_dir))
    pool, test = (
        (images.unsqueeze(1), labels.to(torch.int64))
        for images, labels in ((train_images, train_labels), (test_images, test_labels))
    )
    return pool, test, CLASSES[name]


def check_server_answers(name: str) -> None:
    """Raise a ValueError within seconds if the server of a data set does not answer, also if the DNS hangs."""
    address = _torchvision_class(name).mirrors[0]
    reasons = ["no answer"]

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
            reasons.clear()
        except urllib.error.HTTPError:
            reasons.clear()  # an error page is also an answer
        except OSError as error:
            reasons[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if reasons:
        raise ValueError(f"{name} is not in the data folder and its server cannot be reached ({reasons[0]})")


def download(name: str, data_dir: Path) -> None:
    """Download a data set into a temporary folder, check it, and move it to its folder in one step.

    Raises:
        ValueError: The download failed, or a downloaded file is damaged.
        OSError: The folder cannot be written.
    """
    with incoming_folder(name, data_dir) as incoming:
        _torchvision_class(name)(incoming, download=True)
        for file in _files(name, incoming):
            _read(name, file)
        _folder(name, data_dir).mkdir(parents=True, exist_ok=True)
        for file in _files(name, incoming):
            file.replace(_folder(name, data_dir) / file.name)


@contextmanager
def incoming_folder(name: str, data_dir: Path) -> Iterator[Path]:
    """A temporary folder in the data folder, into which torchvision downloads.

    Raises:
        ValueError: The download failed.
        OSError: The folder cannot be written.
    """
    made_folder = not data_dir.exists()
    data_dir.mkdir(parents=True, exist_ok=True)
    old_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torchvision itself sets no time-out
    try:
        with TemporaryDirectory(prefix=f".{name}-", dir=data_dir) as incoming:
            yield Path(incoming)
    except (RuntimeError, OSError, EOFError) as error:
        raise ValueError(f"{name} could not be downloaded to {data_dir}: {error}") from error
    finally:
        socket.setdefaulttimeout(old_timeout)
        if made_folder and not any(data_dir.iterdir()):
            data_dir.rmdir()


def _torchvision_class(name: str) -> Any:
    return getattr(import_torchvision_datasets(), _TORCHVISION_NAMES[name])


def _folder(name: str, data_dir: Path) -> Path:
    return data_dir / _TORCHVISION_NAMES[name] / "raw"


def _files(name: str, data_dir: Path) -> list[Path]:
    return [_folder(name, data_dir) / file for file in FILES]


def _read(name: str, file: Path) -> torch.Tensor:
    """Read a file into a tensor, unless it is damaged."""
    magic, shape = FILES[file.name]
    header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
    size = math.prod(shape)
    content = bytearray(file.read_bytes()) if file.is_file() else None
    if damage := _damage(name, file, content, header, size):
        raise ValueError(f"{damage} file of {name}: {file}; delete {file.parent} to have the data set downloaded again")
    return torch.frombuffer(content, dtype=torch.uint8, offset=len(header)).reshape(shape)


def _damage(name: str, file: Path, content: bytearray | None, header: bytes, size: int) -> str | None:
    if content is None:
        return "missing"
    if len(content) < len(header) + size:
        return "truncated"
    md5 = _MD5.get((name, file.name))
    is_valid = (
        content.startswith(header)
        and len(content) == len(header) + size
        and (md5 is None or hashlib.md5(content, usedforsecurity=False).hexdigest() == md5)
        and ("labels" not in file.name or max(content[len(header) :]) <= 9)
    )
    return None if is_valid else "corrupt"
