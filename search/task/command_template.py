"""A command of the user's own with `{name}` where values belong: what it names, and its arguments for one trial."""

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from training.program_files import program_files

OPTION = "command"
LIMIT = "epochs"
"""The placeholder for the largest number of epochs; a command that has it ends by itself there."""
PROVIDED = ("seed", LIMIT, "checkpoint", "trial_folder")
"""Placeholders that are no hyperparameters."""
_FLAG = re.compile(r"\{(--?[^\W\d][\w-]*)\}")
"""An option that is given where the hyperparameter of its name is true: `{--use-amp}` for `use_amp`."""
_PART = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
_LITERAL = {"{{": "{", "}}": "}"}


class CommandTemplate:
    """A command, split into words as a shell would, but run without one."""

    def __init__(self, command: str) -> None:
        """Split a command.

        Raises:
            ValueError: It is empty, or a quotation or a brace is not closed.
        """
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"{OPTION} cannot be read: {error}, got {command}") from None
        if not self._words:
            raise ValueError(f"{OPTION} must name a program")
        for word in self._words:
            for part in _PART.finditer(word):
                if part[0] in ("{", "}"):
                    raise ValueError(
                        f"{OPTION} has a {part[0]} that belongs to no {{name}}, in {word}; "
                        f"for the sign itself write {2 * part[0]}"
                    )
                if part[1] and part[1].startswith("-") and not _FLAG.fullmatch(word):
                    raise ValueError(
                        f"{OPTION} has {part[0]} within {word}; the option of a hyperparameter that is true or false "
                        "is an argument of its own, for example {--amp}"
                    )

    @cached_property
    def names(self) -> dict[str, None]:
        """The names in braces, each once, in order."""
        return dict.fromkeys(name for word in self._words for name in _names(word))

    @property
    def title(self) -> str:
        """A short name: that of the script, of the module, or else of the program."""
        names = (
            word if before == "-m" else Path(word).name
            for before, word in pairwise(["", *self._words])
            if before == "-m" or word.endswith(".py")
        )
        return next(names, Path(self._words[0]).name)

    def check_names(self, hyperparameters: Mapping[str, bool], *, has_limit: bool) -> None:
        """Check that the command takes exactly the hyperparameters of a search space.

        Args:
            hyperparameters: Whether each is true or false, by name.
            has_limit: Whether the number of epochs has a limit.

        Raises:
            ValueError: It does not, or a hyperparameter of an option like `{--amp}` is not true or false.
        """
        for name in self.names:
            if name == LIMIT and name not in hyperparameters and not has_limit:
                raise ValueError(f"{OPTION} has {{{LIMIT}}}, which needs a limit of the epochs: add --epochs")
            if name not in {*hyperparameters, *PROVIDED}:
                raise ValueError(
                    f"{OPTION} has {{{name}}}, which is no hyperparameter of the search space; "
                    "for braces themselves write {{ and }}"
                )
        for name in hyperparameters:
            if name not in self.names:
                raise ValueError(
                    f"{OPTION} does not use the hyperparameter {name} of the search space: "
                    f"write {{{name}}} where its value belongs"
                )
        for flag in filter(None, map(_FLAG.fullmatch, self._words)):
            name = _name(flag[1])
            if not hyperparameters.get(name):
                raise ValueError(
                    f"{OPTION} has {flag[0]}, which is given where {name} is true, but the values of {name} are not "
                    "true and false"
                )

    @property
    def takes_seed(self) -> bool:
        """Whether the command has a place for the seed; a program without one cannot be seeded."""
        return "seed" in self.names

    def check_takes_seed(self) -> None:
        """Check that new seeds reach the program.

        Raises:
            ValueError: They do not.
        """
        if not self.takes_seed:
            raise ValueError(
                f"{OPTION} has no {{seed}}, so new seeds would not reach the program and all trainings of a "
                "confirmation would be equal; search with {seed} where the program takes its seed"
            )

    def check_program(self) -> None:
        """Check that the program, and the Python file that it gets, are there.

        Raises:
            ValueError: One is not.
        """
        program, *_ = self._words
        if not _names(program) and shutil.which(program) is None:
            is_path = os.sep in program
            if is_path and Path(program).is_file():
                raise ValueError(f"{OPTION}: {program} is not executable; chmod +x makes it so")
            where = "" if is_path else ", in no folder of PATH"
            raise ValueError(f"{OPTION}: there is no program {program}{where}")
        for word in self._words:
            if word.endswith(".py") and not _names(word) and not Path(word).is_file():
                raise ValueError(f"{OPTION}: there is no file {Path(word).absolute()}")

    def files(self) -> dict[str, dict[str, Path]]:
        """The files of the program, as far as the command names them; those that they import, too.

        Returns:
            For each script or module that the command names: its files, by their path below its folder.
        """
        return {name: program_files(file, file.parent) for name, file in self._scripts().items()}

    def fill(self, values: Mapping[str, object]) -> list[str]:
        """The words with values in place of names.

        A word with a name that has no value is left out: that of a hyperparameter whose condition does not hold. If it
        is nothing but this name, so is an option before it. An option like `{--amp}` is there where its value is true.
        """
        filled: list[str] = []
        before = ""
        for word in self._words:
            if flag := _FLAG.fullmatch(word):
                filled += [flag[1]] if values.get(_name(flag[1])) is True else []
            elif all(name in values for name in _names(word)):
                filled.append(_PART.sub(lambda part: _LITERAL.get(part[0]) or str(values[part[1]]), word))
            elif re.fullmatch(r"\{[^{}]+\}", word) and re.fullmatch(r"-[^={}]+", before):
                filled.pop()
            before = word
        return filled

    def _scripts(self) -> dict[str, Path]:
        """The Python files, the module behind `-m` and the path of a program in the command, by name."""
        found: dict[str, Path] = {}
        for before, word in pairwise(["", *self._words]):
            path = Path(word)
            if before == "-m":
                base = Path(*word.split("."))
                path = base / "__main__.py" if base.is_dir() else base.with_suffix(".py")
                if path.is_file():
                    found[word] = path
            elif (word.endswith(".py") or (before == "" and os.sep in word)) and path.is_file():
                found[path.name] = path
        return found


def is_same_command(command: str, other: str) -> bool:
    """Whether two commands have the same words, whatever blanks and quotation marks are between them."""
    with suppress(ValueError):  # a quotation that is not closed
        return shlex.split(command) == shlex.split(other)
    return command == other


def _names(word: str) -> list[str]:
    return [_name(part[1]) for part in _PART.finditer(word) if part[1]]


def _name(in_braces: str) -> str:
    """The name of the hyperparameter: that which argparse would give to an option, or the text itself."""
    return in_braces.lstrip("-").replace("-", "_") if in_braces.startswith("-") else in_braces
