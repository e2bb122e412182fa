"""Images that a function of the user loads, checked before a network is trained on them."""

from collections.abc import Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.images.image_folder import Part, check_classes
from training.random_state import seeded
from training.user_code import errors_as_sentences, running


def load_by_function(path: str) -> tuple[Part, Part, tuple[str, ...]]:
    """Call a function without arguments that returns `(images, labels), (test_images, test_labels), class_names`.

    Images are NumPy arrays or tensors of shape (N, C, H, W), uint8, labels of shape (N,), any type of integer: the
    index of the class.

    Args:
        path: The import path of the function.

    Returns:
        Training images, test images and the names of the classes.

    Raises:
        ValueError: The function does not exist, fails, or returns other data.
    """
    source = f"dataset {path}"
    # seeded: what it draws is the same in each process, for example a split into training and test
    with running("dataset", path) as load, errors_as_sentences(f"{source} failed"), seeded(0):
        returned = load()
    try:
        (images, labels), (test_images, test_labels), names = returned
        classes = tuple(names)
    except (TypeError, ValueError):
        length = f" of length {len(returned)}" if isinstance(returned, list | tuple) else ""
        raise ValueError(
            f"{source} must return (images, labels), (test_images, test_labels), class_names, "
            f"got {type(returned).__name__}{length}"
        ) from None
    if isinstance(names, Set):
        raise ValueError(f"{source} must return class names in an order, got {type(names).__name__}")
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise ValueError(f"{source} must return class names that are strings and all different")
    check_classes(source, len(classes))
    pool = _checked(source, "training", images, labels, classes)
    test = _checked(source, "test", test_images, test_labels, classes)
    if pool[0].shape[1:] != test[0].shape[1:]:
        shapes = " and ".join(" x ".join(map(str, part[0].shape[1:])) for part in (pool, test))
        raise ValueError(f"{source} must return training and test images of one shape, got {shapes}")
    return pool, test, classes


def _checked(source: str, which: str, images: Any, labels: Any, classes: tuple[str, ...]) -> Part:
    images, labels = _tensor(source, f"{which} images", images), _tensor(source, f"{which} labels", labels)
    if images.dtype != torch.uint8:
        raise ValueError(f"{source} must return {which} images of type uint8, from 0 to 255, got {_name(images.dtype)}")
    if images.dim() != 4 or 0 in images.shape[1:]:
        raise ValueError(f"{source} must return {which} images of shape (N, C, H, W), got {tuple(images.shape)}")
    if images.shape[3] in (1, 3, 4) and images.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"{source} must return {which} images of shape (N, C, H, W), got {tuple(images.shape)}: "
            "its channels seem to be last"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{source} must return {which} labels of an integer type, got {_name(labels.dtype)}")
    if tuple(labels.shape) != (len(images),):
        raise ValueError(f"{source} must return a label for each of {len(images)} {which} images, got {_shape(labels)}")
    if not len(images):
        raise ValueError(f"{source} returns no {which} images")
    labels = labels.to(torch.int64)
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise ValueError(
            f"{source} must return {which} labels from 0 to {len(classes) - 1} for {len(classes)} class names, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    return images.contiguous(), labels


def _tensor(source: str, which: str, values: Any) -> Tensor:
    """A tensor on the CPU that does not share memory with a read-only array."""
    if isinstance(values, Tensor):
        if values.layout is not torch.strided or values.is_quantized or values.is_meta:
            raise ValueError(f"{source} must return {which} as an array or a dense tensor with numbers")
        return values.detach().cpu()
    if isinstance(values, list | tuple | np.ndarray):
        try:
            array = np.asarray(values)
            return torch.tensor(array.astype(array.dtype.newbyteorder("=")))  # torch takes no other order of bytes
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source} returns {which} that are not numbers: {error}") from None
    raise ValueError(f"{source} must return {which} as an array or a tensor, got {type(values).__name__}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(tensor: Tensor) -> str:
    return f"shape {tuple(tensor.shape)}"
