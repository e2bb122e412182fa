"""Export the model of a study to an ONNX file, which needs no PyTorch."""

import io
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from training.atomic_file import replacing
from training.config import IS_INSTALLED
from training.console.command_line import parse, refuse, run_command
from training.console.json_output import write_object
from training.console.terminal import type_and_text

if TYPE_CHECKING:
    import onnx
    import torch

    from training.model.model_folder import TrainedModel

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5
"""Largest difference between a probability and that of PyTorch."""
CHECKED_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Options of `python training/export.py`."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Folder of the model, for example results/latest/model."""
    onnx: Path
    """ONNX file that is written, for example model.onnx."""
    trust_network: bool = False
    """Run the Python code in the model's network.py, if it has this file. Read the code first."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """The document of `training/export.py`."""

    type: Literal["export"] = "export"
    onnx: str
    """The file: from images, uint8 (N, image_shape), to probabilities, float32 (N, number of classes)."""
    image_shape: list[int]
    """Channels, height and width."""
    classes: list[str]
    checked_images: int
    largest_difference: float
    """Between probabilities of ONNX Runtime and of PyTorch on these images."""


def main() -> int:
    """Export as the command line says; returns the exit status."""
    settings = parse(ExportSettings, __doc__ or "")
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        packages = " ".join(missing) if IS_INSTALLED else "--constraint constraints.txt '.[onnx]'"
        refuse(f"the export needs {', '.join(missing)}: pip install {packages}")

    from training.model.model_folder import load_model  # torch takes a second or two

    try:
        model = load_model(settings.model, trust_network=settings.trust_network)
        off = export(model, settings.onnx)
    except (ValueError, OSError) as error:
        refuse(str(error))
    shape = ", ".join(map(str, model.metadata.image_shape))
    print(f"{settings.onnx}: images, uint8 (N, {shape}) -> probabilities, float32 (N, {len(model.metadata.classes)})")
    print(f"Checked with ONNX Runtime: {CHECKED_IMAGES} images, largest difference from PyTorch {off:.1e}")
    if settings.json:
        exported = ExportedModel(
            onnx=str(settings.onnx.resolve()),
            image_shape=list(model.metadata.image_shape),
            classes=list(model.metadata.classes),
            checked_images=CHECKED_IMAGES,
            largest_difference=off,
        )
        write_object(exported)
    return 0


def export(model: "TrainedModel", file: Path) -> float:
    """Write an ONNX file that computes probabilities from pixels; its metadata contain the names of the classes.

    Returns:
        The largest difference between its probabilities and those of PyTorch, for random images.

    Raises:
        ValueError: The network cannot be exported, or the exported network computes other probabilities.
        OSError: The file cannot be written.
    """
    import onnx
    import torch

    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}")
    channels, height, width = model.metadata.image_shape
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (CHECKED_IMAGES, channels, height, width), dtype=torch.uint8, generator=random)
    program = _converted(model, images)
    for name, value in {
        "classes": "\n".join(model.metadata.classes),
        "pixels": model.metadata.color,
        "background": model.metadata.background,
        "dataset": model.metadata.dataset,
        "test_accuracy": str(model.metadata.test_accuracy),
    }.items():
        program.metadata_props.add(key=name, value=value)
    with replacing(file) as draft:
        onnx.save(program, draft)
        off = _largest_difference(draft, model, images)
        if not off <= TOLERANCE:
            raise ValueError(f"the exported network gives other probabilities than PyTorch: they differ by {off:.1e}")
    return off


def _converted(model: "TrainedModel", images: "torch.Tensor") -> "onnx.ModelProto":
    """The network with its preprocessing and softmax, from pixels to probabilities, for any number of images."""
    import torch

    class FromPixels(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(images.to(torch.float32) / 255)
            return logits.softmax(1)

    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # about parts of the exporter
            exported = torch.onnx.export(
                FromPixels(model.network).eval(),
                (images,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            )
        assert exported is not None, "with dynamo, a program is returned"
        program = exported.model_proto
    except Exception as error:  # whatever a network's own code does
        raise ValueError(f"the network cannot be exported: {type_and_text(error)}") from None
    for part in (program.graph, *program.graph.node, *program.graph.value_info, *program.functions):
        part.ClearField("metadata_props")  # the lines of code of each operation
        part.ClearField("doc_string")
    return program


def _largest_difference(file: Path, model: "TrainedModel", images: "torch.Tensor") -> float:
    """The largest difference between ONNX Runtime and PyTorch, for all images at once and for the first alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    difference = 0.0
    for batch in (images, images[:1]):
        (probabilities,) = session.run(["probabilities"], {"images": batch.numpy()})
        difference = max(difference, float(abs(probabilities - model.predict(batch).numpy()).max()))
    return difference


if __name__ == "__main__":
    run_command(main, outlive_reader=False)
