"""Imports functions of the user from files and modules, and finds the dataclasses that they take."""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from training.config import PROJECT
from training.random_state import seeded

PACKAGES = ("search", "training")
"""Names of the packages of this project."""


@cache
def load_function(option: str, path: str) -> Callable[..., Any]:
    """The function with an import path; a ValueError with the option says that it cannot be imported."""
    module_name, _, name = path.rpartition(":")
    _hide_commands()
    try:
        is_file = module_name.endswith(".py")
        with seeded(0):  # what a file draws while it is imported is the same in each process
            module = _import_file(Path(module_name)) if is_file else importlib.import_module(module_name)
    except Exception as error:  # whatever the file does
        raise ValueError(f"{option} {path} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{option} {path}: {module_name} has no function {name}")
    return function  # type: ignore[no-any-return]


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    _check_names(file)
    name = f"tunesmith_file_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    spec.loader.exec_module(module)
    return module


def _hide_commands() -> None:
    """Remove the folders of our commands from `sys.path`, so that `import run` imports a module of the user."""
    folders = {str(PROJECT / package) for package in PACKAGES}
    sys.path[:] = [folder for folder in sys.path if folder not in folders]


def _check_names(file: Path) -> None:
    """Refuse a file that imports a module beside it with the name of our package, which would be imported instead."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add((node.module or "").partition(".")[0])
    for package in PACKAGES:
        beside = [file.with_name(f"{package}.py"), file.with_name(package)]
        if package in imported and file.parent != PROJECT and any(path.exists() for path in beside):
            raise ValueError(
                f"it imports {package}, which is a package of Tunesmith and the name of a module beside it: "
                "give that module another name"
            )


def annotated_config(option: str, path: str) -> type[Any] | None:
    """The dataclass by which a function annotates its first argument; None without such an annotation.

    A ValueError names the option if the annotations cannot be read or if a field of the dataclass has no default.
    """
    try:
        annotation = next(iter(get_type_hints(load_function(option, path)).values()), None)
        if not (isinstance(annotation, type) and is_dataclass(annotation)):
            return None
        get_type_hints(annotation)
    except (NameError, TypeError, AttributeError) as error:  # Python cannot resolve an annotation
        raise ValueError(f"{option} {path}: its annotations cannot be read: {error}") from error
    for field in fields(annotation):
        if field.init and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{option} {path}: hyperparameter {field.name} needs a default")
    return annotation
