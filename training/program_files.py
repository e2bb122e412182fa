"""Finds the files of a program: the files beside it that it imports, and that those import."""

import ast
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from training.config import PROJECT

_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def program_files(file: Path, root: Path, only: str | None = None) -> dict[str, Path]:
    """The file of a program and the files that its `import` statements name, in functions too, by path below a folder.

    Args:
        file: The file.
        root: The folder in which imports begin; modules that lie elsewhere are not followed.
        only: The package that is followed; by default each module in the folder is.
    """
    files, waiting = {}, [file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if name not in files:
            files[name] = path
            waiting += [found for module in _imported(path, root) for found in _module_files(module, root, only)]
    return files


def checksum(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the contents of files, by path; of a single file as other tools compute it."""
    if len(files) == 1:
        return sha256(*files.values()).hexdigest()
    lines = [f"{name} {sha256(content).hexdigest()}\n" for name, content in sorted(files.items())]
    return sha256("".join(lines).encode()).hexdigest()


def meaning(content: bytes) -> bytes:
    """The content of a Python file without comments, docstrings and layout; another file as it is."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return content
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree).encode()


def _imported(file: Path, root: Path) -> Iterator[str]:
    """Full names of all that the imports of a file could be about."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):  # then its import says so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = list(file.relative_to(root).parts[: -node.level]) if node.level else []
            names = [*start, *filter(None, [node.module])]
            yield from (".".join([*names, alias.name]) for alias in node.names)


def _module_files(name: str, root: Path, only: str | None) -> Iterator[Path]:
    """The file of a module, and those of the packages above it."""
    parts, path = name.split("."), root
    if only not in (None, parts[0]) or (root == PROJECT and parts[0] in ("search", "training")):
        return
    for part in parts:
        path = path / part
        candidates = (path / "__init__.py", path.with_name(f"{part}.py"))
        yield from [candidate for candidate in candidates if candidate.is_file()][:1]
