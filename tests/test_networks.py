import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training import loop
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.networks.network_config import config_type
from training.networks.networks import build_network


def test_convolutional_network_takes_images_of_any_size_and_colour() -> None:
    for shape in ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 1, 5)):
        assert build_network(TrialConfig(network="cnn"), shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_order_in_memory_changes_no_step_of_the_convolutional_network(digits: ImageData, optimizer: str) -> None:
    """The fused kernels go through weights and gradients as they lie in memory, so both have to lie alike."""
    options: Any = {"network": "cnn", "optimizer": optimizer, "learning_rate": 0.01, "dropout": 0.0}
    config = config_type("cnn")(**options)
    training = loop.Training(config, digits)
    plain = build_network(config, digits.image_shape, 10).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain.load_state_dict(training.model.state_dict())
    own = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](plain.parameters(), lr=0.01, foreach=False)
    assert any(
        parameter.is_contiguous(memory_format=torch.channels_last) and not parameter.is_contiguous()
        for parameter in training.model.parameters()
        if parameter.dim() == 4
    )
    split = dataclasses.replace(digits.train, images=digits.train.images[:500], labels=digits.train.labels[:500])
    batches = [
        (images / 255, labels) for images, labels in zip(split.images.split(50), split.labels.split(50), strict=True)
    ]
    for model, optimizer_of in ((training.model, training.optimizer), (plain, own)):
        for _ in loop.train_loop(batches, model, nn.CrossEntropyLoss(), optimizer_of, training.autocast):
            pass
    for ours, theirs in zip(training.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_network_that_takes_no_float32_is_refused_whatever_its_file_makes_the_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\ntorch.set_default_dtype(torch.float64)\n\n\n"
        "def build(config, shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    network, before = f"{file}:build", torch.get_default_dtype()
    try:
        with pytest.raises(ValueError, match=r"cannot take images of 1 x 8 x 8: RuntimeError: .* Float and Double"):
            build_network(TrialConfig(network=network), (1, 8, 8), 10)
    finally:
        torch.set_default_dtype(before)


def test_convolutional_network_learns_the_digits(digits: ImageData) -> None:
    config = TrialConfig(network="cnn", optimizer="adam", batch_size=32, epochs=4)
    *_, last = loop.train(config, digits)
    assert last.test_accuracy > 0.95


BY_NAME = """
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden: int = 8, dropout=0.0, norm=None, *, classes, input_shape):
        super().__init__()
        channels, height, width = input_shape
        inputs = channels * height * width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.Linear(hidden, classes))

    def forward(self, images):
        return self.layers(images)

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_network_takes_its_hyperparameters_by_name(tmp_path: Path) -> None:
    file = tmp_path / "by_name.py"
    file.write_text(BY_NAME)
    path = f"{file}:Net"
    kind = config_type(path)
    assert kind is config_type(path)
    own = {field.name for field in dataclasses.fields(kind)} - {field.name for field in dataclasses.fields(TrialConfig)}
    assert own == {"hidden", "dropout"}
    network = build_network(kind(network=path, hidden=3), (1, 8, 8), 7)  # type: ignore[call-arg]
    assert [tuple(weights.shape) for weights in network.parameters()] == [(3, 64), (3,), (7, 3), (7,)]
    assert config_type(f"{file}:fixed") is TrialConfig
    assert build_network(TrialConfig(network=f"{file}:fixed"), (1, 8, 8), 10)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
