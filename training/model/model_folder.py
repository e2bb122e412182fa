"""A trained network as a folder: it loads without the study, and runs its code only with the user's permission."""

import importlib.machinery
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from training.atomic_file import replacing_folder
from training.config import NETWORKS, TrialConfig, is_passed_function
from training.config_fields import PlainValue, make_config
from training.console.terminal import shorten, type_and_text
from training.images.image_data import ImageSplit, batches
from training.json_data import check_type, from_json
from training.loop import EVALUATION_BATCH_SIZE
from training.micro_batch import in_fitting_batches
from training.model.model_card import model_card
from training.model.model_metadata import CODE, FORMAT, ModelMetadata
from training.model.tensors import save_tensors
from training.networks.network_config import config_type
from training.networks.networks import Shape, build_network, network_code
from training.program_files import checksum
from training.random_state import seeded

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

LARGEST_CONFIG = 10**7
"""A `config.json` with more bytes is refused."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained network with its metadata, ready to classify."""

    network: nn.Module
    metadata: ModelMetadata
    folder: Path = field(compare=False)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, C, H, W), uint8, of the shape in the metadata.

        Returns:
            The probability of each class, (N, classes), float32.

        Raises:
            ValueError: The images are of another shape or type.
        """
        if images.dtype != torch.uint8 or list(images.shape[1:]) != self.metadata.image_shape:
            shape = " x ".join(map(str, self.metadata.image_shape))
            raise ValueError(f"images must be uint8 (N, {shape}), got {images.dtype} {tuple(images.shape)}")
        split = ImageSplit(images, torch.zeros(len(images), dtype=torch.int64))

        def logits(size: int) -> Tensor:
            return torch.cat([self.network(pixels) for pixels, _ in batches(split, size)])

        if not len(images):
            return torch.zeros(0, len(self.metadata.classes))
        return in_fitting_batches(logits, EVALUATION_BATCH_SIZE).softmax(1)


def save_model(
    folder: Path,
    weights: Mapping[str, Any],
    metadata: ModelMetadata,
    code: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write the folder of a model; it replaces an earlier one when it is complete.

    Args:
        folder: The folder of the model.
        weights: The `state_dict` of the network.
        metadata: The metadata of the network.
        code: From `model_code`.

    Raises:
        ValueError: The model cannot be loaded, for example because the weights do not fit the network.
        OSError: The folder cannot be written.
    """
    with replacing_folder(folder) as draft:
        save_tensors(weights, draft / WEIGHTS)
        for name, content in code.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        (draft / CONFIG).write_text(json.dumps(asdict(metadata), indent=2) + "\n")
        (draft / CARD).write_text(model_card(metadata, code), encoding="utf-8")
        _check_loads(draft, folder.name)


def _check_loads(folder: Path, name: str) -> None:
    """Load a model once; a ValueError says that it cannot be loaded."""
    has_code = (folder / CODE).exists()
    with TemporaryDirectory() as place:
        loaded = Path(shutil.copytree(folder, Path(place) / name)) if has_code else folder  # code may leave files there
        try:
            load_model(loaded, trust_network=has_code)
        except ValueError as error:  # the folder is gone when somebody reads the sentence
            raise ValueError(str(error).replace(f" in {loaded}", "").replace(f"{loaded}/", "")) from None


def model_code(network: str) -> dict[str, bytes]:
    """The files that build a user's network, by path in the folder of a model: `network.py`, and what it imports.

    Files that import each other keep their names, so `network.py` is then a new file. A ValueError says that they have
    a file of this name; the dictionary is empty for our networks, and for one that a Python program passed.
    """
    if is_passed_function(network):
        return {}
    files, function = network_code(network), network.rpartition(":")[2]
    main = next(iter(files), CODE)
    if main == CODE:
        return files
    if CODE in files:
        raise ValueError(
            f"network {network} imports a file {CODE}, but a model has another file of this name: rename yours"
        )
    module = main.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if len(files) > 1 and all(name.isidentifier() for name in module.split(".")):
        return {CODE: f"from {module} import {function}\n".encode(), **files}
    return {CODE: files.pop(main), **files}


