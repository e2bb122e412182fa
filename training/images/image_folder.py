"""Reads a folder of images by class, in the layout of torchvision's `ImageFolder`, into tensors."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from training.console.progress_bar import progress_bar
from training.images.file_selection import (
    LeftOut,
    describe_left_out,
    image_formats,
    select_images,
    visible_folders,
)
from training.images.folder_layout import check_no_parts_inside, find_parts
from training.images.image_file import turn_upright

MAX_CLASSES = 1000
"""More classes are refused: they need other methods, or the folder is the wrong one."""
TEST_FRACTION = 0.2
"""Part of each class for the test set, if there is no folder `test`."""

Part = tuple[Tensor, Tensor]
"""Images (N, C, H, W), uint8, and labels (N,), int64."""


def load_image_folder(folder: Path, image_size: int) -> tuple[Part, Part, tuple[str, ...], str | None]:
    """Read a folder that has a folder of images for each class, or such folders in parts for training and test.

    Images are turned upright by the note of their camera, become white where they are transparent, and are resized to a
    square, whatever their shape. They have three channels, or one if no image of the folder has a colour. Without
    `train` and `test`, a fixed random fifth of each class is the test set.

    Args:
        folder: The folder; classes are its folders, in alphabetical order.
        image_size: Side of the square in pixels.

    Returns:
        Training images, test images, names of the classes, and a note about files that are left out, or None.

    Raises:
        ValueError: An image cannot be read, a class has too few of them, or there are too few or too many classes.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    parts = find_parts(folder)
    roots = [parts.train, parts.test] if parts else [folder]
    for root in roots:
        _check_folders(root)
    images, left_out = select_images(folder)
    outside = [file for file in images if not any(_below(root, file) for root in roots)]
    left_out += [("neither in the training folder nor in the test folder", file) for file in outside]
    train, *tests = (_by_class(root, images, left_out) for root in roots)
    if tests:
        (test,) = tests
        if train.keys() != test.keys():
            name = min(train.keys() ^ test.keys())
            here, there = roots if name in train else reversed(roots)
            raise ValueError(f'class "{name}" is in {here}, but not in {there}')
    else:
        train, test = _split(train)
    classes = tuple(train)
    files = [[(file, label) for label, name in enumerate(classes) for file in part[name]] for part in (train, test)]
    pixels = _drop_unused_channels(_read([file for part in files for file, _ in part], image_size))
    labels = torch.tensor([label for part in files for _, label in part])
    first_test = len(files[0])
    pool, rest = (pixels[:first_test], labels[:first_test]), (pixels[first_test:], labels[first_test:])
    return pool, rest, classes, "; ".join(describe_left_out(left_out)) or None


def check_classes(source: str, classes: int) -> None:
    """Raise a ValueError for fewer than 2 or more than 1,000 classes."""
    if classes < 2:
        raise ValueError(f"{source} has {classes} class{'' if classes == 1 else 'es'}; there must be at least 2")
    if classes > MAX_CLASSES:
        raise ValueError(f"{source} has {classes:,} classes; at most {MAX_CLASSES:,} are possible")


def _check_folders(root: Path) -> None:
    """Refuse too few and too many folders of classes."""
    folders = visible_folders(root)
    if len(folders) == 1 and visible_folders(folders[0]):
        raise ValueError(f"{root} has 1 class; if the classes are in {folders[0]}, give that folder")
    check_classes(str(root), len(folders))


def _by_class(root: Path, images: list[Path], left_out: LeftOut) -> dict[str, list[Path]]:
    """The images of each class, whose folder is in `root`; images may be in folders inside of it."""
    class_files: dict[str, list[Path]] = {folder.name: [] for folder in visible_folders(root)}
    for file in images:
        below = _below(root, file)
        if len(below) == 1:
            raise ValueError(f"image outside all classes: {file}; each image must be in the folder of its class")
        if below:
            class_files[below[0]].append(file)
    for name, files in class_files.items():
        check_no_parts_inside(root / name, files)
        if not files:
            reasons = describe_left_out([(why, file) for why, file in left_out if _below(root / name, file)])
            raise ValueError("; ".join([f'class "{name}" has no images: {root / name}', *reasons]))
    return class_files


def _below(root: Path, file: Path) -> tuple[str, ...]:
    """The parts of a file's path below a folder; none if the file is not in it. Faster than `Path.relative_to`."""
    depth = len(root.parts)
    return file.parts[depth:] if file.parts[:depth] == root.parts else ()


def _split(class_files: dict[str, list[Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Split the images of each class; a fixed random fifth, but at least one image, is for the test."""
    train, test = {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, files in class_files.items():
        if len(files) < 2:
            raise ValueError(f'class "{name}" has 1 image; it needs at least 2, one for training and one for the test')
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
            with Image.open(file, formats=image_formats()) as image:
                if (
                    getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
                ):  # MPO is a format of cameras, whose further frames are previews
                    raise ValueError(f"image with several frames or pages: {file}")
                if image.mode.startswith(("I", "F")):
                    raise ValueError(f"image with more than 8 bits per channel: {file}")
                colours = turn_upright(image).convert("RGB")
                return np.array(colours.resize((image_size, image_size), Image.Resampling.BILINEAR))
        except ValueError as error:
            if str(file) in str(error):
                raise
            raise ValueError(f"broken image {file}: {error}") from error
        except Exception as error:  # PIL raises many errors for damaged files
            reason = "its content is not that of an image" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"broken image {file}: {reason}") from error

    return read


def _drop_unused_channels(images: Tensor) -> Tensor:
    """Images with one channel if all are grey, otherwise the same images."""
    red, green, blue = images.unbind(1)
    return images[:, :1].clone() if torch.equal(red, green) and torch.equal(red, blue) else images
