"""Turns the images of a user's arrays, tensors and data sets into pixels: uint8 tensors of shape (N, C, H, W)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from training.console.progress_bar import progress_bar

CHANNELS = (1, 3, 4)
ROUNDED = "the images were rounded to whole numbers from 0 to 255"
CHUNK = 1000
"""Number of items of a data set that are stacked at a time, so that not all are in memory as real numbers."""


def as_pixels(rule: str, images: Tensor) -> tuple[Tensor, bool]:
    """Images as uint8 of shape (N, C, H, W), and whether rounding has changed them.

    Args:
        rule: The beginning of the sentence that refuses them, for example "dataset must give images".
        images: Of shape (N, C, H, W) or (N, H, W), uint8, or real numbers from 0 to 1 as `ToTensor` makes them.

    Raises:
        ValueError: They have another shape, type or range.
    """
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4 or 0 in images.shape[1:]:
        raise ValueError(f"{rule} of shape (N, C, H, W) or (N, H, W), got {tuple(images.shape)}")
    if images.shape[3] in CHANNELS and images.shape[1] not in CHANNELS:
        raise ValueError(
            f"{rule} of shape (N, C, H, W) or (N, H, W), got {tuple(images.shape)}: its channels seem to be last"
        )
    if images.dtype == torch.uint8:
        return images.contiguous(), False
    types = f"{rule} of type uint8, from 0 to 255, or real numbers from 0 to 1"
    if not images.is_floating_point():
        raise ValueError(f"{types}, got {describe_dtype(images)}")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        low, high = images.min().item(), images.max().item()
        raise ValueError(f"{types}, got {describe_dtype(images)} from {low:.3g} to {high:.3g}; do not normalise them")
    scaled = images * 255
    pixels = scaled.round()
    return pixels.to(torch.uint8).contiguous(), bool(((scaled - pixels).abs() > 0.01).any())


def stack_items(source: str, data: "Dataset[Any]") -> tuple[Any, Tensor]:
    """The images and the labels of a data set of torch, each item of which is an image with its label.

    Raises:
        ValueError: Its items are something else, or its length is unknown.
    """
    if isinstance(data, TensorDataset):
        if len(data.tensors) != 2:
            raise ValueError(f"{source}: a TensorDataset must hold images and labels, got {len(data.tensors)} tensors")
        return data.tensors
    chunks: list[Tensor] = []
    waiting: list[Tensor] = []
    labels: list[int] = []
    try:
        items = len(data)  # type: ignore[arg-type]
        with progress_bar("Reading images", items) as show:
            for index in range(items):
                image, label = data[index]
                waiting.append(_item(image))
                labels.append(int(label))
                if len(waiting) == CHUNK or index + 1 == items:
                    chunks.append(_exact_pixels(torch.stack(waiting)))
                    waiting = []
                    show(index + 1, "")
        return torch.cat(chunks) if chunks else torch.empty(0, 1, 1, 1), torch.tensor(labels, dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source}: each item of a data set must be an image with its label, all of one shape: {error}"
        ) from None


def _exact_pixels(images: Tensor) -> Tensor:
    """The same images as uint8, if this changes none of them; otherwise as they are."""
    try:
        pixels, is_rounded = as_pixels("", images)
    except ValueError:  # it is said later which rule they break
        return images
    return images if is_rounded else pixels


def _item(image: Any) -> Tensor:
    """An image (C, H, W) or (H, W) of a data set; a picture of PIL has its channels last."""
    if isinstance(image, Tensor):
        return image.detach().cpu()
    pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1) if hasattr(image, "getbands") and pixels.dim() == 3 else pixels


def dense_tensor(source: str, which: str, values: Any) -> Tensor:
    """A tensor on the CPU that does not share memory with a read-only array; a ValueError refuses other values."""
    if isinstance(values, Tensor):
        if values.layout is not torch.strided or values.is_quantized or values.is_meta:
            raise ValueError(f"{source} must give {which} as an array or a dense tensor with numbers")
        return values.detach().cpu()
    if isinstance(values, list | tuple | np.ndarray):
        try:
            array = np.asarray(values)
            return torch.tensor(array.astype(array.dtype.newbyteorder("=")))  # torch takes no other order of bytes
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source} gives {which} that are not numbers: {error}") from None
    raise ValueError(f"{source} must give {which} as an array or a tensor, got {type(values).__name__}")


def describe_dtype(tensor: Tensor) -> str:
    """The type of the numbers of a tensor, for a sentence."""
    return str(tensor.dtype).removeprefix("torch.")
