"""The source of a function of a notebook or a script, by which a resumed study sees that the function has changed."""

import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any


@dataclass(frozen=True)
class FunctionSource:
    """What a function does, and where it comes from."""

    text: str
    """The source of the function without comments, and of what it uses of its own module: functions and classes, in
    their turn with what they use, and plain values, which are numbers, texts, and containers of them."""
    modules: frozenset[str]
    """Names of the other modules from which it uses something."""


def function_source(function: Callable[..., Any]) -> FunctionSource:
    """The source of a function that is not imported; values such as arrays do not belong to it."""
    module = getattr(_unwrapped(function), "__module__", None)
    texts: dict[str, str] = {}
    modules: set[str] = set()
    visited: set[int] = set()  # a class that calls `super` and a function within a function may lead to themselves
    waiting: list[tuple[str, object]] = [(getattr(function, "__name__", ""), function)]
    while waiting:
        name, used = waiting.pop()
        code = _unwrapped(used)
        if name in texts or id(code) in visited:
            continue
        if isinstance(code, type | FunctionType):
            visited.add(id(code))
        if _is_plain(used):
            texts[name] = f"{name} = {used!r}"
        elif isinstance(used, ModuleType):
            modules.add(used.__name__)
        elif isinstance(code, type | FunctionType) and code.__module__ != module:
            modules.add(code.__module__)
        elif isinstance(code, type):
            texts[name] = f"class {name}({', '.join(base.__qualname__ for base in code.__bases__)})"
            waiting += [*_members(name, code), *((base.__qualname__, base) for base in code.__bases__)]
        elif isinstance(code, FunctionType):
            texts[name] = _text(code)
            waiting += _used_by(name, code)
    return FunctionSource("\n".join(text for _, text in sorted(texts.items())), frozenset(modules))


def _unwrapped(value: object) -> object:
    """The function within a decorated one, a method or a property."""
    match value:
        case property():
            return _unwrapped(value.fget)
        case staticmethod() | classmethod() | MethodType():
            return _unwrapped(value.__func__)
        case FunctionType():
            return inspect.unwrap(value)
    return value


def _members(name: str, used: type) -> Iterator[tuple[str, object]]:
    """The named parts of a class, without those that Python generates."""
    for member, value in vars(used).items():
        is_generated = isinstance(value, FunctionType) and value.__code__.co_filename == "<string>"
        if member not in ("__module__", "__doc__", "__qualname__") and not (is_generated and is_dataclass(used)):
            yield f"{name}.{member}", value


def _used_by(name: str, function: FunctionType) -> Iterator[tuple[str, object]]:
    """The values of the names in the code of a function, those of its closure, its defaults and its annotations."""
    for used in dict.fromkeys(_names(function.__code__)):
        if used in function.__globals__:
            yield used, function.__globals__[used]
    for used, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{name}: {used}", cell.cell_contents
        except ValueError:  # the cell is still empty
            continue
    yield f"{name}: defaults", [function.__defaults__, function.__kwdefaults__]
    for annotation in function.__annotations__.values():
        if isinstance(annotation, type):
            yield annotation.__name__, annotation


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes in the code of a function and of the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(member) for pair in value.items() for member in pair)
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes)


def _text(function: FunctionType) -> str:
    """The source of a function without comments and blank lines; its byte code if the source is not known."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # typed at a prompt that keeps no source
        code = function.__code__
        constants = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
        return f"{code.co_code.hex()} {code.co_names} {constants}"
    lines = source.splitlines()
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    except (tokenize.TokenError, SyntaxError):  # a part of a larger expression
        return source
    return "\n".join(line.rstrip() for line in lines if line.strip())
