"""The optimizers: torch's fused kernels, called without the Python around them, which takes longer than they do."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training.config import TrialConfig

Tensors = list[Tensor]


class Optimizer(Protocol):
    """What a training loop needs of an optimizer."""

    learning_rate: float
    """Step size of the next step."""

    def step(self) -> object:
        """Change the parameters by their gradients."""

    def zero_grad(self) -> object:
        """Forget the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """What the optimizer remembers of earlier steps, as tensors in plain containers."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Remember what `state_dict` returned."""


class _Fused:
    """Parameters and what a kernel remembers of each; one without a gradient is left alone, as in `torch.optim`."""

    state_names: tuple[str, ...] = ()

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters: Tensors = list(parameters)

    def state_dict(self) -> dict[str, Any]:
        """What the optimizer remembers of earlier steps."""
        return {name: getattr(self, name) for name in self.state_names}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what `state_dict` returned."""
        for name in self.state_names:
            for tensor, saved in zip(getattr(self, name), state_dict[name], strict=True):
                tensor.copy_(saved)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _with_gradients(self, *states: Tensors) -> list[Tensors]:
        """Parameters that have a gradient, their gradients, and their part of each state."""
        used = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
        parameters = [self.parameters[index] for index in used]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return [parameters, gradients, *([state[index] for index in used] if state else [] for state in states)]


class FusedSGD(_Fused):
    """`torch.optim.SGD`: v = momentum * v + gradient + weight_decay * w; w = w - learning_rate * v."""

    state_names = ("momentum_buffers",)

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters)
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.momentum_buffers = [torch.zeros_like(parameter) for parameter in self.parameters] if momentum else []

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients."""
        parameters, gradients, momentum_buffers = self._with_gradients(self.momentum_buffers)
        torch._fused_sgd_(
            parameters,
            gradients,
            momentum_buffers,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )


class FusedAdam(_Fused):
    """`torch.optim.Adam` and `AdamW` (Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019), and RMSprop.

    RMSprop is Adam whose first moment forgets at once (beta1 = 0) and whose bias correction has become 1, as it has
    after very many steps; torch has no fused kernel of its own for it.
    """

    state_names = ("first_moments", "second_moments", "steps")

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        *,
        decoupled: bool = False,
        bias_correction: bool = True,
    ) -> None:
        super().__init__(parameters)
        self.learning_rate, self.betas, self.weight_decay = learning_rate, betas, weight_decay
        self.first_moments = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second_moments = [torch.zeros_like(parameter) for parameter in self.parameters]
        steps_so_far = 0.0 if bias_correction else 1e9
        self.steps = [torch.tensor(steps_so_far, device=parameter.device) for parameter in self.parameters]
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients."""
        parameters, gradients, first_moments, second_moments, steps = self._with_gradients(
            self.first_moments, self.second_moments, self.steps
        )
        torch._foreach_add_(steps, 1)
        self._kernel(
            parameters,
            gradients,
            first_moments,
            second_moments,
            [],
            steps,
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


class RMSpropWithMomentum(torch.optim.RMSprop):
    """`torch.optim.RMSprop`; Adam's kernel has no momentum that is applied after the division."""

    @property
    def learning_rate(self) -> float:
        """Step size of the next step."""
        return float(self.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, learning_rate: float) -> None:
        self.param_groups[0]["lr"] = learning_rate


def build_optimizer(config: TrialConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build the optimizer that `config.optimizer` names; what `config` leaves open is as in `torch.optim`."""
    learning_rate, momentum, weight_decay = config.learning_rate, config.momentum, config.weight_decay
    match config.optimizer:
        case "sgd":
            return FusedSGD(parameters, learning_rate, momentum, weight_decay)
        case "adam":
            return FusedAdam(parameters, learning_rate, (0.9, 0.999), weight_decay)
        case "adamw":
            return FusedAdam(parameters, learning_rate, (0.9, 0.999), weight_decay, decoupled=True)
        case "rmsprop" if momentum:
            return RMSpropWithMomentum(parameters, learning_rate, momentum=momentum, weight_decay=weight_decay)
        case "rmsprop":
            return FusedAdam(parameters, learning_rate, (0.0, 0.99), weight_decay, bias_correction=False)
