"""Imports functions of the user from files and modules, and runs them as Python runs a script."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from hashlib import sha256
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from training.config import PROJECT, is_passed_function
from training.config_fields import PlainValue, plain
from training.console.terminal import type_and_text
from training.program_files import checksum, meaning, program_files
from training.random_state import seeded

PACKAGES = ("search", "training")
"""Names of the packages of this project."""


@dataclass(frozen=True)
class UserCode:
    """A function of the user, and what belongs to it."""

    function: Callable[..., Any]
    files: dict[str, Path]
    """The file of its module, under its path in the folder where its imports begin, and those that it imports there."""
    script: str
    """Its module as the user wrote it, which is its `sys.argv[0]`."""
    root: Path | None
    """The folder that is first on `sys.path` while it runs; None for an installed package."""
    working_folder: Path | None
    """The working folder if the module changed it when it was imported; otherwise None: that of the command."""
    source: str = ""
    """The source of a function that a Python program passes; its files are those of the modules that it uses."""

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of what decides what the function does, by file: comments, docstrings and layout do not.

        The source of a function that a Python program passes has the name "".
        """
        sums = {name: checksum({name: meaning(file.read_bytes())}) for name, file in self.files.items()}
        return sums | ({"": checksum({"": self.source.encode()})} if self.source else {})


_passed: dict[str, UserCode] = {}
"""Functions that a Python program has passed to this process, by import path."""


def pass_code(path: str, code: UserCode) -> None:
    """Let an import path mean a function that a Python program passes; no file is imported for it."""
    _passed[path] = code


def load_function(option: str, path: str) -> Callable[..., Any]:
    """The function with an import path; a ValueError with the option says that it cannot be imported."""
    return code_of(option, path).function


def code_of(option: str, path: str) -> UserCode:
    """The function with an import path that was passed, or else is imported, as `load_code` does."""
    return _passed.get(path) or load_code(option, path)


@cache
def load_code(option: str, path: str) -> UserCode:
    """The function with an import path, and its files; a ValueError with the option says that it cannot be imported."""
    if is_passed_function(path):
        raise ValueError(
            f"{option} {path} is a function that a Python program or a notebook passes to run_search; only from there "
            "can it be used again"
        )
    script, _, name = path.rpartition(":")
    is_file = script.endswith(".py")
    _hide_commands()
    importlib.invalidate_caches()  # the file may have been written just now
    try:
        root = Path(script).resolve().parent if is_file else _folder_of_module(script)
        before = Path.cwd()
        with _as_script(script, root, None), seeded(0):  # what a file draws at its import is the same in each process
            module = _import_file(Path(script).resolve()) if is_file else importlib.import_module(script)
            working_folder = _changed_folder(before)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the file does
        raise ValueError(f"{option} {path} cannot be imported: {describe_error(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{option} {path}: {script} has no function {name}")
    files = _files_of(module, root)
    return UserCode(function, files, script, root, working_folder)


@contextmanager
def running(option: str, path: str) -> Iterator[Callable[..., Any]]:
    """Call a function of the user as if Python ran its file as a script.

    It sees its own `sys.argv` and the modules beside it, and processes that it starts find them, too. When the block
    ends, the working folder is that of before, whatever the function did.
    """
    code = code_of(option, path)
    with _as_script(code.script, code.root, code.working_folder):
        yield code.function


@contextmanager
def errors_as_sentences(failure: str, *, own_rules: bool = False) -> Iterator[None]:
    """Raise a ValueError that says what failed if code of the user raises an error or exits.

    With `own_rules`, a ValueError is the user's own sentence about a wrong value, and stays.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if own_rules and isinstance(error, ValueError):
            raise
        raise ValueError(f"{failure}: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """The type and text of an error in code of the user, and the line of that code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return type_and_text(error) + place


_replaced_modules: dict[Path, dict[str, ModuleType]] = {}
"""For each folder of the user: its modules that are not in `sys.modules`, because another folder has such ones, too.

The last folder is the one in which imports begin now."""


@contextmanager
def _as_script(script: str, root: Path | None, working_folder: Path | None) -> Iterator[None]:
    """Run a block with the `sys.argv`, the `sys.path` and the working folder of a script.

    `__main__` is empty meanwhile, because processes that are started by spawn or forkserver would import ours.
    """
    if root is not None:
        _activate(root)
    argv, main, folder_before = sys.argv, sys.modules["__main__"], Path.cwd()
    sys.argv, sys.modules["__main__"] = [script], ModuleType("__main__")
    try:
        if working_folder is not None:
            os.chdir(working_folder)
        yield
    finally:
        sys.argv, sys.modules["__main__"] = argv, main
        with suppress(OSError):  # the user's code may have removed the folder
            if _changed_folder(folder_before) is not None:
                os.chdir(folder_before)


