import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from training.config import TrialConfig
from training.optimization.optimizers import Optimizer, build_optimizer

TORCH_OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def weights_after_steps(optimizer_of: Any, steps: int = 20) -> list[torch.Tensor]:
    """The weights of two layers after steps along made-up gradients, which depend on the weights."""
    weights = [nn.Parameter(torch.linspace(-1, 1, 50)), nn.Parameter(torch.ones(2, 3))]
    optimizer: Optimizer = optimizer_of(weights)
    for step in range(steps):
        for parameter in weights:
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
        optimizer.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in weights)
    return [parameter.detach() for parameter in weights]


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize(
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
def test_steps_equal_torchs_own(config: TrialConfig, weight_decay: float) -> None:
    config = dataclasses.replace(config, weight_decay=weight_decay)
    options = {"lr": config.learning_rate, "weight_decay": weight_decay, "foreach": False}
    if config.momentum:
        options["momentum"] = config.momentum
    ours = weights_after_steps(lambda weights: build_optimizer(config, weights))
    theirs = weights_after_steps(lambda weights: TORCH_OPTIMIZERS[config.optimizer](weights, **options))
    unchanged = weights_after_steps(lambda weights: build_optimizer(config, weights), steps=0)
    for our, their, start in zip(ours, theirs, unchanged, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-6)
        assert (our - start).abs().max() > 0.1


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_parameter_without_gradient_is_left_alone(name: Any) -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))
    optimizer = build_optimizer(TrialConfig(optimizer=name, learning_rate=0.1, weight_decay=0.1), [unused, used])
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(4))
    assert (used < 0.95).all()
