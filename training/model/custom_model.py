"""The model of a training of one's own as a folder: what it saved, its configuration, and a card."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from training.atomic_file import replacing_folder
from training.json_data import from_json
from training.model.custom_model_card import custom_model_card
from training.model.model_folder import CARD, CONFIG, read_config
from training.model.model_metadata import CustomModelMetadata
from training.model.saved_objects import Objects, load_objects, save_objects

FILES = "checkpoint"
"""Folder with the files of a training function that writes its checkpoints itself, or of a program."""


@dataclass(frozen=True)
class CustomModel:
    """The model of a training function or of a program."""

    metadata: CustomModelMetadata
    objects: dict[str, Any]
    """What a function saved, by name."""
    files: Path | None
    """The folder that was saved instead; None if objects were saved."""


def save_custom_model(
    folder: Path,
    metadata: CustomModelMetadata,
    objects: Objects = MappingProxyType({}),
    files: Path | None = None,
) -> None:
    """Write the folder of a model; it replaces an earlier one when it is complete.

    Args:
        folder: The folder of the model.
        metadata: The metadata of the model.
        objects: What the training function saved, by name.
        files: The folder that it, or a program, saved instead.

    Raises:
        ValueError: An object cannot be exported.
        OSError: The folder cannot be written.
    """
    with replacing_folder(folder) as draft:
        if files is not None:
            # a link from somebody else is not followed
            shutil.copytree(files, draft / FILES, symlinks=True, ignore=_sockets_and_pipes)
        save_objects(objects, draft)
        (draft / CONFIG).write_text(json.dumps(asdict(metadata), indent=2) + "\n")
        (draft / CARD).write_text(custom_model_card(metadata, objects, has_files=files is not None), encoding="utf-8")
        load_custom_model(draft)


def _sockets_and_pipes(folder: str, names: list[str]) -> list[str]:
    """What a program may leave that cannot be copied."""
    paths = {name: Path(folder, name) for name in names}
    return [name for name, path in paths.items() if path.exists() and not (path.is_file() or path.is_dir())]


def load_custom_model(folder: Path) -> CustomModel:
    """Load a model from its folder, which may come from somebody else; no code in it is run.

    A ValueError says that there is no model of a training of one's own, or that it is damaged.
    """
    files = folder / FILES
    return CustomModel(read_custom_metadata(folder), load_objects(folder), files if files.is_dir() else None)


def read_custom_metadata(folder: Path) -> CustomModelMetadata:
    """The metadata of the model in a folder; a ValueError says that they are missing or damaged."""
    values: Mapping[str, Any] = read_config(folder)
    try:
        return from_json(CustomModelMetadata, values)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} does not describe a model of a training of your own: {error}") from None
