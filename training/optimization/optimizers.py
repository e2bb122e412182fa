"""The optimizers: those of `torch.optim`, by torch's fused kernels where they give the same numbers in less time."""

from collections.abc import Iterable

import torch
from torch import nn

from training.config import TrialConfig


class FusedSGD(torch.optim.SGD):
    """`torch.optim.SGD`, fused, but also for sparse gradients and parameters without a gradient in the first step."""

    def __init__(
        self, parameters: list[nn.Parameter], learning_rate: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, learning_rate, momentum, weight_decay=weight_decay, fused=True)
        self.register_step_pre_hook(_avoid_fused_if_sparse)
        if momentum:
            for parameter in parameters:  # torch.optim makes them one by one; its kernel takes those of all or of none
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class FusedRMSprop(torch.optim.Adam):
    """`torch.optim.RMSprop` without momentum, by Adam's fused kernel; torch has none for RMSprop.

    It is Adam (Kingma & Ba 2015, algorithm 1) whose first moment forgets at once (beta1 = 0) and whose bias correction
    has become 1, as it has after very many steps.
    """

    def __init__(self, parameters: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters, learning_rate, betas=(0.0, 0.99), weight_decay=weight_decay, fused=True)
        for parameter in parameters:
            self.state[parameter] = {
                "step": torch.tensor(1e9, dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


def build_optimizer(config: TrialConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer that `config.optimizer` names; what `config` leaves open is as in `torch.optim`."""
    weights = list(parameters)
    learning_rate, momentum, weight_decay = config.learning_rate, config.momentum, config.weight_decay
    fused = all(map(_has_right_kernel, weights)) or None  # None: as torch.optim chooses
    match config.optimizer:
        case "sgd" if fused:
            return FusedSGD(weights, learning_rate, momentum, weight_decay)
        case "sgd":
            return torch.optim.SGD(weights, learning_rate, momentum, weight_decay=weight_decay)
        case "adam":
            return torch.optim.Adam(weights, learning_rate, weight_decay=weight_decay, fused=fused)
        case "adamw":
            return torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay, fused=fused)
        case "rmsprop" if fused and not momentum:
            return FusedRMSprop(weights, learning_rate, weight_decay)
        case "rmsprop":
            return torch.optim.RMSprop(weights, learning_rate, momentum=momentum, weight_decay=weight_decay)


def _has_right_kernel(parameter: nn.Parameter) -> bool:
    # on a CPU, torch 2.13 computes wrong numbers without a word for 16-bit parameters, and where parameter and gradient
    # lie in memory in different orders; autograd gives a contiguous parameter a contiguous gradient
    known = parameter.device.type in ("cpu", "cuda") and parameter.dtype in (torch.float32, torch.float64)
    return known and parameter.is_contiguous()


def _avoid_fused_if_sparse(optimizer: torch.optim.Optimizer, *_: object) -> None:
    (group,) = optimizer.param_groups
    if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in group["params"]):
        group["fused"] = False
