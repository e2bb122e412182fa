"""Search on images of your own: here a triangle or a square somewhere in 12 x 12 pixels of noise.

    python search/run.py --dataset examples/own_data.py:load

A folder with a folder of image files for each class needs no code: `--dataset path/to/folder`.
"""

import numpy as np
from numpy.typing import NDArray

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load() -> tuple[Part, Part, list[str]]:
    """Training images (N, C, H, W), uint8, and labels (N,); test images and labels; the names of the classes."""
    random = np.random.default_rng(0)
    return _sample(800, random), _sample(200, random), ["square", "triangle"]


def _sample(number: int, random: np.random.Generator) -> Part:
    images = random.integers(0, 100, size=(number, 1, 12, 12), dtype=np.uint8)
    labels = random.integers(0, 2, size=number)
    shapes = (np.ones((6, 6), np.uint8), np.tril(np.ones((6, 6), np.uint8)))
    for image, label in zip(images, labels, strict=True):
        row, column = random.integers(0, 6, size=2)
        image[0, row : row + 6, column : column + 6] += 90 * shapes[label]
    return images, labels
