"""Parses a command line into a frozen dataclass of settings, or prints one sentence and exits with status 2."""

import gc
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import pairwise, zip_longest
from types import MappingProxyType
from typing import NoReturn, TypeVar, get_origin, get_type_hints

import tyro
from tyro import _docstrings as tyro_docstrings
from tyro import _errors as tyro_errors

from training.console.json_output import Error, asks_for_json, objects_written_to, write_object
from training.console.terminal import (
    guard_json_output,
    guard_output,
    print_error,
    printable,
    shorten,
    type_and_text,
)

Settings = TypeVar("Settings")

PROGRAM = "tunesmith"
"""The program that pip installs; each of its commands is the same as a script, `tunesmith run` as `search/run.py`."""
LONGEST_SENTENCE = 1000
"""Longer sentences are cut after this number of characters: they may quote long arguments or files."""


def begin_command(command: str) -> None:
    """Take the first word of the command line, a command of the program, into the name of this process."""
    sys.argv = [f"{sys.argv[0]} {command}", *sys.argv[2:]]


def command_of_program() -> str | None:
    """The command of the program as which this process was started; None if it was started in another way."""
    path, _, command = sys.argv[0].rpartition(" ")
    return command if os.path.basename(path) == PROGRAM else None


def run_command(main: Callable[[], int], *, outlive_reader: bool) -> NoReturn:
    """Run a command's `main` as the whole program; exits with the status that it returns.

    Args:
        main: Function of the command.
        outlive_reader: Whether the program goes on when the reader of its output ends (`| head -1`).
    """
    with ExitStack() as stack:
        if asks_for_json(sys.argv[1:]):
            stack.enter_context(objects_written_to(guard_json_output(outlive_reader=outlive_reader)))
        else:
            guard_output(outlive_reader=outlive_reader)
        signal.signal(signal.SIGTERM, _end)
        gc.set_threshold(50_000)  # imports make no garbage, and the search for it takes a sixth of their time
        try:
            os.getcwd()  # without it, the mathematics of torch ends the process with an error of its own
        except FileNotFoundError:
            refuse("the current folder does not exist any more: change to another one")
        try:
            status = _status_of(main)
        finally:
            sys.stdout.flush()  # an error of the output is found here, and not at the exit of Python
    gc.freeze()  # at the exit, the search for garbage would take a second
    sys.exit(status)


def _end(number: int, _frame: object) -> NoReturn:
    """Exit after a signal, so that temporary files are removed."""
    signal.alarm(0)  # a library that met the signal first, as Ray does while it starts, would abort us after a while
    sys.exit(128 + number)


def _status_of(main: Callable[[], int]) -> int:
    """Run `main`; an error under a limit of memory, at which libraries cannot even be imported, is one sentence."""
    try:
        return main()
    except Exception as error:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY or not isinstance(error, ImportError | MemoryError):
            write_object(Error(message=mask_password(type_and_text(error))))
            raise
        sentence = f"the limit of virtual memory (ulimit -v) of {limit >> 20} MiB is too small: {error}"
        write_object(Error(message=complain(sentence)))
        return 1