def load_model(folder: Path, *, trust_network: bool = False) -> TrainedModel:
    """Load a model from its folder, which may come from somebody else.

    Python code in the folder builds the network only with `trust_network`. A ValueError says that there is no model,
    that it is damaged, or that its code is not trusted.
    """
    metadata = read_metadata(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        network = _build(folder, metadata, shapes, trust_network=trust_network)
        weights = load_file(folder / WEIGHTS)
        _check_weights(network, weights)
        network.load_state_dict(weights, assign=True)
    except ValueError:
        raise
    except Exception as error:  # whatever the damage does to safetensors and torch, or a network's own code does
        raise ValueError(f"the model in {folder} cannot be loaded: {shorten(type_and_text(error), 300)}") from None
    network.eval()  # a network of the user's may return None here
    return TrainedModel(network, metadata, folder)


def read_metadata(folder: Path) -> ModelMetadata:
    """The metadata of the model in a folder; a ValueError says that they are missing or damaged."""
    values = read_config(folder)
    try:
        if "train_function" in values:
            raise ValueError("it is of a training function or a program, and search.api.load_best reads it")
        return from_json(ModelMetadata, values)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} does not describe a model: {error}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The values in the `config.json` of any model; a ValueError says that they are missing or damaged."""
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{folder} is not the folder of a model: it has no {CONFIG}")
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"it is larger than {LARGEST_CONFIG} bytes")
        values: dict[str, Any] = check_type(CONFIG, json.loads(file.read_bytes()), dict[str, Any])
        version = values.get("format")
        if version != FORMAT:
            raise ValueError(f"its format is {version!r:.20}, but this version reads only format {FORMAT}")
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{file} does not describe a model: {error}") from None
    return values


def _build(folder: Path, metadata: ModelMetadata, shapes: dict[str, list[int]], *, trust_network: bool) -> nn.Module:
    """Build the network; ours without memory for its weights, because a file from others may contain absurd sizes."""
    channels, height, width = metadata.image_shape
    shape, classes = (channels, height, width), len(metadata.classes)
    if metadata.network in NETWORKS:
        config = _config(folder, metadata.network, metadata.network_hyperparameters)
        if getattr(config, "depth", 1) > len(shapes):
            raise ValueError(f"{folder / CONFIG}: depth is larger than the number of layers in {WEIGHTS}")
        with torch.device("meta"):
            network = build_network(config, shape, classes)
        if {name: list(tensor.shape) for name, tensor in network.state_dict().items()} != shapes:
            raise ValueError(f"{folder / WEIGHTS} does not hold the weights of the network that {CONFIG} describes")
        return network
    if is_passed_function(metadata.network):  # it can be built only by the program that passed it
        return _build_as_trained(folder, metadata.network, metadata, shape, classes)
    if not trust_network:
        raise ValueError(
            f"loading this model runs the Python code in {folder / CODE}, which can do anything; read it, then add "
            "--trust-network"
        )
    _check_code(folder, metadata)
    path = f"{folder / CODE}:{metadata.function}"
    with _compiled_anew():
        return _build_as_trained(folder, path, metadata, shape, classes)


def _build_as_trained(folder: Path, network: str, metadata: ModelMetadata, shape: Shape, classes: int) -> nn.Module:
    """Build a network of the user as in training: it may draw numbers that are no weights."""
    config = _config(folder, network, metadata.training | metadata.network_hyperparameters)
    with seeded(config.seed):
        return build_network(config, shape, classes)


def _config(folder: Path, network: str, hyperparameters: Mapping[str, PlainValue]) -> TrialConfig:
    config_class = config_type(network)
    try:
        return make_config(config_class, {**hyperparameters, "network": network})
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} does not describe a network: {error}") from None


def _check_code(folder: Path, metadata: ModelMetadata) -> None:
    """Refuse a folder whose modules are not those that were saved: one more could take the place of another module."""
    if not (folder / CODE).is_file():
        raise ValueError(f"the model has no {folder / CODE}")
    files = {}
    for path in folder.rglob("*"):
        if path.is_dir() and path.is_symlink():
            raise ValueError(f"{path} is a link to a folder, but a model has no such links")
        if path.suffix in (".py", *importlib.machinery.all_suffixes()) and path.parent.name != "__pycache__":
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    if checksum(files) != metadata.network_sha256:
        raise ValueError(
            f"{folder / CODE}, or a file that it imports, is not the code that the model was trained with: "
            "its checksum differs"
        )


@contextmanager
def _compiled_anew() -> Iterator[None]:
    """Leave compiled code in a `__pycache__` alone, which need not be that of the file that somebody has read."""
    prefix = sys.pycache_prefix
    with TemporaryDirectory() as folder:
        sys.pycache_prefix = folder
        try:
            yield
        finally:
            sys.pycache_prefix = prefix


def _check_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights of another type, and numbers that are not finite where the new network has other ones."""
    new = network.state_dict()
    for name, tensor in new.items():
        if name in weights and weights[name].dtype != tensor.dtype:
            raise ValueError(f"{WEIGHTS}: {name} must be {tensor.dtype}, got {weights[name].dtype}")
    for name, tensor in weights.items():
        if not tensor.isfinite().all() and not _are_equal_where_not_finite(tensor, new.get(name)):
            raise ValueError(f"{WEIGHTS}: {name} holds numbers that are not finite")


def _are_equal_where_not_finite(one: Tensor, other: Tensor | None) -> bool:
    """Whether `other` has the same numbers wherever those of `one` are not finite, for example in a mask of -inf."""
    if other is None or other.is_meta or one.shape != other.shape:
        return False
    return bool((one.isfinite() | one.isclose(other, rtol=0, atol=0, equal_nan=True)).all())
