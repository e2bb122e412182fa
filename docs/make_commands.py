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

from search.tunesmith import COMMANDS as PROGRAM_COMMANDS
from training.config import PROJECT
from training.networks.network_config import CnnHyperparameters, MlpHyperparameters

FILE = Path(__file__).with_name("commands.md")
COMMANDS = {command.script: (name, command) for name, command in PROGRAM_COMMANDS.items()}
"""Script -> the command of the program that is the same, and what it is."""


def written() -> str:
    """The whole document."""
    parts = [
        "# Commands\n\nWritten by `python docs/make_commands.py` from the settings of each command. The names with "
        "`tunesmith` are for those who have installed it ([using.md](using.md#install-the-command))."
    ]
    for script, (name, command) in COMMANDS.items():
        module = importlib.import_module(command.module)
        (summary, *_) = (module.__doc__ or "").splitlines()
        lines = "\n".join(_lines(getattr(module, command.settings)))
        parts += [f"## python {script}", f"Or `tunesmith {name}`. {summary}", lines]
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
