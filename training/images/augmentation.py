"""Random shifts and flips of training images, sampled for an epoch and applied on the device of the images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """The shift and flip of each image of an epoch."""

    shift: int
    """Number of pixels that are added on each side, before an image of the old size is cut out."""
    down: Tensor
    """(N,), int64: row at which the cut begins, from 0 to 2 * shift; `shift` leaves an image where it is."""
    right: Tensor
    """(N,), int64: column at which the cut begins, from 0 to 2 * shift."""
    flipped: Tensor | None
    """(N,), bool; None if no image is flipped."""

    def apply(self, images: Tensor, start: int) -> Tensor:
        """Shift and flip a batch; pixels that come in from outside are 0.

        Args:
            images: (B, C, H, W), of any type.
            start: Number of images of the epoch before the batch.

        Returns:
            Images of the same shape and type.
        """
        chosen = slice(start, start + len(images))
        if self.flipped is not None:
            images = torch.where(self.flipped[chosen, None, None, None], images.flip(3), images)
        if not self.shift:
            return images
        height, width = images.shape[2:]
        padded = functional.pad(images, (self.shift,) * 4)
        cuts = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (B, C, 2 * shift + 1, 2 * shift + 1, H, W)
        numbers = torch.arange(len(images), device=images.device)
        return cuts[numbers, :, self.down[chosen], self.right[chosen]]


def sample_augmentation(
    num_images: int, shift: int, *, flip: bool, generator: torch.Generator, device: torch.device
) -> Augmentation:
    """Sample the shifts and flips of an epoch.

    Args:
        num_images: Number of images in the epoch.
        shift: Largest shift in pixels, in each direction; all from -shift to shift are equally probable.
        flip: Whether each image is mirrored with probability 1/2.
        generator: A generator on the CPU, so that the numbers are the same on every device.
        device: Device of the images.
    """
    down, right = torch.randint(0, 2 * shift + 1, (2, num_images), generator=generator).to(device)
    flipped = torch.randint(0, 2, (num_images,), generator=generator).to(device).bool() if flip else None
    return Augmentation(shift, down, right, flipped)
