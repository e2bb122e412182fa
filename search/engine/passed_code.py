"""Takes a training function that a Python program passes, such as one of a notebook, which workers get by value."""

import sys
from collections.abc import Callable, Collection
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any, get_type_hints

from ray import cloudpickle

from search.engine.function_call import find_loader
from search.space.objective_space import OPTION
from training.config import is_passed_function
from training.function_source import function_source
from training.program_files import program_files
from training.user_code import UserCode, code_of, describe_error, pass_code


def take_function(function: Callable[..., Any]) -> str:
    """Take a training function; returns the import path by which the settings of a study name it.

    A function of a module that workers can import has the path of that module. Any other one is `__main__:NAME`, and
    Ray sends it to the workers with the values that it uses.

    Raises:
        ValueError: It has no name, or it uses a value that cannot be sent.
    """
    inner = getattr(function, "__func__", function)  # that of a method
    name = getattr(inner, "__name__", "")
    if not isinstance(inner, FunctionType) or not name.isidentifier():
        raise ValueError(
            f"{OPTION} must be a function with a name, defined by def, or the import path of one, got {function!r:.100}"
        )
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is not None and file and module.__name__ != "__main__" and getattr(module, name, None) is function:
        return f"{module.__name__ if module.__package__ else file}:{name}"
    path = f"__main__:{name}"
    _resolve_annotations(name, inner)
    try:
        cloudpickle.dumps(function, protocol=5, buffer_callback=[].append)  # arrays are not copied for this
    except Exception as error:  # whatever the values do
        raise ValueError(f"{OPTION} {name} cannot be sent to the workers: {describe_error(error)}") from error
    script = getattr(sys.modules["__main__"], "__file__", None)
    root = Path(script).resolve().parent if script else Path.cwd()
    code = UserCode(function, {}, script or "", root, None)
    pass_code(path, code)
    loader = find_loader(path)
    sources = [function_source(used) for used in (function, loader) if used is not None]
    files = _files({module for source in sources for module in source.modules}, root)
    pass_code(path, replace(code, files=files, source="\n".join(source.text for source in sources)))
    return path


def passed_code(path: str | None) -> UserCode | None:
    """The code that workers must get to know an import path; None if they import it."""
    return code_of(OPTION, path) if path is not None and is_passed_function(path) else None


def _files(modules: Collection[str], root: Path) -> dict[str, Path]:
    """The files of modules that lie below a folder and are not installed there, with those that they import."""
    files: dict[str, Path] = {}
    for name in modules:
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "/")
        if file.is_relative_to(root) and "site-packages" not in file.parts:
            files |= program_files(file, root)
    return files


def _resolve_annotations(name: str, function: Any) -> None:
    """Replace annotations that are texts by what they name, because workers do not get the names around the function.

    These are the annotations of the function, and those of the dataclass of its hyperparameters.
    """
    names = function.__globals__
    try:
        hints = get_type_hints(function, names, include_extras=True).values()
        configs = [hint for hint in hints if isinstance(hint, type) and is_dataclass(hint)]
        for annotated in (function, *(base for config in configs for base in config.__mro__[:-1])):
            if any(isinstance(annotation, str) for annotation in annotated.__annotations__.values()):
                annotated.__annotations__ = get_type_hints(annotated, names, include_extras=True)
    except NameError as error:
        raise ValueError(f"{OPTION} {name}: its annotations cannot be read: {error}") from error
