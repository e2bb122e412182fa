"""Reads an image file of any format into the pixels for a network."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from training.images.file_selection import image_formats

MODES = {1: "L", 3: "RGB"}
"""Names in Pillow of images by number of channels: grey and colour."""


def read_image(file: Path, shape: tuple[int, int, int], *, invert: bool = False) -> Tensor:
    """Read an image file, convert it to grey or colour, turn it upright, and stretch it to a size.

    Args:
        file: A file in a format that Pillow reads without another program.
        shape: Channels (1 or 3), height and width.
        invert: Whether dark and light are exchanged.

    Returns:
        The pixels, uint8, of this shape; transparent pixels are white. A ValueError says that there is no image.
    """
    if file.is_fifo():
        raise ValueError(f"{file} is a pipe, not a file")
    channels, height, width = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=image_formats()) as opened:
                image = turn_upright(_convert_to_8_bits(opened)).convert(MODES[channels])
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{file} cannot be read as an image") from None
    except Exception as error:  # Pillow raises many errors for damaged files
        raise ValueError(f"{file} cannot be read: {error or type(error).__name__}") from None
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)  # averages pixels when it shrinks the image
    pixels = torch.from_numpy(np.array(image)).reshape(height, width, channels).permute(2, 0, 1).contiguous()
    return 255 - pixels if invert else pixels


def has_light_border(pixels: Tensor) -> bool:
    """Whether an image (C, H, W), uint8, is lighter than middle grey along its border."""
    border = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], dim=1)
    return border.double().mean().item() > 127.5


def turn_upright(image: Image.Image) -> Image.Image:
    """An image turned by the note of its camera, with white instead of transparency."""
    image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def _convert_to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, and it does not say which number is white")
    if not image.mode.startswith("I"):
        return image
    levels = np.clip(np.asarray(ImageOps.exif_transpose(image)), 0, 65535) // 257  # Pillow would clip 16 bits at 255
    return Image.fromarray(levels.astype(np.uint8))
