"""Tells errors for want of memory from others."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or on the CPU, or Python found no memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
