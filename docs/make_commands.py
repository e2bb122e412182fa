"""Write docs/commands.md from the settings of each command, so that it says what they take.

python docs/make_commands.py
"""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from training.config import PROJECT
from training.networks.network_config import CnnHyperparameters, MlpHyperparameters

FILE = Path(__file__).with_name("commands.md")
COMMANDS = {
    "search/run.py": ("search.run", "search.settings", "StudySettings"),
    "search/report.py": ("search.report", "search.report", "ReportSettings"),
    "search/confirm.py": ("search.confirm", "search.confirm", "ConfirmSettings"),
    "search/reproduce.py": ("search.reproduce", "search.reproduce", "ReproduceSettings"),
    "search/compare.py": ("search.compare", "search.compare", "CompareSettings"),
    "search/control.py": ("search.control", "search.control", "ControlSettings"),
    "search/replay.py": ("search.replay", "search.replay", "ReplaySettings"),
    "training/run.py": ("training.run", "training.run", "TrainingSettings"),
    "training/predict.py": ("training.predict", "training.predict", "PredictSettings"),
    "training/export.py": ("training.export", "training.export", "ExportSettings"),
}
"""Script -> its module, the module of the dataclass of its options, and the name of that class."""


def written() -> str:
    """The whole document."""
    parts = ["# Commands\n\nWritten by `python docs/make_commands.py` from the settings of each command."]
    for script, (module, settings_module, name) in COMMANDS.items():
        (summary, *_) = (importlib.import_module(module).__doc__ or "").splitlines()
        settings = getattr(importlib.import_module(settings_module), name)
        parts += [f"## python {script}", summary, "\n".join(_lines(settings))]
        if script == "training/run.py":
            for network, declared in (("mlp", MlpHyperparameters), ("cnn", CnnHyperparameters)):
                parts += [f"With `--network {network}` also:", "\n".join(_lines(declared))]
    return "\n\n".join(parts) + "\n"


def _lines(settings: type) -> Iterator[str]:
    texts, types = _texts(settings), get_type_hints(settings, include_extras=True)
    for field in fields(settings):
        field_type = types[field.name]
        marks = getattr(field_type, "__metadata__", ())
        if tyro.conf.Suppress in marks:
            continue
        field_type = get_args(field_type)[0] if marks else field_type
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), None)
        name = next((mark.name for mark in marks if getattr(mark, "name", None)), field.name)
        is_positional = tyro.conf.Positional in marks
        option = metavar if is_positional else f"--{name.replace('_', '-')}"
        default = _default(field)
        values = metavar or _values(field_type)
        taken = f" {values}" if values and not is_positional else ""
        yield f"- `{option}{taken}`{f' (default {default})' if default else ''}: {texts[field.name]}"


def _values(field_type: Any) -> str:
    if get_origin(field_type) in (Union, UnionType):
        (field_type, *_) = (member for member in get_args(field_type) if member is not type(None))
    if get_origin(field_type) is Literal:
        return "{" + ",".join(map(str, get_args(field_type))) + "}"
    if get_origin(field_type) is tuple:
        return f"{_values(get_args(field_type)[0])} ..."
    return {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}.get(field_type, "TEXT")


def _default(field: "Field[Any]") -> str:
    if field.default is MISSING or field.default in (None, ()):
        return ""
    if isinstance(field.default, bool):
        name = field.name.replace("_", "-")
        return f"on; `--no-{name}` is off" if field.default else "off"
    return f"`{field.default:.4g}`" if isinstance(field.default, float) else f"`{field.default}`"


def _texts(settings: type) -> dict[str, str]:
    """The string under each field, of the class and of those that it inherits from."""
    texts: dict[str, str] = {}
    for base in reversed(settings.__mro__[:-1]):
        (body,) = (node for node in ast.parse(textwrap.dedent(inspect.getsource(base))).body)
        assert isinstance(body, ast.ClassDef), "a class has the source of one"
        for node, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
                texts[node.target.id] = " ".join(ast.literal_eval(after.value).split())
    return texts


if __name__ == "__main__":
    FILE.write_text(written())
    print(f"Wrote {FILE.relative_to(PROJECT)}")
