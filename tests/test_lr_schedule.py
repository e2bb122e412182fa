from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from training.optimization.lr_schedule import learning_rate_at


def torchs_own(schedule: str, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler: Any = (
        CosineAnnealingLR(optimizer, T_max=steps)
        if schedule == "cosine"
        else OneCycleLR(optimizer, max_lr=0.3, total_steps=steps, cycle_momentum=False)
    )
    sizes = []
    for step in range(steps):
        sizes.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return sizes


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 97, 1000])
def test_step_sizes_equal_torchs_own(schedule: Any, steps: int) -> None:
    ours = [learning_rate_at(schedule, 0.3, step, steps) for step in range(steps)]
    assert ours == pytest.approx(torchs_own(schedule, steps), rel=1e-9, abs=1e-12)


def test_without_a_schedule_the_step_size_is_the_learning_rate() -> None:
    assert {learning_rate_at("none", 0.1, step, 10) for step in range(10)} == {0.1}
