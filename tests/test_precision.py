import pytest
import torch
from torch import Tensor, nn

from training import loop
from training.config import TrialConfig
from training.images.image_data import ImageData, batches
from training.optimization import precision

CPU = torch.device("cpu")


def product_format(config: TrialConfig, device: torch.device = CPU) -> torch.dtype:
    """In which numbers a network would compute its scores."""
    with precision.autocast(config, device):
        return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


@pytest.mark.parametrize(
    ("name", "batch_size", "expected"),
    [
        ("fp32", 512, torch.float32),
        ("bf16", 16, torch.bfloat16),
        ("bf16", 512, torch.bfloat16),
        ("auto", 63, torch.float32),
        ("auto", 64, torch.bfloat16),
    ],
)
def test_precision_decides_the_numbers_of_the_matrix_products(
    monkeypatch: pytest.MonkeyPatch, name: str, batch_size: int, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert product_format(TrialConfig(precision=name, batch_size=batch_size)) == expected  # type: ignore[arg-type]


def test_auto_is_fp32_on_processors_without_bf16_and_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig(precision="auto", batch_size=512)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert product_format(config) == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert product_format(config, torch.device("cuda")) == torch.float32


def test_bf16_trains_fp32_weights_and_learns_64_images_by_heart(few_images: ImageData) -> None:
    config = TrialConfig(learning_rate=1e-3, optimizer="adam", batch_size=16, epochs=40, precision="bf16")
    training = loop.Training(config, few_images)
    for _ in range(config.epochs):
        list(training.train_epoch())
    metrics = training.measure_epoch()
    assert metrics.val_accuracy == 1
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}


def test_bf16_loss_is_that_of_rounded_products(digits: ImageData) -> None:
    """The first loss equals the one of products written out in bfloat16, and differs from the one in float32."""
    training = loop.Training(TrialConfig(precision="bf16", shuffle=False), digits)
    images, labels = next(batches(digits.train, 64))
    expected, exact = (
        nn.functional.cross_entropy(scores(training.model, images, dtype).float(), labels).item()
        for dtype in (torch.bfloat16, torch.float32)
    )
    loss, _ = next(training.train_epoch())
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert loss.item() != pytest.approx(exact, rel=1e-6)


def scores(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    hidden = images.flatten(1).to(dtype)
    *layers, last = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    for layer in layers:
        hidden = nn.functional.linear(hidden, layer.weight.to(dtype), layer.bias.to(dtype)).relu()
    return nn.functional.linear(hidden, last.weight.to(dtype), last.bias.to(dtype))


def test_evaluation_is_in_fp32(digits: ImageData) -> None:
    training = loop.Training(TrialConfig(precision="bf16"), digits)
    list(training.train_epoch())
    exact = nn.functional.cross_entropy(training.model(digits.test.images.float() / 255), digits.test.labels)
    assert training.measure_epoch().test_loss == pytest.approx(exact.item(), rel=1e-6)
