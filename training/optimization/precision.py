"""Number formats of the matrix products in training; weights, optimizer and evaluation are float32 in all of them."""

from contextlib import AbstractContextManager, nullcontext

import torch

from training.config import TrialConfig

FROM_BATCH_SIZE = 64
"""Below, converting the weights to bfloat16 in each step takes longer than their products gain."""


def autocast(config: TrialConfig, device: torch.device) -> AbstractContextManager[object]:
    """What the logits of a network are computed in, as a context that can be entered again and again."""
    bf16 = config.precision == "bf16" or (
        config.precision == "auto" and config.batch_size >= FROM_BATCH_SIZE and has_bf16(device)
    )
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def has_bf16(device: torch.device) -> bool:
    """Whether a processor multiplies bfloat16 numbers itself, at a gain that was measured; no GPU's was so far."""
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
