import itertools
import re
from pathlib import Path

import pytest
import torch

from training.config import DataConfig
from training.images.image_data import ImageData, load_data

NUMBERS = itertools.count()


def load(folder: Path, body: str) -> ImageData:
    """What a data set whose function has this body gives."""
    file = folder / f"images_{next(NUMBERS)}.py"  # another one each time: Python keeps what it has imported
    file.write_text(f"import numpy as np\nimport torch\n\n\ndef load():\n    {body}\n")
    return load_data(DataConfig(dataset=f"{file}:load", val_fraction=0), split_seed=0)[0]


IMAGES, LABELS = "np.full((4, 1, 5, 5), 9, dtype=np.uint8)", "np.array([0, 1, 1, 0])"


def returned(
    images: str = IMAGES, labels: str = LABELS, test: str = f"({IMAGES}, {LABELS})", names: str = "'ab'"
) -> str:
    return f"return ({images}, {labels}), {test}, {names}"


@pytest.mark.parametrize("kind", ["arrays", "tensors", "lists", "other integers"])
def test_images_of_a_function_are_taken(tmp_path: Path, kind: str) -> None:
    images = {"tensors": f"torch.from_numpy({IMAGES})"}.get(kind, IMAGES)
    labels = {
        "tensors": "torch.tensor([0, 1, 1, 0])",
        "lists": "[0, 1, 1, 0]",
        "other integers": f"{LABELS}.astype('>u2')",
    }.get(kind, LABELS)
    data = load(tmp_path, returned(images, labels))
    assert re.fullmatch(r"images_\d+", data.name)
    assert (data.classes, data.image_shape) == (("a", "b"), (1, 5, 5))
    assert (data.train.images.unique().tolist(), data.train.labels.tolist()) == ([9], [0, 1, 1, 0])
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)


BAD = {
    "raise RuntimeError('no disk')": "failed: RuntimeError: no disk",
    "return None": "must return (images, labels), (test_images, test_labels), class_names, got NoneType",
    "return 1, 2, 3": "must return (images, labels), (test_images, test_labels), class_names, got tuple",
    returned(names="[1, 2]"): "must return class names that are strings and all different",
    returned(names="['a', 'a']"): "must return class names that are strings and all different",
    returned(names="{'a', 'b'}"): "must return class names in an order, got set",
    f"return ({IMAGES}, {LABELS}), ({IMAGES}, {LABELS})": "class_names, got tuple of length 2",
    returned(f"torch.tensor({IMAGES}).to('meta')"): "must return training images as an array or a dense tensor",
    returned(f"torch.tensor({IMAGES}).to_sparse()"): "must return training images as an array or a dense tensor",
    returned(names="['a']"): "has 1 class; there must be at least 2",
    returned(names="[str(n) for n in range(10_000)]"): "has 10,000 classes; at most 1,000 are possible",
    returned(f"{IMAGES} / 255"): "must return training images of type uint8, from 0 to 255, got float64",
    returned(f"{IMAGES}.astype(np.uint16)"): "must return training images of type uint8, from 0 to 255, got uint16",
    returned(f"{IMAGES}.astype('>i1')"): "must return training images of type uint8, from 0 to 255, got int8",
    returned(labels=f"{LABELS} > 0"): "must return training labels of an integer type, got bool",
    returned(labels=f"{LABELS}.astype(np.uint64) + 2**63"): "must return training labels from 0 to 1 for 2 class names",
    returned(f"{IMAGES}[:, 0]"): "must return training images of shape (N, C, H, W), got (4, 5, 5)",
    returned("np.zeros((4, 5, 5, 3), np.uint8)"): "got (4, 5, 5, 3): its channels seem to be last",
    returned(f"{IMAGES}[:0]", "[]"): "must return training labels of an integer type, got float64",
    returned(f"{IMAGES}[:0]", f"{LABELS}[:0]"): "returns no training images",
    returned("'images'"): "must return training images as an array or a tensor, got str",
    returned("[[1], [2, 3]]"): "returns training images that are not numbers",
    returned(labels="[0.0, 1.0, 1.0, float('nan')]"): "must return training labels of an integer type, got float64",
    returned(labels="[0, 1]"): "must return a label for each of 4 training images, got shape (2,)",
    returned(labels="[0, 1, 1, 2]"): "must return training labels from 0 to 1 for 2 class names, got 0 to 2",
    returned(labels="[0, 1, 1, -1]"): "must return training labels from 0 to 1 for 2 class names, got -1 to 1",
    returned(labels="[0, 0, 0, 0]"): 'class "b" has 2 images, but none of them is a training image',
    returned(
        test=f"({IMAGES}[:, :, 1:], {LABELS})"
    ): "must return training and test images of one shape, got 1 x 5 x 5",
    returned(test=f"({IMAGES}, [1, 1, 1, 7])"): "must return test labels from 0 to 1",
}


@pytest.mark.parametrize("body", BAD)
def test_nonsense_of_a_function_is_refused_in_one_sentence(tmp_path: Path, body: str) -> None:
    with pytest.raises(ValueError, match=re.escape(BAD[body])):
        load(tmp_path, body)


def test_what_a_function_draws_is_always_the_same(tmp_path: Path) -> None:
    drawn = "np.random.randint(0, 256, (4, 1, 5, 5), dtype=np.uint8)"
    first, again = (load(tmp_path, returned(images=drawn)) for _ in range(2))
    assert first.sha256 == again.sha256


def test_function_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.py"
    file.touch()
    with pytest.raises(ValueError, match="has no function load"):
        load_data(DataConfig(dataset=f"{file}:load"), split_seed=0)