def parse(
    settings: type[Settings],
    description: str,
    args: list[str] | None = None,
    default: Settings | None = None,
    *,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Read a command line into a settings dataclass.

    Args:
        settings: Frozen dataclass; each field is an option and the string under it is its help.
        description: First lines of `--help`.
        args: The command line without the program; by default that of this process.
        default: Values of the options that the command line leaves out; by default the fields' own.
        renamed: Options of earlier versions, and their present names.

    Returns:
        The checked settings. A mistake prints one sentence on stderr and exits with status 2.
    """
    args = sys.argv[1:] if args is None else args
    for option, new in renamed.items():
        if any(arg.partition("=")[0].replace("_", "-") == option for arg in args):
            refuse(f"{option} has another name now: use {new}")
    for option, value in pairwise([*args, "--"]):
        if option.startswith("--") and (value == "" or option.endswith("=")):
            refuse(f"{option.removesuffix('=')} needs a value")
    for name, field_type in get_type_hints(settings).items():
        option = f"--{name.replace('_', '-')}"
        if get_origin(field_type) is tuple and sum(arg.partition("=")[0] == option for arg in args) > 1:
            refuse(f"{option} is given twice: write all its values after one {option}")
        is_empty = any(
            arg.replace("_", "-") == option and value.startswith("--") for arg, value in pairwise([*args, "--"])
        )
        if get_origin(field_type) is tuple and is_empty and not getattr(default, name, None):  # nothing to take back
            refuse(f"{option} needs a value")
    prog = f"{PROGRAM} {command}" if (command := command_of_program()) else None
    with tyro_errors.on_parse_error(_refuse_parse_error):
        if default is None:
            return tyro.cli(settings, prog=prog, description=description, args=args)
        return tyro.cli(settings, prog=prog, description=description, args=args, default=default)


_docstrings_of_fields = tyro_docstrings.parse_docstring_from_object


def _help_of_fields(settings: object) -> dict[str, str]:
    """The help of each field in one line; tyro would break the lines of `--help` where the source code does."""
    return {name: " ".join(text.split()) for name, text in _docstrings_of_fields(settings).items()}


tyro_docstrings.parse_docstring_from_object = _help_of_fields  # type: ignore[assignment]


def option_value(args: list[str], option: str) -> str | None:
    """The value of an option in a command line, as `--option VALUE` or `--option=VALUE`; None without the option.

    As in the parser, the last of several values is valid, and `_` in an option is the same as `-`.
    """
    value = None
    for arg, next_arg in zip_longest(args, args[1:]):
        name, equals, rest = arg.partition("=")
        if name.replace("_", "-") == option:
            value = rest if equals else next_arg
    return value


def refuse(sentence: str) -> NoReturn:
    """Print one sentence about a user's mistake on stderr and exit with status 2; with `--json`, also as an object."""
    write_object(Error(message=complain(sentence)))
    sys.exit(2)


def complain(sentence: str) -> str:
    """Print one sentence about a user's mistake on stderr; returns it as it was printed."""
    line = shorten(printable(mask_password(" ".join(sentence.split()))), LONGEST_SENTENCE)
    print_error(f"error: {line}")
    return line


def mask_password(text: str) -> str:
    """A text with stars instead of a password in an address."""
    return re.sub(r"(://[^:/@]*):.*@|(password=)[^&]*", _mask, text, flags=re.DOTALL)


def _mask(password: re.Match[str]) -> str:
    return f"{password[2]}***" if password[2] else f"{password[1]}:***@"


_RULES = {
    "invalid literal for int() with base 10: ": "must be a whole number",
    "could not convert string to float: ": "must be a number",
}
"""What a value of a type must be, by the beginning of Python's error message."""


def _refuse_parse_error(event: tyro_errors.ParseErrorEvent) -> None:
    """Print one sentence instead of the box of tyro; other events are left to tyro."""
    match event:
        case tyro_errors.InstantiationFailure(argument=None):
            refuse(event.message)
        case tyro_errors.InstantiationFailure(argument=argument) if argument is not None:
            reason = event.message.rpartition(">: ")[2]  # not the NoneType's
            for error, rule in _RULES.items():
                if reason.startswith(error):
                    refuse(f"{argument.display_name()} {rule}, got {reason.removeprefix(error)}")
            refuse(f"{argument.display_name()} cannot be read: {reason}")
        case tyro_errors.InvalidChoice():
            known = ", ".join(event.choices)
            refuse(f"{event.argument.display_name()} must be one of {known}, got {event.value}")
        case tyro_errors.UnrecognizedArgs():
            refuse(f"unknown option {event.tokens[0]}; --help lists the known ones")
        case tyro_errors.BadValue():
            refuse(f"{event.argument.display_name()} needs a value")
        case tyro_errors.MissingArgs():
            arguments = [missing.arg for missing in event.missing_arguments]
            names = [str(one.lowered.metavar) if one.is_positional() else one.display_name() for one in arguments]
            refuse(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing; --help explains it")
        case _:
            pass
