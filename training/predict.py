"""Classify images with the model of a study."""

import csv
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import tyro

from training.console.command_line import complain, parse, refuse, run_command
from training.console.json_output import write_object
from training.console.terminal import counted, spreadsheet_cell

if TYPE_CHECKING:
    from training.model.model_folder import TrainedModel

BATCH_SIZE = 256
"""Number of images that are in memory at the same time."""


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Options of `python training/predict.py`."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Folder of the model, for example results/latest/model."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Image files, or folders of image files. For a folder, the predictions are printed as a table (CSV)."""
    top: int = 1
    """Number of classes that are printed for each image, the most probable first; >= 1."""
    invert: bool = False
    """Exchange dark and light before the classification. A photograph of a dark object on a light background needs this
    if the model was trained on light objects on a dark background."""
    output: Path | None = None
    """CSV file for the predictions; by default they are printed."""
    trust_network: bool = False
    """Run the Python code in the model's network.py, if it has this file. Read the code first."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("name at least one image file or folder to classify")
        if self.top < 1:
            raise ValueError(f"top must be >= 1, got {self.top}")


@dataclass(frozen=True)
class Prediction:
    """The classes of an image by the model."""

    file: Path
    ranking: list[tuple[str, float]]
    """Classes and probabilities, the most probable first; empty if the file could not be read."""
    error: str = ""
    """The reason why the file could not be read."""
    light_border: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictedClass:
    """A class and its probability."""

    class_name: str
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class PredictedImage:
    """The classes of an image by the model."""

    file: str
    classes: list[PredictedClass]
    """The most probable first; empty if the file could not be read."""
    error: str | None
    """The reason why the file could not be read."""
    has_light_border: bool


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The document of `training/predict.py`."""

    type: Literal["predictions"] = "predictions"
    model: str
    """Folder of the model."""
    background: str
    """That of the training images: light, dark or unknown; images with another background need `--invert`."""
    images: list[PredictedImage]


def main() -> int:
    """Classify as the command line says; returns the exit status."""
    settings = parse(PredictSettings, __doc__ or "")

    from training.model.model_folder import load_model  # torch takes a second or two

    try:
        model = load_model(settings.model, trust_network=settings.trust_network)
        if model.metadata.image_shape[0] not in (1, 3):
            raise ValueError(f"this model needs images of {model.metadata.color}, but image files have 1 or 3 channels")
        files = list(_files(settings.images))
    except (ValueError, OSError) as error:
        refuse(str(error))
    predictions = predict(model, files, settings.top, invert=settings.invert)
    with ExitStack() as stack:
        if settings.output is None:
            stream: TextIO = sys.stdout
        else:
            try:
                stream = stack.enter_context(settings.output.open("w", newline="", encoding="utf-8"))
            except OSError as error:
                refuse(f"{settings.output} cannot be written: {error.strerror}")
        is_table = settings.output is not None or any(path.is_dir() for path in settings.images)
        if settings.json and settings.output is None:
            done = list(predictions)
        else:
            done = _write_table(predictions, stream) if is_table else _print_lines(predictions)
    _hint(model, done, invert=settings.invert)
    if settings.json:
        write_object(_as_object(settings.model, model, done))
    return 2 if not is_table and any(prediction.error for prediction in done) else 0


def predict(model: "TrainedModel", files: list[Path], top: int, *, invert: bool = False) -> Iterator[Prediction]:
    """Classify image files, in their order.

    Args:
        model: The model.
        files: Image files of any format and size.
        top: Number of classes for each image.
        invert: Whether dark and light are exchanged before.
    """
    import torch

    from training.images.image_file import has_light_border, read_image

    channels, height, width = model.metadata.image_shape
    for start in range(0, len(files), BATCH_SIZE):
        batch, pixels, errors = files[start : start + BATCH_SIZE], {}, {}
        for file in batch:
            try:
                pixels[file] = read_image(file, (channels, height, width), invert=invert)
            except ValueError as error:
                errors[file] = str(error)
        probabilities = (
            dict(zip(pixels, model.predict(torch.stack(list(pixels.values()))), strict=True)) if pixels else {}
        )
        for file in batch:
            if file in errors:
                yield Prediction(file, [], errors[file])
                continue
            best = probabilities[file].topk(min(top, len(model.metadata.classes)))
            ranking = [
                (model.metadata.classes[index], value)
                for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
            yield Prediction(file, ranking, light_border=has_light_border(pixels[file]))


def _as_object(folder: Path, model: "TrainedModel", done: list[Prediction]) -> Predictions:
    return Predictions(
        model=str(folder.resolve()),
        background=model.metadata.background,
        images=[
            PredictedImage(
                file=str(one.file),
                classes=[PredictedClass(class_name=name, probability=probability) for name, probability in one.ranking],
                error=one.error or None,
                has_light_border=one.light_border,
            )
            for one in done
        ],
    )


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    """The files of the command line, and the image files in its folders; a note says which files are left out."""
    from training.images.file_selection import describe_left_out, select_images

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files, left_out = select_images(path)
        sentences = describe_left_out(left_out)
        if not files:
            raise ValueError("; ".join([f"there is no image in {path}", *sentences]))
        for sentence in sentences:
            print(f"note: {sentence}", file=sys.stderr)
        yield from files


def _print_lines(predictions: Iterator[Prediction]) -> list[Prediction]:
    done = []
    for prediction in predictions:
        if prediction.error:
            complain(prediction.error)
        else:
            classes = ", ".join(f"{name} {probability:.4f}" for name, probability in prediction.ranking)
            print(f"{prediction.file}: {classes}", flush=True)
        done.append(prediction)
    return done


def _write_table(predictions: Iterator[Prediction], stream: TextIO) -> list[Prediction]:
    done = []
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file", "class", "probability", "error"])
    for prediction in predictions:
        file, error = spreadsheet_cell(str(prediction.file)), spreadsheet_cell(prediction.error)
        for name, probability in prediction.ranking:
            table.writerow([file, spreadsheet_cell(name), f"{probability:.6f}", ""])
        if error:
            table.writerow([file, "", "", error])
        done.append(prediction)
    return done


def _hint(model: "TrainedModel", done: list[Prediction], *, invert: bool) -> None:
    """Print a note if images are light where the training images were dark, which often spoils predictions."""
    light = sum(prediction.light_border for prediction in done)
    if model.metadata.background == "dark" and light:
        images = f"{light} of {counted(len(done), 'inverted image' if invert else 'image')}"
        print(
            f"note: {images} {'has' if light == 1 else 'have'} a light background, but the model was trained on light "
            f"objects on a dark background: {'leave out' if invert else 'try'} --invert",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_command(main, outlive_reader=False)
