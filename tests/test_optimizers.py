import dataclasses
import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config import TrialConfig
from training.optimization.optimizers import Optimizer, build_optimizer

TORCH_OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


CONFIGS = pytest.mark.parametrize(
    "config",
    [
        TrialConfig(optimizer="sgd", learning_rate=0.05),
        TrialConfig(optimizer="sgd", learning_rate=0.05, momentum=0.9),
        TrialConfig(optimizer="adam", learning_rate=0.05),
        TrialConfig(optimizer="adamw", learning_rate=0.05),
        TrialConfig(optimizer="rmsprop", learning_rate=0.05),
        TrialConfig(optimizer="rmsprop", learning_rate=0.05, momentum=0.5),
    ],
    ids=lambda config: f"{config.optimizer}-{config.momentum}",
)


def line(dtype: torch.dtype) -> Tensor:
    return torch.linspace(-1, 1, 54).to(dtype)


WEIGHTS: dict[str, Callable[[], list[Tensor]]] = {
    "two layers": lambda: [line(torch.float32), torch.ones(2, 3)],
    "float64": lambda: [line(torch.float64)],
    "bfloat16": lambda: [line(torch.bfloat16)],
    "float16": lambda: [line(torch.float16)],
    "complex": lambda: [line(torch.complex64) * (1 + 2j)],
    "float64 and float32": lambda: [line(torch.float64), line(torch.float32)],
    "bfloat16 and float32": lambda: [line(torch.bfloat16), line(torch.float32)],
    "with gaps in memory": lambda: [line(torch.float32).view(6, 9)[:, ::2]],
    "channels last": lambda: [line(torch.float32).view(2, 3, 3, 3).to(memory_format=torch.channels_last)],
}


def parameters(kind: str) -> list[nn.Parameter]:
    return [nn.Parameter(weights) for weights in WEIGHTS[kind]()]


def torchs_own(config: TrialConfig, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The reference: each parameter for itself, one operation after the other."""
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "foreach": False}
    if config.momentum:
        options["momentum"] = config.momentum
    optimizer: torch.optim.Optimizer = TORCH_OPTIMIZERS[config.optimizer](weights, **options)
    return optimizer


def take_steps(optimizer: Optimizer, weights: list[nn.Parameter], steps: int = 20) -> None:
    """Steps along made-up gradients, which depend on the weights."""
    for step in range(steps):
        for parameter in weights:
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
        optimizer.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in weights)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@CONFIGS
def test_steps_equal_torchs_own(config: TrialConfig, weight_decay: float) -> None:
    config = dataclasses.replace(config, weight_decay=weight_decay)
    ours, theirs = parameters("two layers"), parameters("two layers")
    take_steps(build_optimizer(config, ours), ours)
    take_steps(torchs_own(config, theirs), theirs)
    for our, their, start in zip(ours, theirs, parameters("two layers"), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)
        assert (our - start).abs().max() > 0.1


@pytest.mark.parametrize("kind", WEIGHTS)
@CONFIGS
def test_parameters_of_every_type_get_the_numbers_of_torchs_own(config: TrialConfig, kind: str) -> None:
    """In 16 bits also to the last one: there, another order of the same operations gives other numbers."""
    config = dataclasses.replace(config, weight_decay=1e-2)
    ours, theirs = parameters(kind), parameters(kind)
    take_steps(build_optimizer(config, ours), ours)
    take_steps(torchs_own(config, theirs), theirs)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12}
    for our, their in zip(ours, theirs, strict=True):  # both not numbers where eps is too small for float16
        torch.testing.assert_close(our, their, rtol=0, atol=tolerance.get(our.dtype, 0), equal_nan=True)


@pytest.mark.parametrize("kind", ["two layers", "bfloat16"])
@CONFIGS
def test_steps_go_on_from_a_saved_state(config: TrialConfig, kind: str) -> None:
    throughout, interrupted = parameters(kind), parameters(kind)
    optimizer = build_optimizer(config, throughout)
    take_steps(optimizer, throughout, 5)
    take_steps(optimizer, throughout, 5)
    optimizer = build_optimizer(config, interrupted)
    take_steps(optimizer, interrupted, 5)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer = build_optimizer(config, interrupted)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    take_steps(optimizer, interrupted, 5)
    assert all(map(torch.equal, throughout, interrupted))


@CONFIGS
def test_parameter_may_have_its_first_gradient_late(config: TrialConfig) -> None:
    ours, theirs = parameters("two layers"), parameters("two layers")
    for optimizer, weights in ((build_optimizer(config, ours), ours), (torchs_own(config, theirs), theirs)):
        take_steps(optimizer, weights[:1], 3)
        take_steps(optimizer, weights, 3)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_sparse_gradients(momentum: float) -> None:
    config = TrialConfig(optimizer="sgd", learning_rate=0.05, momentum=momentum)
    tables = [nn.Embedding(5, 3, _weight=torch.ones(5, 3), sparse=True) for _ in range(2)]
    for table, build in zip(tables, (build_optimizer, torchs_own), strict=True):
        optimizer = build(config, list(table.parameters()))
        for rows in ([0, 1, 1], [1, 4], [0]):
            table(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(tables[0].weight, tables[1].weight)
    assert (tables[0].weight != 1).any(dim=1).tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_others_stop_at_sparse_gradients(name: Any) -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = build_optimizer(TrialConfig(optimizer=name), table.parameters())
    table(torch.tensor([0, 1])).sum().backward()
    with pytest.raises(RuntimeError, match="Sparse"):
        optimizer.step()


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_parameter_without_gradient_is_left_alone(name: Any) -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))
    optimizer = build_optimizer(TrialConfig(optimizer=name, learning_rate=0.1, weight_decay=0.1), [unused, used])
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(4))
    assert (used < 0.95).all()


def test_training_does_not_import_torchs_compiler() -> None:
    """It would take each process that trains a second and 70 MB."""
    program = f"""
import sys
from training.config import DataConfig, TrialConfig
from training.images.image_data import load_data
from training.loop import train

digits, _ = load_data(DataConfig(dataset="digits"), split_seed=0)
for name in {list(TORCH_OPTIMIZERS)}:
    list(train(TrialConfig(optimizer=name, batch_size=300, epochs=1), digits))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
