"""The README.md of the model of a training function: how it was made and chosen, how good it is, how to load it."""

from training.console.terminal import counted, format_metric, printable
from training.model.model_metadata import CustomModelMetadata
from training.model.saved_objects import Objects


def custom_model_card(metadata: CustomModelMetadata, objects: Objects, *, has_files: bool) -> str:
    """The card of a model as Markdown.

    Args:
        metadata: The metadata of the model.
        objects: What the training function saved, by name.
        has_files: Whether it saved a folder instead.
    """
    function = printable(metadata.train_function)
    hyperparameters = ", ".join(
        f"{printable(name)} {printable(str(value))}" for name, value in metadata.hyperparameters.items()
    )
    code = metadata.code_sha256.items()
    lines = [
        f"# Model of {function}",
        "",
        f"What the training function {function} saved after its best epoch. The code of the function is not in this "
        "folder: whoever loads the model needs it to rebuild what was saved.",
        *(f"SHA-256 of {printable(name)} without comments: `{checksum}`." for name, checksum in code),
        "",
        "## How to load it",
        "",
        "    from search.api import load_best",
        "",
        "    best = load_best(THIS_FOLDER)                    # or the name of the study",
        "    best.hyperparameters, best.seed, best.epoch, best.metrics",
        *[f"    best.states[{name!r}]" for name in objects],
        *(["    best.files                                       # the folder that the function saved"] * has_files),
        "",
        _FILES if has_files else _OBJECTS,
        "",
        "## How it was made",
        "",
        f"The hyperparameters are {hyperparameters}. It was trained for {counted(metadata.epoch, 'epoch')} with seed "
        f"{metadata.seed}.",
        printable(metadata.selection),
        "",
        "## How good it is",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {printable(name)} | {_value(value)} |" for name, value in metadata.metrics.items()),
        "",
        f"The training function measured these values. {metadata.metric} chose the model: its "
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
    "`config.json` holds the configuration and the metrics, and `checkpoint/` the files that the function saved. Some "
    "kinds of files, such as pickles, run code when they are read: read only those of people you trust."
)


def _value(value: float | None) -> str:
    return "not finite" if value is None else format_metric(value)
