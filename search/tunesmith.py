"""Search hyperparameters, and work with the studies. Each command has its own --help."""

import difflib
import importlib
import sys
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from operator import or_
from typing import Annotated, Any, NoReturn

import tyro

from training.console.command_line import PROGRAM, begin_command, refuse, run_command


@dataclass(frozen=True)
class Command:
    """A command: the same as its script."""

    script: str
    """The file, from the project's folder."""
    settings: str
    """The name of the dataclass of its options, in the module of the script."""
    outlive_reader: bool
    """Whether it goes on when the reader of its output ends."""

    @property
    def module(self) -> str:
        """The import name of the script."""
        return self.script.removesuffix(".py").replace("/", ".")


COMMANDS = {
    "run": Command("search/run.py", "StudySettings", outlive_reader=True),
    "report": Command("search/report.py", "ReportSettings", outlive_reader=True),
    "confirm": Command("search/confirm.py", "ConfirmSettings", outlive_reader=True),
    "reproduce": Command("search/reproduce.py", "ReproduceSettings", outlive_reader=False),
    "compare": Command("search/compare.py", "CompareSettings", outlive_reader=True),
    "control": Command("search/control.py", "ControlSettings", outlive_reader=False),
    "replay": Command("search/replay.py", "ReplaySettings", outlive_reader=False),
    "train": Command("training/run.py", "TrainingSettings", outlive_reader=False),
    "predict": Command("training/predict.py", "PredictSettings", outlive_reader=False),
    "export": Command("training/export.py", "ExportSettings", outlive_reader=False),
}
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
SHELLS = ("bash", "zsh", "fish")
"""The shells that tyro completes command lines in."""


def main() -> NoReturn:
    """Run the command that the command line names; exits with its status."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMPLETION:  # without what guards the output of commands: a script may have tabs
        _write_completions(*sys.argv[1:])
    if name not in COMMANDS:
        run_command(_run_no_command, outlive_reader=False)
    command = COMMANDS[name]
    begin_command(name)
    run_command(lambda: _module(command).main(), outlive_reader=command.outlive_reader)


def _module(command: Command) -> Any:
    return importlib.import_module(command.module)


def _run_no_command() -> int:
    """Answer a command line that does not begin with a command; returns the exit status."""
    match sys.argv[1:]:
        case []:
            refuse(f"name a command: {', '.join(COMMANDS)}; {PROGRAM} --help explains them")
        case ["--version"]:
            print(f"{PROGRAM} {version(PROGRAM)}")
        case ["-h" | "--help", *_]:
            _describe_commands("--help")
        case [word, *_]:
            matches = difflib.get_close_matches(word, COMMANDS, n=1)
            suggestion = f"did you mean {matches[0]}?" if matches else f"the commands are {', '.join(COMMANDS)}"
            refuse(f"there is no command {word}; {suggestion}")
    return 0


def _write_completions(option: str, shell: str = "", *words: str) -> NoReturn:
    """Print the completions of a shell, or write them into a file, and exit."""
    if shell not in SHELLS:
        refuse(f"{option} needs a shell: {', '.join(SHELLS[:-1])} or {SHELLS[-1]}")
    if option == COMPLETION[1] and not words:
        refuse(f"{option} {shell} needs a file")
    try:
        _describe_commands(option, shell, *words)
    except OSError as error:
        refuse(f"{error.filename} cannot be written: {error.strerror}")


def _describe_commands(*args: str) -> NoReturn:
    """Let tyro print or write what it knows of all commands, and exit."""
    parsers: list[Any] = []
    for name, command in COMMANDS.items():
        module = _module(command)
        parser = tyro.conf.subcommand(name, description=module.__doc__, prefix_name=False)
        parsers.append(Annotated[getattr(module, command.settings), parser])
    shells = ", ".join(SHELLS)
    more = f"{PROGRAM} --version prints the version; {PROGRAM} {COMPLETION[0]} SHELL prints completions for {shells}."
    all_parsers: Any = reduce(or_, parsers)
    tyro.cli(all_parsers, prog=PROGRAM, description=f"{__doc__}\n\n{more}", args=args)
    raise AssertionError("tyro exits after what it prints")
