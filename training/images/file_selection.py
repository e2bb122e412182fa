"""Chooses the image files of a folder, for training and for prediction alike, and says what is left out and why."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from training.console.terminal import printable

_NOT_READ_ALONE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow recognises, but reads only with another program, or not at all."""
_OF_A_SYSTEM = frozenset(
    ("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "#recycle", "@eadir")
)
"""Names in lower case of files and folders that operating systems and network drives add."""

LeftOut = list[tuple[str, Path]]
"""The reason why a file is left out, and the file."""


@cache
def image_formats() -> list[str]:
    """The names in Pillow of all formats that it reads here without another program."""
    Image.init()
    return sorted(Image.OPEN.keys() - _NOT_READ_ALONE)


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of files in these formats, in lower case."""
    formats = {*image_formats(), "MPO"}  # an MPO file is a JPEG file with previews
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder, and links to folders, but hidden ones and those that a system added."""
    return sorted(child for child in folder.iterdir() if not _is_hidden(child.name) and child.is_dir())


def select_images(folder: Path) -> tuple[list[Path], LeftOut]:
    """Choose the image files in a folder and in the folders inside of it; links are followed, as in torchvision.

    Returns:
        The image files, and the files that are left out. Hidden files that are no images are not mentioned.

    Raises:
        OSError: A folder cannot be read.
    """
    images: list[Path] = []
    left_out: LeftOut = []
    for file, is_hidden in sorted(_walk(folder)):
        is_image = file.suffix.lower() in image_suffixes()
        if is_hidden:
            left_out += [("hidden, or added by an operating system", file)] if is_image else []
        elif not file.is_file():
            left_out.append(("not a regular file, or a link to nothing or to a folder above it", file))
        elif is_image:
            images.append(file)
        else:
            left_out.append(("not an image format that can be read here", file))
    return images, left_out


def describe_left_out(left_out: LeftOut) -> list[str]:
    """A sentence for each reason why files are left out, with their number and the first of them."""
    sentences = []
    for reason in dict.fromkeys(why for why, _ in left_out):
        first, *others = (file for why, file in left_out if why == reason)
        number = f"{len(others) + 1:,} files are" if others else "1 file is"
        sentences.append(f"{number} left out ({reason}): {printable(str(first))}{' and others' if others else ''}")
    return sentences


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_A_SYSTEM


def _walk(folder: Path, above: tuple[str, ...] = (), *, hidden: bool = False) -> Iterator[tuple[Path, bool]]:
    """All files below a folder, links that lead back to a folder above, and whether each of them is hidden."""
    here = (*above, os.path.realpath(folder))
    for child in folder.iterdir():
        is_hidden = hidden or _is_hidden(child.name)
        if child.is_dir() and os.path.realpath(child) not in here:
            yield from _walk(child, here, hidden=is_hidden)
        else:
            yield child, is_hidden
