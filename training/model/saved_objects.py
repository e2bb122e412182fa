"""Writes what a training function saved so that it is read without running code: tensors apart, all else as JSON."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors.torch import load_file
from torch import Tensor, from_numpy

from training.console.terminal import type_and_text
from training.model.tensors import save_tensors

OBJECTS = "objects.json"
"""File with all that is no tensor, and with the name of each tensor in its place."""
LARGEST_OBJECTS = 10**7
"""An `objects.json` with more bytes is refused."""
Objects: TypeAlias = Mapping[str, Any]
"""Saved objects by name: state dictionaries, tensors, arrays, numbers, texts and containers of them."""


def save_objects(objects: Objects, folder: Path) -> None:
    """Write objects into a folder: the tensors of each into `NAME.safetensors`, all else into `objects.json`.

    The tensors of a state dictionary keep their names, so that a file holds it as PyTorch knows it.

    Raises:
        ValueError: An object has a name that no file can have, or holds what is neither a tensor nor JSON.
        OSError: A file cannot be written.
    """
    described = {}
    for name, value in objects.items():
        _check_name(name)
        tensors: dict[str, Tensor] = {}
        described[name] = _describe(value, name, "", tensors)
        if tensors:
            save_tensors(tensors, _tensors_of(folder, name))
    content = json.dumps(described, allow_nan=False)
    if len(content) > LARGEST_OBJECTS:
        raise ValueError(f"what was saved besides tensors takes more than {LARGEST_OBJECTS:,} bytes")
    (folder / OBJECTS).write_text(content + "\n")


def load_objects(folder: Path) -> dict[str, Any]:
    """Read what `save_objects` wrote, on the CPU; a ValueError says that it is missing or damaged."""
    file = folder / OBJECTS
    try:
        if file.stat().st_size > LARGEST_OBJECTS + 1:
            raise ValueError(f"it is larger than {LARGEST_OBJECTS:,} bytes")
        described = json.loads(file.read_bytes())
        objects = {}
        for name, value in described.items():
            _check_name(name)
            tensors = load_file(_tensors_of(folder, name)) if _tensors_of(folder, name).is_file() else {}
            objects[name] = _restore(value, tensors)
    except Exception as error:  # whatever the damage does to JSON and safetensors
        raise ValueError(f"{file} cannot be read: {type_and_text(error)}") from None
    return objects


def _tensors_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise ValueError(f"an object cannot be exported under the name {name!r:.120}")


def _describe(value: Any, name: str, path: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; its tensors go into `tensors`, under the path of keys that leads to them."""
    match value:
        case Tensor() | np.ndarray():
            key = path or name
            while key in tensors:
                key += "_"
            tensors[key] = value if isinstance(value, Tensor) else from_numpy(value)
            return {"tensor" if isinstance(value, Tensor) else "array": key}
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": str(value)}
        case Mapping():
            return {
                "dict": [
                    [_described_key(key, name), _describe(member, name, f"{path}.{key}" if path else str(key), tensors)]
                    for key, member in value.items()
                ]
            }
        case list() | tuple() | set() | frozenset():
            members = [
                _describe(member, name, f"{path}.{place}" if path else str(place), tensors)
                for place, member in enumerate(value)
            ]
            kind = "set" if isinstance(value, set | frozenset) else "tuple" if isinstance(value, tuple) else "list"
            return {kind: members}
    raise ValueError(f"{name} holds a {type(value).__name__}, which cannot be exported")


def _described_key(key: Any, name: str) -> Any:
    if isinstance(key, str | int):
        return key
    raise ValueError(f"{name} has a {type(key).__name__} as a key, which cannot be exported")


def _restore(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(described, dict):
        if isinstance(described, list):
            raise ValueError("a list stands where none can be")
        return described
    ((kind, content),) = described.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "array":
            return tensors[content].numpy()
        case "float":
            return float(content)
        case "dict":
            return {key: _restore(member, tensors) for key, member in content}
        case "list" | "tuple" | "set":
            return {"list": list, "tuple": tuple, "set": set}[kind](_restore(member, tensors) for member in content)
    raise ValueError(f"it has a value of the unknown kind {kind!r:.50}")