def _changed_folder(before: Path) -> Path | None:
    """The working folder; None if it is still that of before."""
    now = Path.cwd()
    return None if now == before else now


def _activate(root: Path) -> None:
    """Let imports find the modules in a folder of the user before all others.

    If modules of the same name were imported from another folder of the user, they are put aside.
    """
    active = next(reversed(_replaced_modules), None)
    if root == active and str(root) in sys.path:
        return
    for name in {name.partition(".")[0] for name in sys.modules} - {*PACKAGES}:
        if (root / name).is_dir() or (root / f"{name}.py").is_file():
            owner = next((other for other in _replaced_modules if other != root and _lies_in(other, name)), None)
            if owner is not None:
                names = [other for other in sys.modules if other.partition(".")[0] == name]
                _replaced_modules[owner] |= {other: sys.modules.pop(other) for other in names}
    if str(active) in sys.path:
        sys.path.remove(str(active))
    sys.path.insert(0, str(root))
    sys.modules.update(_replaced_modules.pop(root, {}))
    _replaced_modules[root] = {}


def _lies_in(root: Path, name: str) -> bool:
    """Whether an imported module is a file or a package in a folder."""
    module = sys.modules.get(name)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return str(root / f"{name}.py") in places or str(root / name) in places


def _import_file(file: Path) -> ModuleType:
    """Import a file under its own name, by which other processes find it, unless another module has this name."""
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    _check_names(file)
    if _file_of_module(file.stem) == file:
        return importlib.import_module(file.stem)
    name = f"tunesmith_file_{file.stem}_{sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    spec.loader.exec_module(module)
    return module


def _file_of_module(name: str) -> Path | None:
    """The file that an import would take for a module; None if there is none."""
    with suppress(ImportError, ValueError):  # for example a name with a dot
        spec = importlib.util.find_spec(name)
        return Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None
    return None


def _folder_of_module(name: str) -> Path | None:
    """The current folder if a module lies in it, as with `python -m`; None if the module is installed."""
    folder = Path.cwd().resolve()
    top = folder / name.partition(".")[0]
    return folder if top.is_dir() or top.with_suffix(".py").is_file() else None


def _files_of(module: ModuleType, root: Path | None) -> dict[str, Path]:
    file = Path(module.__file__ or "").resolve()
    if root is not None:
        return program_files(file, root)
    top = module.__name__.partition(".")[0]
    packages = [parent for parent in file.parents if parent.name == top]
    return program_files(file, packages[-1].parent, only=top) if packages else {file.name: file}


def _is_users(file: str) -> bool:
    """Whether a file lies in a folder of the user, and not in a folder of installed packages within."""
    folders = [folder for folder in (*_replaced_modules, *map(Path, sys.path)) if Path(file).is_relative_to(folder)]
    return max(folders, key=lambda folder: len(folder.parts), default=None) in _replaced_modules


def _hide_commands() -> None:
    """Remove the folders of our commands from `sys.path`, so that `import run` imports a module of the user."""
    folders = {str(PROJECT / package) for package in PACKAGES}
    sys.path[:] = [folder for folder in sys.path if folder not in folders]


def _check_names(file: Path) -> None:
    """Refuse a program with a module of its own that has the name of our package, which would be imported instead."""
    for name in program_files(file, file.parent):
        package = name.partition("/")[0].removesuffix(".py")
        if package in PACKAGES and name != file.name:
            raise ValueError(
                f"it imports {package}, which is the name of a package of Tunesmith and of a module beside it: "
                "rename that module"
            )


def annotated_config(option: str, path: str) -> type[Any] | None:
    """The dataclass by which a function or a class annotates its first argument; None without such an annotation.

    A ValueError names the option if the annotations cannot be read or if a field of the dataclass has no default.
    """
    function = load_function(option, path)
    try:
        first = next(iter(signature(function, eval_str=True).parameters.values()), None)
        annotation = first.annotation if first else None
        if not (isinstance(annotation, type) and is_dataclass(annotation)):
            return None
        get_type_hints(annotation)
    except Exception as error:  # Python cannot resolve an annotation
        raise ValueError(f"{option} {path}: its annotations cannot be read: {error}") from error
    for field in fields(annotation):
        if field.init and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{option} {path}: hyperparameter {field.name} needs a default")
    return annotation


def default_arguments(option: str, path: str) -> dict[str, PlainValue]:
    """The defaults of a function's parameters, by name, as plain values; a ValueError says that it cannot be imported.

    It is empty for a function that does not say which parameters it has.
    """
    try:
        parameters = signature(load_function(option, path)).parameters
    except (TypeError, ValueError):  # something that is written in C
        return {}
    return {
        name: plain(parameter.default)
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty
    }
