"""Reads a folder of images by class, in the layout of torchvision's `ImageFolder`, into tensors."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from training.console.progress_bar import progress_bar
from training.images.image_file import turn_upright

MAX_CLASSES = 1000
"""More classes are refused: they need other methods, or the folder is the wrong one."""
TEST_FRACTION = 0.2
"""Part of each class for the test set, if there is no folder `test`."""
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"))
"""Suffixes of images: those of torchvision, and `.gif`, so that an animated image is refused and not ignored."""
SPLIT_NAMES = frozenset(("train", "test", "val", "valid", "validation"))

Part = tuple[Tensor, Tensor]
"""Images (N, C, H, W), uint8, and labels (N,), int64."""


def load_image_folder(folder: Path, image_size: int) -> tuple[Part, Part, tuple[str, ...], str | None]:
    """Read a folder that has a folder of images for each class, or such folders in `train` and `test`.

    Images are turned upright by the note of their camera, become white where they are transparent, and are resized to a
    square, whatever their shape. They have three channels, or one if no image of the folder has a colour. Without
    `train` and `test`, a fixed random fifth of each class is the test set.

    Args:
        folder: The folder; classes are its folders, in alphabetical order.
        image_size: Side of the square in pixels.

    Returns:
        Training images, test images, names of the classes, and a note about files that are no images, or None.

    Raises:
        ValueError: An image cannot be read, a class has too few of them, or there are too few or too many classes.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    names = [child.name for child in _folders(folder)]
    if names and set(names) <= SPLIT_NAMES and "train" in names and _folders(folder / "train"):
        if "test" not in names:
            raise ValueError(f"{folder} has train but no test: add one, or give the folder {folder / 'train'} itself")
        train, ignored = _find(folder / "train")
        test, ignored_too = _find(folder / "test")
        if train.keys() != test.keys():
            name = min(train.keys() ^ test.keys())
            here, there = ("train", "test") if name in train else ("test", "train")
            raise ValueError(f'class "{name}" is in {folder / here}, but not in {folder / there}')
        ignored += ignored_too
        notes = [f"{name}/ is left alone" for name in names if name not in ("train", "test")]
    else:
        class_files, ignored = _find(folder)
        train, test = _split(class_files)
        notes = []
    classes = tuple(train)
    files = [[(file, label) for label, name in enumerate(classes) for file in part[name]] for part in (train, test)]
    images = _drop_unused_channels(_read([file for part in files for file, _ in part], image_size))
    labels = torch.tensor([label for part in files for _, label in part])
    first_test = len(files[0])
    if ignored:
        notes.append(f"{ignored[0]} is no image" + (f", nor are {len(ignored) - 1} more" if len(ignored) > 1 else ""))
    pool, rest = (images[:first_test], labels[:first_test]), (images[first_test:], labels[first_test:])
    return pool, rest, classes, "; ".join(notes) or None


def check_classes(source: str, classes: int) -> None:
    """Raise a ValueError for fewer than 2 or more than 1,000 classes."""
    if classes < 2:
        raise ValueError(f"{source} has {classes} class{'' if classes == 1 else 'es'}; there must be 2 at least")
    if classes > MAX_CLASSES:
        raise ValueError(f"{source} has {classes:,} classes; there may be {MAX_CLASSES:,} at most")


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith((".", "__")))


def _find(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """The images of each class, also in folders inside of it, and the other files except hidden ones."""
    class_files: dict[str, list[Path]] = {}
    ignored = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    stray = next((file for file in ignored if file.suffix.lower() in SUFFIXES), None)
    if stray:
        raise ValueError(f"image outside of a class: {stray}; each must be in the folder of its class")
    folders = _folders(folder)
    check_classes(str(folder), len(folders))
    for child in folders:
        files = [file for file in sorted(child.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        class_files[child.name] = [file for file in files if file.suffix.lower() in SUFFIXES]
        ignored += [file for file in files if file.suffix.lower() not in SUFFIXES]
        if not class_files[child.name]:
            raise ValueError(f'class "{child.name}" has no images: {child}')
    return class_files, ignored


def _split(class_files: dict[str, list[Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Split the images of each class; a fixed random fifth, but at least one image, is for the test."""
    train, test = {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, files in class_files.items():
        if len(files) < 2:
            raise ValueError(f'class "{name}" has 1 image; it needs one for training and one for the test at least')
        order = torch.randperm(len(files), generator=generator).tolist()
        test_numbers = set(order[: max(1, round(len(files) * TEST_FRACTION))])
        train[name] = [file for number, file in enumerate(files) if number not in test_numbers]
        test[name] = [files[number] for number in sorted(test_numbers)]
    return train, test


def _read(files: list[Path], image_size: int) -> Tensor:
    """Images of files as a tensor (N, 3, H, W), uint8."""
    images = torch.empty((len(files), 3, image_size, image_size), dtype=torch.uint8)
    with progress_bar("Reading images", len(files)) as show, ThreadPoolExecutor() as threads:
        try:
            for number, pixels in enumerate(threads.map(_reader(image_size), files)):
                images[number] = torch.from_numpy(pixels).permute(2, 0, 1)
                show(number + 1, "")
        finally:
            threads.shutdown(cancel_futures=True)
    return images


def _reader(image_size: int) -> Callable[[Path], np.ndarray]:
    def read(file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                if (
                    getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
                ):  # MPO is a format of cameras, whose further frames are previews
                    raise ValueError(f"animated image, or one of several pages: {file}")
                if image.mode.startswith(("I", "F")):
                    raise ValueError(f"image with more than 8 bits for a pixel: {file}")
                colours = turn_upright(image).convert("RGB")
                return np.array(colours.resize((image_size, image_size), Image.Resampling.BILINEAR))
        except ValueError as error:
            if str(file) in str(error):
                raise
            raise ValueError(f"broken image {file}: {error}") from error
        except Exception as error:  # PIL raises many errors for damaged files
            reason = "it is not the content of an image" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"broken image {file}: {reason}") from error

    return read


def _drop_unused_channels(images: Tensor) -> Tensor:
    """Images with one channel if all are grey, otherwise the same images."""
    red, green, blue = images.unbind(1)
    return images[:, :1].clone() if torch.equal(red, green) and torch.equal(red, blue) else images
