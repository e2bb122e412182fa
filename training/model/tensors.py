"""Writes tensors as safetensors: numbers only, which are read without running code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from training.console.terminal import type_and_text


def save_tensors(tensors: Mapping[str, Any], file: Path) -> None:
    """Write tensors by name; a ValueError says which tensor cannot be saved, an OSError that the file cannot."""
    try:
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{name} is a {type(tensor).__name__} and no tensor")
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise ValueError(f"{name} is an expanded view of fewer numbers")  # a copy would need much more memory
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, file)
    except OSError:
        raise
    except Exception as error:  # torch and safetensors raise many errors for unusual tensors
        raise ValueError(f"the weights cannot be saved: {type_and_text(error)}") from None
