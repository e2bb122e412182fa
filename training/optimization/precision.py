"""Number formats of the matrix products in training; weights, optimizer and evaluation are always float32."""

from contextlib import AbstractContextManager, nullcontext

import torch

from training.config import TrialConfig

SMALLEST_BF16_BATCH = 64
"""For smaller batches, bfloat16 is slower: each step converts all weights."""


def autocast(config: TrialConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the logits of a network are computed; it can be entered again and again."""
    bf16 = config.precision == "bf16" or (
        config.precision == "auto" and config.batch_size >= SMALLEST_BF16_BATCH and has_bf16(device)
    )
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster on a device; True only for processors with bfloat16 products.

    On an H200, bfloat16 took 0.7 to 1.7 times the time of float32, and with the cnn never less than it.
    """
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
