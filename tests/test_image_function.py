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


FORMS = {
    "names are left out": f"return ({IMAGES}, {LABELS}), ({IMAGES}, {LABELS})",
    "test images are left out": f"return {IMAGES}, {LABELS}",
    "one data set": "return torch.utils.data.TensorDataset(torch.full((4, 5, 5), 9 / 255), torch.tensor([0, 1, 1, 0]))",
    "two data sets": f"return 2 * (torch.utils.data.StackDataset(torch.from_numpy({IMAGES}), {LABELS}),)",
    "images as ToTensor makes them": returned(f"{IMAGES} / 255", names="('0', '1')"),
    "grey images without a channel": returned(f"{IMAGES}[:, 0]", names="('0', '1')"),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_the_same_images_are_taken(tmp_path: Path, form: str) -> None:
    data = load(tmp_path, FORMS[form])
    assert (data.classes, data.image_shape) == (("0", "1"), (1, 5, 5))
    for part in (data.train, data.test):
        assert part.images.unique().tolist() == [9]
        assert set(part.labels.tolist()) == {0, 1}
    split = form in ("test images are left out", "one data set")
    assert (len(data.train), len(data.test)) == ((2, 2) if split else (4, 4))


def test_data_set_of_pictures_has_its_classes_and_its_channels_in_order(tmp_path: Path) -> None:
    """That of torchvision: its items are pictures of PIL with their labels."""
    file = tmp_path / "pictures.py"
    file.write_text(
        "from PIL import Image\nfrom torch.utils.data import Dataset\n\n\n"
        "class Pictures(Dataset):\n    classes = ['shirt', 'coat']\n\n"
        "    def __len__(self):\n        return 1500\n\n"
        "    def __getitem__(self, index):\n"
        "        return Image.new('RGB', (4, 3), (1, 2, 3)), index % 2\n\n\n"
        "def load():\n    return Pictures(), Pictures()\n"
    )
    data, note = load_data(DataConfig(dataset=f"{file}:load", val_fraction=0), split_seed=0)
    assert (data.classes, data.image_shape, len(data.train), note) == (("shirt", "coat"), (3, 3, 4), 1500, None)
    assert data.test.images[0, :, 0, 0].tolist() == [1, 2, 3]


def test_images_that_are_rounded_are_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "rounded.py"
    file.write_text("import torch\n\n\ndef load():\n    return torch.full((9, 2, 2), 0.3), torch.arange(9) % 2\n")
    data, note = load_data(DataConfig(dataset=f"{file}:load", val_fraction=0), split_seed=0)
    assert data.train.images.unique().tolist() == [76]
    assert note == f"dataset {file}:load: the images were rounded to whole numbers from 0 to 255"


BAD = {
    "raise RuntimeError('no disk')": "failed: RuntimeError: no disk",
    "return None": "must give (images, labels), (test_images, test_labels), class_names, got NoneType",
    "return 1, 2, 3": "must give (images, labels), (test_images, test_labels), class_names, got tuple",
    returned(names="[1, 2]"): "must give class names that are strings and all different",
    returned(names="['a', 'a']"): "must give class names that are strings and all different",
    returned(names="{'a', 'b'}"): "must give class names in an order, got set",
    "return {1, 2}": "must give (images, labels), (test_images, test_labels), class_names, got set",
    f"return [({IMAGES}, {LABELS})]": "class_names, got list of length 1",
    returned(f"torch.tensor({IMAGES}).to('meta')"): "must give training images as an array or a dense tensor",
    returned(f"torch.tensor({IMAGES}).to_sparse()"): "must give training images as an array or a dense tensor",
    returned(names="['a']"): "has 1 class; there must be at least 2",
    returned(names="[str(n) for n in range(10_000)]"): "has 10,000 classes; at most 1,000 are possible",
    returned(f"{IMAGES} - 9.5"): "or real numbers from 0 to 1, got float64 from -0.5 to -0.5; do not normalise them",
    returned(f"{IMAGES}.astype(np.uint16)"): "of type uint8, from 0 to 255, or real numbers from 0 to 1, got uint16",
    returned(f"{IMAGES}.astype('>i1')"): "of type uint8, from 0 to 255, or real numbers from 0 to 1, got int8",
    returned(labels=f"{LABELS} > 0"): "must give training labels of an integer type, got bool",
    returned(labels=f"{LABELS}.astype(np.uint64) + 2**63"): "must give training labels from 0 to 1 for 2 class names",
    returned(f"{IMAGES}[0, 0]"): "must give training images of shape (N, C, H, W) or (N, H, W), got (5, 5)",
    returned(f"{IMAGES}[:, :, :0]"): "or (N, H, W), got (4, 1, 0, 5)",
    f"return {IMAGES}, [0, 1, 2, 2]": 'class "0" has 1 image; it needs at least 2, one of them for the test',
    f"return {IMAGES}, [0, 0, 0, 0]": "has 1 class; there must be at least 2",
    "return torch.utils.data.TensorDataset(torch.zeros(4))": "a TensorDataset must hold images and labels, got 1 tens",
    "return torch.utils.data.StackDataset(torch.zeros(4))": "must be an image with its label, all of one shape",
    returned(names="7"): "class_names, got class names 7",
    returned("np.zeros((4, 5, 5, 3), np.uint8)"): "got (4, 5, 5, 3): its channels seem to be last",
    returned(f"{IMAGES}[:0]", "[]"): "must give training labels of an integer type, got float64",
    returned(f"{IMAGES}[:0]", f"{LABELS}[:0]"): "gives no training images",
    returned("'images'"): "must give training images as an array or a tensor, got str",
    returned("[[1], [2, 3]]"): "gives training images that are not numbers",
    returned(labels="[0.0, 1.0, 1.0, float('nan')]"): "must give training labels of an integer type, got float64",
    returned(labels="[0, 1]"): "must give a label for each of 4 training images, got shape (2,)",
    returned(labels="[0, 1, 1, 2]"): "must give training labels from 0 to 1 for 2 class names, got 0 to 2",
    returned(labels="[0, 1, 1, -1]"): "must give training labels from 0 to 1 for 2 class names, got -1 to 1",
    returned(labels="[0, 0, 0, 0]"): 'class "b" has 2 images, but none of them is a training image',
    returned(test=f"({IMAGES}[:, :, 1:], {LABELS})"): "must give training and test images of one shape, got 1 x 5 x 5",
    returned(test=f"({IMAGES}, [1, 1, 1, 7])"): "must give test labels from 0 to 1",
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
