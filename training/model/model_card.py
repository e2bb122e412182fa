"""The README.md of a model that is passed on: what it was trained on, how it was chosen, how good it is, its limits."""

from collections.abc import Iterable, Mapping

from training.console.terminal import printable
from training.metrics import accuracy_interval
from training.model.model_metadata import CODE, ModelMetadata


def model_card(metadata: ModelMetadata, files: Iterable[str] = ()) -> str:
    """The card of a model as Markdown; `files` are those of the code that builds the network."""
    _, height, width = metadata.image_shape
    classes = ", ".join(f"`{printable(name)}`" for name in metadata.classes)
    shape = f" ({_listed(metadata.network_hyperparameters)})" if metadata.network_hyperparameters else ""
    epochs = metadata.training.get("epochs", metadata.epoch)
    hyperparameters = _listed({name: value for name, value in metadata.training.items() if name != "epochs"})
    lines = [
        f"# Classifier of {metadata.dataset}",
        "",
        f"Tells {len(metadata.classes)} classes apart: {classes}.",
        "",
        f"    python training/predict.py {_HERE} IMAGE              # class and probability",
        f"    python training/predict.py {_HERE} FOLDER --output predictions.csv",
        f"    python training/export.py {_HERE} --onnx model.onnx   # for ONNX Runtime",
        "",
        "`model.safetensors` holds the weights, `config.json` all that is needed to rebuild the network and use it.",
        *_code(metadata, files),
        "",
        "## Data",
        "",
        f"{metadata.dataset}: {metadata.training_images:,} training, {metadata.validation_images:,} validation and "
        f"{metadata.test_images:,} test images, {metadata.color}, {height} x {width} pixels.",
        f"SHA-256 of all images and labels: `{printable(metadata.dataset_sha256)}`.",
        "",
        "## How it was made",
        "",
        f"Network {metadata.network}{shape}, trained for {metadata.epoch} of {epochs} epochs with {hyperparameters}.",
        printable(metadata.selection),
        *(["", f"    {printable(metadata.command)}", "", "trains it again."] if metadata.command else []),
        "",
        "## How good it is",
        "",
        "| images | accuracy | 95 % interval | loss |",
        "| --- | --- | --- | --- |",
        *_measured("validation", metadata.val_accuracy, metadata.val_loss, metadata.validation_images),
        *_measured("test", metadata.test_accuracy, metadata.test_loss, metadata.test_images),
        "",
        "Loss is the mean cross-entropy, in nats per image. The intervals are Wilson's: they cover what another draw",
        "of as many images would change, not what a training from another seed would.",
        "",
        "## Limits",
        "",
        f"- It gives every image one of its {len(metadata.classes)} classes, however little it looks like any of them.",
        f"- An image is made {metadata.color}, stretched to {height} x {width} pixels, its shape not kept, and",
        "  divided by 255. The figures above hold for images like those of the data set, not for any photograph.",
        *_BACKGROUND[metadata.background],
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


def _code(metadata: ModelMetadata, files: Iterable[str]) -> list[str]:
    if metadata.network_sha256 is None:
        return []
    others = ", ".join(f"`{printable(name)}`" for name in files if name != CODE)
    return [
        "`network.py` is the Python code that builds the network; run only with `--trust-network`: read it before.",
        *([f"It imports {others}: read these, too."] if others else []),
    ]


def _measured(images: str, accuracy: float | None, loss: float | None, number: int) -> list[str]:
    if accuracy is None:
        return []
    low, high = accuracy_interval(accuracy, number)
    return [f"| {images} | {accuracy:.2%} | {low:.2%} to {high:.2%} | {'' if loss is None else f'{loss:.4f}'} |"]
