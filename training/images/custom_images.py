"""Images that a function of the user loads, or that a Python program has, checked before a network is trained."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.images.image_folder import TEST_FRACTION, Part, check_classes
from training.images.pixels import ROUNDED, as_pixels, dense_tensor, describe_dtype, stack_items
from training.random_state import seeded
from training.user_code import errors_as_sentences, running

FORMS = "(images, labels), (test_images, test_labels), class_names"


@dataclass(frozen=True)
class _Given:
    """What a function gave, taken apart."""

    training: tuple[Any, Any]
    test: tuple[Any, Any] | None
    names: Any
    """None if the classes have no names."""


def load_by_function(path: str) -> tuple[Part, Part, tuple[str, ...], str | None]:
    """Call a function without arguments that returns `(images, labels), (test_images, test_labels), class_names`.

    Images are NumPy arrays or tensors of shape (N, C, H, W) or (N, H, W), uint8 or real numbers from 0 to 1, labels of
    shape (N,), any type of integer: the index of the class. A data set of torch or torchvision may take the place of
    each pair. Names may be missing. Test images may be missing, too: then they are a fixed random fifth of each class.

    Args:
        path: The import path of the function.

    Returns:
        Training images, test images, the names of the classes, and a note if the images were rounded.

    Raises:
        ValueError: The function does not exist, fails, or returns other data.
    """
    source = f"dataset {path.removeprefix('__main__:')}"  # which a Python program passes
    # seeded: what it draws is the same in each process, for example a split into training and test
    with running("dataset", path) as load, errors_as_sentences(f"{source} failed"), seeded(0):
        given = _take_apart(source, load())
    classes = _class_names(source, given)
    pool, note = _checked(source, "training", *given.training, classes)
    if given.test is None:
        pool, test = _split(source, pool, classes)
        return pool, test, classes, note
    test, test_note = _checked(source, "test", *given.test, classes)
    if pool[0].shape[1:] != test[0].shape[1:]:
        shapes = " and ".join(" x ".join(map(str, part[0].shape[1:])) for part in (pool, test))
        raise ValueError(f"{source} must give training and test images of one shape, got {shapes}")
    return pool, test, classes, note or test_note


def _take_apart(source: str, returned: Any) -> _Given:
    """Tell the forms apart in which data may come, and read data sets of torch."""
    training, test, names = returned, None, None
    if isinstance(returned, tuple | list) and len(returned) == 3:
        training, test, names = returned
    elif isinstance(returned, tuple | list) and len(returned) == 2:
        training, test = returned if all(map(_is_pair, returned)) else (returned, None)
    elif not isinstance(returned, Dataset):
        length = f" of length {len(returned)}" if isinstance(returned, list | tuple) else ""
        raise ValueError(f"{source} must give {FORMS}, got {type(returned).__name__}{length}")
    if names is None:
        names = getattr(training, "classes", None)  # that of a data set of torchvision
    try:
        return _Given(_pair(source, training), None if test is None else _pair(source, test), names)
    except TypeError:
        raise ValueError(f"{source} must give {FORMS}, got {type(returned).__name__}") from None


def _is_pair(part: Any) -> bool:
    return isinstance(part, Dataset) or (isinstance(part, tuple) and len(part) == 2)


def _pair(source: str, part: Any) -> tuple[Any, Any]:
    """The images and the labels of a part."""
    if isinstance(part, Dataset):
        return stack_items(source, part)
    if len(part) != 2:
        raise TypeError
    images, labels = part
    return images, labels


def _class_names(source: str, given: _Given) -> tuple[str, ...]:
    """The names of the classes; without names, the numbers from 0 to the highest label."""
    if given.names is None:
        parts = [given.training, *([given.test] if given.test else [])]
        labels = [_checked_labels(source, "training", labels, None) for _, labels in parts]
        highest = max((int(one.max()) for one in labels if len(one)), default=0)
        check_classes(source, highest + 1)
        return tuple(map(str, range(highest + 1)))
    if isinstance(given.names, Set):
        raise ValueError(f"{source} must give class names in an order, got {type(given.names).__name__}")
    try:
        names = tuple(given.names)
    except TypeError:
        raise ValueError(f"{source} must give {FORMS}, got class names {given.names!r:.40}") from None
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"{source} must give class names that are strings and all different")
    check_classes(source, len(names))
    return names


def _checked(source: str, which: str, images: Any, labels: Any, classes: tuple[str, ...]) -> tuple[Part, str | None]:
    """Images as uint8 (N, C, H, W) with their labels, and a note if the images were rounded."""
    given = dense_tensor(source, f"{which} images", images)
    pixels, is_rounded = as_pixels(f"{source} must give {which} images", given)
    labels = _checked_labels(source, which, labels, len(pixels))
    if not len(pixels):
        raise ValueError(f"{source} gives no {which} images")
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise ValueError(
            f"{source} must give {which} labels from 0 to {len(classes) - 1} for {len(classes)} class names, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    return (pixels, labels), f"{source}: {ROUNDED}" if is_rounded else None


def _checked_labels(source: str, which: str, values: Any, images: int | None) -> Tensor:
    """Labels as int64, as many as there are images."""
    labels = dense_tensor(source, f"{which} labels", values)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{source} must give {which} labels of an integer type, got {describe_dtype(labels)}")
    if labels.dim() != 1 or images not in (None, len(labels)):
        of = "each image" if images is None else f"each of {images} {which} images"
        raise ValueError(f"{source} must give a label for {of}, got shape {tuple(labels.shape)}")
    return labels.to(torch.int64)


def _split(source: str, pool: Part, classes: tuple[str, ...]) -> tuple[Part, Part]:
    """Split the images of each class: a fixed random fifth of them, but at least one, is for the test."""
    images, labels = pool
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(classes):
        members = (labels == label).nonzero().flatten()
        if len(members) == 1:
            raise ValueError(f'{source}: class "{name}" has 1 image; it needs at least 2, one of them for the test')
        order = torch.randperm(len(members), generator=generator)
        is_test[members[order[: max(1, round(len(members) * TEST_FRACTION))]]] = True
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])
