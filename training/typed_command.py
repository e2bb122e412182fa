"""Command lines of this project in the form in which the user of this process can type them."""

import shlex
import shutil
import sys
from pathlib import Path

from training.config import IS_INSTALLED, PROJECT
from training.console.command_line import PROGRAM, command_of_program
from training.console.terminal import short_path


def program_command(script: str) -> str:
    """The command of the program that is the same as a script."""
    return "train" if script == "training/run.py" else Path(script).stem


def command_line(script: str, *args: str) -> str:
    """A command of this project as it can be typed in the current folder.

    Args:
        script: The file, from the project's folder, for example `search/run.py`.
        args: The words behind it.
    """
    if _knows_program():
        return shlex.join([_path_of_program(), program_command(script), *args])
    return shlex.join(["python", str(short_path(PROJECT / script)), *args])


def portable_line(script: str, *args: str) -> str:
    """A command of this project for a file, which may be read in another folder: from that of the project."""
    words = [PROGRAM, program_command(script)] if _knows_program() else ["python", script]
    return shlex.join([*words, *args])


def command_name(script: str) -> str:
    """What a script is called in a sentence."""
    return f"{PROGRAM} {program_command(script)}" if _knows_program() else script


def _knows_program() -> bool:
    """Whether the user types the program: so this process was started, or there is no checkout with scripts."""
    return IS_INSTALLED or command_of_program() is not None


def _path_of_program() -> str:
    """The program by its name, or by its path if the shell does not find it or finds another one."""
    started = sys.argv[0].rpartition(" ")[0] if command_of_program() else Path(sys.executable).with_name(PROGRAM)
    path, found = Path(started).absolute(), shutil.which(PROGRAM)
    if not path.exists() or (found and Path(found).resolve() == path.resolve()):
        return PROGRAM
    return str(short_path(path))
