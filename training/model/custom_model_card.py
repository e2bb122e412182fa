"""The README.md of the model of a training of one's own: how it was made and chosen, how good it is, how to load it."""

from training.console.terminal import counted, format_metric, printable
from training.model.model_metadata import CustomModelMetadata
from training.model.saved_objects import Objects


def custom_model_card(metadata: CustomModelMetadata, objects: Objects, *, has_files: bool) -> str:
    """The card of a model as Markdown.

    Args:
        metadata: The metadata of the model.
        objects: What the training function saved, by name.
        has_files: Whether it, or a program, saved a folder instead.
    """
    hyperparameters = ", ".join(
        f"{printable(name)} {printable(str(value))}" for name, value in metadata.hyperparameters.items()
    )
    training, is_program = printable(metadata.training), metadata.saved_epoch is not None
    saved = "left in its checkpoint folder" if is_program else "saved after its best epoch"
    epochs = counted(metadata.saved_epoch or metadata.epoch, "epoch")
    lines = [
        f"# Model of the {training}",
        "",
        f"What the {training} {saved}. Its code is not in this folder: whoever loads the model needs it to rebuild "
        "what was saved.",
        *(f"SHA-256 of {printable(name)} without comments: `{value}`." for name, value in metadata.code_sha256.items()),
        "",
        "## How to load it",
        "",
        "    from search.api import load_best",
        "",
        "    best = load_best(THIS_FOLDER)                    # or the name of the study",
        "    best.hyperparameters, best.seed, best.epoch, best.metrics",
        *[f"    best.states[{name!r}]" for name in objects],
        *(["    best.files                                       # the folder that was saved"] * has_files),
        "",
        _FILES if has_files else _OBJECTS,
        "",
        "## How it was made",
        "",
        f"The hyperparameters are {hyperparameters}. It was trained for {epochs} with seed {metadata.seed}.",
        printable(metadata.selection),
        "",
        "## How good it is",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {printable(name)} | {_value(value)} |" for name, value in metadata.metrics.items()),
        "",
        f"The {training} measured these values in epoch {metadata.epoch}. {metadata.metric} chose the model: its "
        f"{'highest' if metadata.mode == 'max' else 'lowest'} value is the best.",
        "",
    ]
    return "\n".join(lines)


_OBJECTS = (
    "`config.json` holds the configuration and the metrics. `NAME.safetensors` holds the tensors of each saved object "
    "under their names, for example those of a `state_dict`, and `objects.json` all that is no tensor. None of them is "
    "code. Without Tunesmith, `safetensors.torch.load_file` reads the tensors."
)
_FILES = (
    "`config.json` holds the configuration and the metrics, and `checkpoint/` the files that were saved. Some "
    "kinds of files, such as pickles, run code when they are read: read only those of people you trust."
)


def _value(value: float | None) -> str:
    return "not finite" if value is None else format_metric(value)
