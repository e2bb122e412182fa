"""Takes code and data that a Python program passes, such as functions of a notebook, which workers get by value."""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any, get_type_hints

from ray import cloudpickle

from search.engine.function_call import find_loader
from search.record.lookup import passed_paths
from search.settings import StudySettings
from search.space.objective_space import OPTION
from training.function_source import function_source
from training.program_files import program_files
from training.user_code import UserCode, code_of, describe_error, pass_code

IMAGES = "__main__:images"
"""The import path of data that are passed as such, instead of a function that loads them."""
TAKEN = {"train_function": "function", "network": "function or class", "dataset": "function, images with labels"}
"""The settings that a Python program can pass by value, and what each of them must be."""


def take_code(option: str, value: Any) -> str:
    """Take what a Python program passes as a setting; returns the import path that stands for it in the settings.

    A text is such a path already, or a name. What a module has that workers can import has the path of that module. Any
    other function or class is `__main__:NAME`, and Ray sends it to the workers with the values that it uses.

    Args:
        option: A key of `TAKEN`.
        value: A text, a function, a class that builds a network, or for `dataset` the images in one of the forms in
            which a function may return them.

    Raises:
        ValueError: It has no name, or it uses a value that cannot be sent.
    """
    if isinstance(value, str):
        return value
    if option == "dataset" and not _is_function(value):
        if callable(value):
            raise ValueError(_must_have_name(option, value))
        pass_code(IMAGES, UserCode(lambda: value, {}, "", None, None))
        return IMAGES
    code = getattr(value, "__func__", value)  # the function of a method
    name = getattr(code, "__name__", "")
    is_class = isinstance(code, type) and option == "network"
    if not (is_class or isinstance(code, FunctionType)) or not name.isidentifier():
        raise ValueError(_must_have_name(option, value))
    return _importable_path(value, name) or _take(option, value, code.__init__ if is_class else code)


def take_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the import paths of what a Python program passes; a ValueError as `take_code`."""
    given = {option: settings[option] for option in TAKEN if settings.get(option) is not None}
    return dict(settings) | {option: take_code(option, value) for option, value in given.items()}


def passed_code(settings: StudySettings) -> dict[str, UserCode]:
    """The code and the data that a Python program has passed for a study, by the import paths that stand for them."""
    return {path: code_of(option, path) for option, path in passed_paths(settings).items()}


def code_for_workers(settings: StudySettings) -> dict[str, UserCode]:
    """The passed code that workers call, by import path; they get the images of a study from Ray's object store."""
    return {path: code for path, code in passed_code(settings).items() if path != settings.dataset}


def pass_again(code: Mapping[str, UserCode]) -> None:
    """Let import paths mean code that was passed before; other code may have been passed under the same name since."""
    for path, one in code.items():
        pass_code(path, one)


def _is_function(value: Any) -> bool:
    return isinstance(getattr(value, "__func__", value), FunctionType)


def _must_have_name(option: str, value: Any) -> str:
    expected = TAKEN[option]
    if option == "dataset":
        return f"{option} must be a {expected}, or a name or an import path, got {value!r:.100}"
    return f"{option} must be a {expected} with a name, defined by def, or the import path of one, got {value!r:.100}"


def _importable_path(value: Any, name: str) -> str | None:
    """The import path by which workers find a function or a class in its module; None if they cannot."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or not file or module.__name__ == "__main__" or getattr(module, name, None) is not value:
        return None
    return f"{module.__name__ if module.__package__ else file}:{name}"


def _take(option: str, value: Any, function: Any) -> str:
    """Pass a function or a class of this program; `function` is the one that has its annotations."""
    name = getattr(value, "__name__", "")
    path = f"__main__:{name}"
    if isinstance(function, FunctionType):  # and not what a class has from torch
        _resolve_annotations(f"{option} {name}", function)
    if option != "dataset":
        _check_can_be_sent(f"{option} {name}", value)
    script = getattr(sys.modules["__main__"], "__file__", None)
    root = Path(script).resolve().parent if script else Path.cwd()
    code = UserCode(value, {}, script or "", root, None)
    pass_code(path, code)
    loader = find_loader(path) if option == OPTION else None
    sources = [function_source(used) for used in (value, loader) if used is not None]
    files = _files({module for source in sources for module in source.modules}, root)
    pass_code(path, replace(code, files=files, source="\n".join(source.text for source in sources)))
    return path


def _check_can_be_sent(what: str, value: Any) -> None:
    try:
        cloudpickle.dumps(value, protocol=5, buffer_callback=[].append)  # arrays are not copied for this
    except Exception as error:  # whatever the values do
        raise ValueError(f"{what} cannot be sent to the workers: {describe_error(error)}") from error


def _files(modules: Collection[str], root: Path) -> dict[str, Path]:
    """The files of modules that lie below a folder and are not installed there, with those that they import."""
    files: dict[str, Path] = {}
    for name in modules:
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "/")
        if file.is_relative_to(root) and "site-packages" not in file.parts:
            files |= program_files(file, root)
    return files


def _resolve_annotations(what: str, function: Callable[..., Any]) -> None:
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
        raise ValueError(f"{what}: its annotations cannot be read: {error}") from error
