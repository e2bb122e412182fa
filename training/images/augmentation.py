"""Random shifts and flips of training images, drawn for an epoch at a time and made where the images lie."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image of one epoch."""

    shift: int
    """Pixels that are added on each side, before an image of the old size is cut out."""
    down: Tensor
    """(N,), int64: row at which the cut begins, from 0 to 2 * shift; `shift` leaves an image where it is."""
    right: Tensor
    """(N,), int64: the same for the column."""
    flipped: Tensor | None
    """(N,), bool; None if none is."""

    def apply(self, images: Tensor, start: int) -> Tensor:
        """Shift and flip a batch; pixels that come in from outside are 0.

        Args:
            images: (B, C, H, W), of any type.
            start: How many images of the epoch came before.

        Returns:
            As `images`.
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


def draw_augmentation(
    num_images: int, shift: int, *, flip: bool, generator: torch.Generator, device: torch.device
) -> Augmentation:
    """Draw what is done to the images of one epoch.

    Args:
        num_images: Images in the epoch.
        shift: Largest shift in pixels, in each direction; all from -shift to shift are equally probable.
        flip: Whether each image is mirrored with probability 1/2.
        generator: On the CPU, so that the same numbers come on every device.
        device: Where the images lie.
    """
    down, right = torch.randint(0, 2 * shift + 1, (2, num_images), generator=generator).to(device)
    flipped = torch.randint(0, 2, (num_images,), generator=generator).to(device).bool() if flip else None
    return Augmentation(shift, down, right, flipped)
