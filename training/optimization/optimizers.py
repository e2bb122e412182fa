"""The optimizers: those of `torch.optim`, by torch's fused kernels where they give the same numbers in less time."""

from collections.abc import Callable, Iterable
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from training.config import TrialConfig


class FusedOptimizer:
    """A step function of `torch.optim`, fused, and what it is to remember of each parameter.

    The class of `torch.optim` around the same function takes longer, and the first one in a process imports
    `torch._dynamo`, which takes a second and 70 MB.
    """

    def __init__(
        self,
        step_function: Callable[..., object],
        parameters: list[nn.Parameter],
        state: dict[str, list[Tensor]],
        options: dict[str, Any],
    ) -> None:
        """State (no tensors, or one for each parameter) and options are named as the arguments of `step_function`."""
        self._step_function, self._parameters, self._state = step_function, parameters, state
        self.param_groups = [options]

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients; one without a gradient is left alone."""
        has_gradient = [parameter.grad is not None for parameter in self._parameters]
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        fused = not any(gradient.is_sparse for gradient in gradients)  # sgd takes sparse ones unfused, adam none
        state = {name: list(compress(tensors, has_gradient)) for name, tensors in self._state.items()}
        self._step_function(
            list(compress(self._parameters, has_gradient)), gradients, **state, fused=fused, **self.param_groups[0]
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What is remembered of earlier steps."""
        return dict(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what `state_dict` returned."""
        for name, tensors in self._state.items():
            for tensor, saved in zip(tensors, state_dict[name], strict=True):
                tensor.copy_(saved)


Optimizer = FusedOptimizer | torch.optim.Optimizer
"""The learning rate of the next step is `lr` in each of its `param_groups`."""


def build_optimizer(config: TrialConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build the optimizer that `config.optimizer` names; what `config` leaves open is as in `torch.optim`."""
    weights = list(parameters)
    learning_rate, momentum, weight_decay = config.learning_rate, config.momentum, config.weight_decay
    fused = all(map(_has_right_kernel, weights))
    options: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "maximize": False}
    if weights[0].is_cuda and config.lr_schedule != "none":
        # a graph of the step repeats a number, and reads a tensor anew
        options["lr"] = torch.tensor(learning_rate, device=weights[0].device)
    match config.optimizer:
        case "sgd" if fused:
            state = {"momentum_buffer_list": _zeros(weights) if momentum else []}
            options |= {"momentum": momentum, "dampening": 0.0, "nesterov": False}
            return FusedOptimizer(sgd, weights, state, options)
        case "adam" | "adamw" | "rmsprop" as name if fused and not momentum:
            # rmsprop, for which torch has no kernel, is Adam (Kingma & Ba 2015, algorithm 1) whose first moment forgets
            # at once and whose bias correction has become 1, as it has after very many steps
            beta1, beta2, steps = (0.0, 0.99, 1e9) if name == "rmsprop" else (0.9, 0.999, 0.0)
            state = {"exp_avgs": _zeros(weights), "exp_avg_sqs": _zeros(weights), "max_exp_avg_sqs": []}
            state["state_steps"] = [torch.tensor(steps, dtype=torch.float32, device=w.device) for w in weights]
            options |= {"beta1": beta1, "beta2": beta2, "eps": 1e-8, "amsgrad": False}
            return FusedOptimizer(adamw if name == "adamw" else adam, weights, state, options)
        # the others are rare, so torch._dynamo may be imported for them
        case "sgd":
            return torch.optim.SGD(weights, learning_rate, momentum, weight_decay=weight_decay)
        case "adam":
            return torch.optim.Adam(weights, learning_rate, weight_decay=weight_decay)
        case "adamw":
            return torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay)
        case "rmsprop":
            return torch.optim.RMSprop(weights, learning_rate, momentum=momentum, weight_decay=weight_decay)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the next step; where it is a tensor, this one gets another value."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def _has_right_kernel(parameter: nn.Parameter) -> bool:
    # on a CPU, torch 2.13 computes wrong numbers without a word for 16-bit parameters, and where parameter and gradient
    # lie in memory in different orders; autograd gives a contiguous parameter a contiguous gradient
    known = parameter.device.type in ("cpu", "cuda") and parameter.dtype in (torch.float32, torch.float64)
    return known and parameter.is_contiguous()


def _zeros(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [torch.zeros_like(parameter) for parameter in parameters]
