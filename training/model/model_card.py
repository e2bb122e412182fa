"""The README.md of a model that is passed on: what it was trained on, how it was chosen, how good it is, its limits."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from training.console.terminal import printable

if TYPE_CHECKING:
    from training.model.model_folder import ModelFacts

Z_95 = 1.96
"""Standard errors within which 95 % of a normal distribution lie."""


def wilson_interval(fraction: float, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy that was measured on so many images (Wilson 1927, score interval).

    Args:
        fraction: Part of the images classified correctly, in [0, 1].
        images: How many; >= 1.

    Returns:
        Its ends, in [0, 1].
    """
    share = Z_95**2 / images
    middle = (fraction + share / 2) / (1 + share)
    half = math.sqrt(fraction * (1 - fraction) * share + share**2 / 4) / (1 + share)
    return max(0.0, middle - half), min(1.0, middle + half)


def model_card(facts: "ModelFacts") -> str:
    """The card of a model as Markdown."""
    _, height, width = facts.image_shape
    classes = ", ".join(f"`{printable(name)}`" for name in facts.classes)
    network = f"{facts.network} ({_listed(facts.network_hyperparameters)})" if facts.network_hyperparameters else ""
    epochs = facts.training.get("epochs", facts.epoch)
    hyperparameters = _listed({name: value for name, value in facts.training.items() if name != "epochs"})
    lines = [
        f"# Classifier of {facts.dataset}",
        "",
        f"Tells {len(facts.classes)} classes apart: {classes}.",
        "",
        f"    python training/predict.py {_HERE} IMAGE              # class and probability",
        f"    python training/predict.py {_HERE} FOLDER --output predictions.csv",
        f"    python training/export.py {_HERE} --onnx model.onnx   # for ONNX Runtime",
        "",
        "`model.safetensors` holds the weights, `config.json` all that is needed to rebuild the network and use it.",
        *_code(facts),
        "",
        "## Data",
        "",
        f"{facts.dataset}: {facts.training_images:,} training, {facts.validation_images:,} validation and "
        f"{facts.test_images:,} test images, {facts.color}, {height} x {width} pixels.",
        f"SHA-256 of all images and labels: `{printable(facts.dataset_sha256)}`.",
        "",
        "## How it was made",
        "",
        f"Network {network or facts.network}, trained for {facts.epoch} of {epochs} epochs with {hyperparameters}.",
        printable(facts.selection),
        *(["", f"    {printable(facts.command)}", "", "trains it again."] if facts.command else []),
        "",
        "## How good it is",
        "",
        "| images | accuracy | 95 % interval | loss |",
        "| --- | --- | --- | --- |",
        *_measured("validation", facts.val_accuracy, facts.val_loss, facts.validation_images),
        *_measured("test", facts.test_accuracy, facts.test_loss, facts.test_images),
        "",
        "Loss is the mean cross-entropy, in nats per image. The intervals are Wilson's: they cover what another draw",
        "of as many images would change, not what a training from another seed would.",
        "",
        "## Limits",
        "",
        f"- It gives every image one of its {len(facts.classes)} classes, however little it looks like any of them.",
        f"- An image is made {facts.color}, stretched to {height} x {width} pixels, its shape not kept, and divided by",
        "  255. The figures above hold for images like those of the data set, not for any photograph.",
        *_BACKGROUND[facts.background],
        "- Its probabilities were not calibrated: they tell which class is likelier, not how often it is right.",
        "",
    ]
    return "\n".join(lines)


_HERE = "THIS-FOLDER"

_BACKGROUND = {
    "dark": [
        "- It was trained on light things on a dark background (0). A photograph or a scan with a light background",
        "  must be inverted: `--invert`.",
    ],
    "unknown": [],
}


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _code(facts: "ModelFacts") -> list[str]:
    if facts.network_sha256 is None:
        return []
    return [
        "`network.py` is the Python code that builds the network; run only with `--trust-network`: read it before.",
    ]


def _measured(images: str, accuracy: float | None, loss: float | None, number: int) -> list[str]:
    if accuracy is None:
        return []
    low, high = wilson_interval(accuracy, number)
    return [f"| {images} | {accuracy:.2%} | {low:.2%} to {high:.2%} | {'' if loss is None else f'{loss:.4f}'} |"]
