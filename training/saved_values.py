"""Values in a file that is read with weights_only, which knows tensors, but no arrays and numbers of NumPy."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

ARRAY = "array of NumPy"
"""The one key of a dictionary that holds an array as a tensor."""


def to_saved(value: Any) -> Any:
    """The value with tensors for arrays, and numbers of Python for those of NumPy, in whatever containers they are.

    An array that no tensor can hold, for example one of texts, stays as it is.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        try:
            return {ARRAY: torch.from_numpy(np.array(value))}
        except TypeError:
            return value
    return _for_members(to_saved, value)


def from_saved(saved: Any) -> Any:
    """The value of which `to_saved` made this."""
    if type(saved) is dict and saved.keys() == {ARRAY}:
        return saved[ARRAY].numpy()
    return _for_members(from_saved, saved)


def find_unreadable(values: Mapping[str, Any]) -> str:
    """Name a value that cannot be saved so that it is read without running code, and its type."""
    for name, value in values.items():
        for place, member in _leaves(value, name):
            if not _is_readable(member):
                return f"{place} (of type {type(member).__name__})"
    return f"all of {', '.join(values)} together"


def _for_members(change: Callable[[Any], Any], value: Any) -> Any:
    """Change the members of a plain container; other containers, such as that of a model's tensors, stay."""
    if type(value) is dict:
        return {key: change(member) for key, member in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(change, value))
    return value


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """What is no container, with the keys that lead to it."""
    members = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    if isinstance(members, Mapping):
        for key, member in members.items():
            yield from _leaves(member, f"{place}[{key!r}]")
    else:
        yield place, value


def _is_readable(value: Any) -> bool:
    stream = io.BytesIO()
    try:
        torch.save(to_saved(value), stream)
        stream.seek(0)
        torch.load(stream, map_location="cpu", weights_only=True)
    except Exception:  # whatever the value does to pickle
        return False
    return True
