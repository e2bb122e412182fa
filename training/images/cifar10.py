"""CIFAR-10: torchvision's files, whose checksums are compared before the files are read."""

from pathlib import Path

import torch

from training.images.image_folder import Part
from training.images.mnist import incoming_folder
from training.images.torchvision_import import import_torchvision_datasets

FOLDER = "cifar-10-batches-py"


def is_present(data_dir: Path) -> bool:
    """Whether the folder of the data set exists, also a damaged one."""
    return (data_dir / FOLDER).exists()


def load(data_dir: Path) -> tuple[Part, Part, tuple[str, ...]]:
    """Read CIFAR-10, and download it first if it is absent.

    Returns:
        Training images (50,000, 3, 32, 32), test images (10,000, 3, 32, 32) and the names of the classes.

    Raises:
        ValueError: A file is missing or corrupt, or the download failed.
        OSError: The folder cannot be read or written.
    """
    dataset = import_torchvision_datasets().CIFAR10
    if not is_present(data_dir):
        with incoming_folder("cifar10", data_dir) as incoming:
            dataset(incoming, download=True)  # compares the checksums of the archive
            (incoming / FOLDER).replace(data_dir / FOLDER)
    try:
        train, test = dataset(data_dir, train=True), dataset(data_dir, train=False)
    except RuntimeError:  # torchvision raises this if a checksum differs
        damaged = data_dir / FOLDER
        raise ValueError(
            f"missing or corrupt file of cifar10 in {damaged}; delete {damaged} to have the data set downloaded again"
        ) from None
    pool, rest = (
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    )
    return pool, rest, tuple(train.classes)
