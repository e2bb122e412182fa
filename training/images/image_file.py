"""An image file of any kind as the pixels that a network takes."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels: grey, and colour."""

_RUNS_A_PROGRAM = {"EPS"}
"""Kinds of files that Pillow hands to another program."""


def read_image(file: Path, shape: tuple[int, int, int], *, invert: bool = False) -> Tensor:
    """Read an image file, make it grey or colour, and stretch it to a size.

    It is turned as its camera was held; what is transparent becomes white.

    Args:
        file: Of any kind that Pillow reads by itself.
        shape: Channels (1 or 3), height and width.
        invert: Whether dark and light are exchanged.

    Returns:
        The pixels, uint8, of that shape.

    Raises:
        ValueError: It cannot be read, or is no image.
    """
    channels, height, width = shape
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=sorted(Image.OPEN.keys() - _RUNS_A_PROGRAM)) as opened:
                image = upright(_eight_bits(opened)).convert(MODES[channels])
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{file} is no image that can be read") from None
    except Exception as error:  # whatever the damage does to Pillow
        raise ValueError(f"{file} cannot be read: {error or type(error).__name__}") from None
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)  # averages where it makes smaller
    pixels = torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1).contiguous()
    return 255 - pixels if invert else pixels


def has_light_border(pixels: Tensor) -> bool:
    """Whether an image (C, H, W), uint8, is lighter than middle grey along its border."""
    border = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], dim=1)
    return border.double().mean().item() > 127.5


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its camera was held, with white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are fractions, and nobody says which is white")
    if not image.mode.startswith("I"):
        return image
    levels = np.clip(np.asarray(ImageOps.exif_transpose(image)), 0, 65535) // 257  # Pillow would cut 16 bits off at 255
    return Image.fromarray(levels.astype(np.uint8))
