"""The README.md of a model that is passed on: what it was trained on, how it was chosen, how good it is, its limits."""

from collections.abc import Iterable, Mapping

from training.config import is_passed_function
from training.console.terminal import counted, printable
from training.metrics import accuracy_interval
from training.model.model_metadata import CODE, ModelMetadata
from training.typed_command import portable_line


def model_card(metadata: ModelMetadata, files: Iterable[str] = ()) -> str:
    """The card of a model as Markdown; `files` are those of the code that builds the network."""
    _, height, width = metadata.image_shape
    classes = ", ".join(f"`{printable(name)}`" for name in metadata.classes)
    shape = f" ({_listed(metadata.network_hyperparameters)})" if metadata.network_hyperparameters else ""
    network = metadata.network.removeprefix("__main__:")
    duration = counted(int(metadata.training.get("epochs", metadata.epoch)), "epoch")
    hyperparameters = _listed({name: value for name, value in metadata.training.items() if name != "epochs"})
    lines = [
        f"# Classifier of {metadata.dataset}",
        "",
        f"This model classifies images into {len(metadata.classes)} classes: {classes}.",
        "",
        *(_use_in_program() if is_passed_function(metadata.network) else _use(metadata, files)),
        "",
        "## Data",
        "",
        f"{metadata.dataset}: {metadata.training_images:,} training, {metadata.validation_images:,} validation and "
        f"{metadata.test_images:,} test images, {metadata.color}, {height} x {width} pixels.",
        f"SHA-256 of all images and labels: `{printable(metadata.dataset_sha256)}`.",
        "",
        "## How it was made",
        "",
        f"The network is {network}{shape}. It was trained for {metadata.epoch} of {duration} with {hyperparameters}.",
        printable(metadata.selection),
        *(["", "This command trains it again:", "", f"    {printable(metadata.command)}"] if metadata.command else []),
        "",
        "## How good it is",
        "",
        "| images | accuracy | 95 % interval | loss |",
        "| --- | --- | --- | --- |",
        *_measured("validation", metadata.val_accuracy, metadata.val_loss, metadata.validation_images),
        *_measured("test", metadata.test_accuracy, metadata.test_loss, metadata.test_images),
        "",
        "The loss is the mean cross-entropy, in nats per image. The intervals (Wilson) say how much the accuracy may",
        "differ on other images of the same kind and number. They do not say how much it differs between trainings",
        "from other seeds.",
        "",
        "## Limits",
        "",
        f"- It gives every image one of its {len(metadata.classes)} classes, even an image that shows none of them.",
        f"- Every image is converted to {metadata.color}, resized to {height} x {width} pixels without keeping its",
        "  aspect ratio, and divided by 255. The accuracies above are for images like those of the data set, not for",
        "  any photograph.",
        *_BACKGROUND[metadata.background],
        "- Its probabilities are not calibrated: they rank the classes, and do not say how often one is right.",
        "",
    ]
    return "\n".join(lines)


_HERE = "THIS-FOLDER"

_BACKGROUND = {
    "dark": [
        "- It was trained on light objects on a dark background (0). A photograph or a scan with a light background",
        "  must be inverted with `--invert`.",
    ],
    "unknown": [],
}


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _use(metadata: ModelMetadata, files: Iterable[str]) -> list[str]:
    """What a model is used with, and what its files are."""
    lines = [
        f"    {portable_line('training/predict.py', _HERE, 'IMAGE')}              # class and probability",
        f"    {portable_line('training/predict.py', _HERE, 'FOLDER', '--output', 'predictions.csv')}",
        f"    {portable_line('training/export.py', _HERE, '--onnx', 'model.onnx')}   # for ONNX Runtime",
        "",
        "`model.safetensors` holds the weights, and `config.json` all that is needed to rebuild and use the network.",
    ]
    if metadata.network_sha256 is None:
        return lines
    others = ", ".join(f"`{printable(name)}`" for name in files if name != CODE)
    return [
        *lines,
        "`network.py` is the Python code that builds the network. It runs only with `--trust-network`. Read it first.",
        *([f"It imports {others}. Read these files, too."] if others else []),
    ]


def _use_in_program() -> list[str]:
    """The same for a network that a Python program has passed: only a program that defines it can build it."""
    return [
        f'    best = search.api.load_best("{_HERE}")',
        '    network.load_state_dict(best.states["model"])   # a network with best.hyperparameters',
        "",
        "`model.safetensors` holds the weights. The code of the network is not here, because a Python program or a",
        "notebook defined it. The network takes images as float32 from 0 to 1.",
    ]


def _measured(images: str, accuracy: float | None, loss: float | None, number: int) -> list[str]:
    if accuracy is None:
        return []
    low, high = accuracy_interval(accuracy, number)
    return [f"| {images} | {accuracy:.2%} | {low:.2%} to {high:.2%} | {'' if loss is None else f'{loss:.4f}'} |"]
