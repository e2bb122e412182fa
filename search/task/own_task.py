"""The tasks to run a training of the user's own: a function or a program, which has its data and its metrics."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from search.task.command_template import CommandTemplate
from search.task.custom_metrics import CustomMetrics
from search.task.metric_names import Mode, check_metric_name, derived_mode
from search.task.task import Task
from training.config import check_choice, check_import_path, function_name, is_passed_function


@dataclass(frozen=True, kw_only=True)
class OwnTask(Task):
    """The trials run a training of the user's own; only its reports say which metrics it has."""

    reported: Sequence[str] = ()
    """The metrics that were reported so far."""

    epoch_type: ClassVar[type[Any]] = CustomMetrics

    @property
    def metric_names(self) -> list[str]:
        """The metric of the study, and the others that were reported."""
        return list(dict.fromkeys([self.metric, *self.reported]))

    @property
    def displayed_metrics(self) -> list[str]:
        """The metric of the study."""
        return [self.metric]

    def checked_mode(self, metric: str | None, mode: Mode | None, val_fraction: float) -> Mode:  # noqa: ARG002
        """Check that the settings name the metric; its mode is theirs, or what the name of the metric says today."""
        if metric is None:
            raise ValueError(f"{self.option} needs metric, the name of a metric that the training reports")
        chosen = mode or derived_mode(metric)
        if chosen is None:
            raise ValueError(
                f"{self.option} needs mode: whether the highest {metric} is the best (max) or the lowest (min)"
            )
        check_choice("mode", chosen, Mode)
        check_metric_name(metric)
        return chosen

    def recorded(self, dataset: str | None, metrics: Sequence[str]) -> Self:
        """The task with the metrics that were reported."""
        if dataset is not None:
            raise ValueError("a study has either a data set or a training of the user's own")
        for name in metrics:
            check_metric_name(name)
        return replace(self, reported=metrics)

    def unit(self, metric: str) -> str:
        """The name of the metric, whose unit is unknown."""
        return metric

    def is_accuracy(self, metric: str) -> bool:  # noqa: ARG002
        """No metric is known to be an accuracy in [0, 1], whatever its name is."""
        return False

    def reported_names(self, metrics: CustomMetrics) -> list[str]:
        """All metrics of the epoch."""
        return [*metrics.values]

    def check_epoch(self, metrics: CustomMetrics) -> None:
        """Raise a ValueError if a metric is not finite, or is one that the study does not name."""
        for name, value in metrics.values.items():
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} cannot be {value}")
        if not metrics.values.keys() <= {*self.metric_names}:
            raise ValueError(f"epoch {metrics.epoch} has metrics that the study does not name")


@dataclass(frozen=True, kw_only=True)
class FunctionTask(OwnTask):
    """The trials call a training function."""

    path: str
    """Its import path."""

    without_seed = "the function takes no seed, and only the generators of Python, NumPy and torch are seeded"

    @property
    def name(self) -> str:
        """The import path without the folder of its file."""
        return Path(self.path).name.removeprefix("__main__:")

    @property
    def train_function(self) -> str:
        """The import path."""
        return self.path

    @property
    def option(self) -> str:
        """The setting that names what is trained."""
        return "train_function"

    @property
    def description(self) -> str:
        """The import path, which a function of a Python program does not have."""
        return f"{self.name}, a function of this program" if is_passed_function(self.path) else self.path

    @property
    def fixed(self) -> dict[str, Any]:
        """The function, and the limit of the epochs."""
        return {"train_function": self.path, "epochs": self.epochs}

    @property
    def exported_as(self) -> dict[str, Any]:
        """The name of the function."""
        return {"train_function": self.name}

    def checked_mode(self, metric: str | None, mode: Mode | None, val_fraction: float) -> Mode:
        """Check the form of the import path, too."""
        check_import_path(self.option, self.path)
        return super().checked_mode(metric, mode, val_fraction)

    def short_name(self, data_dir: Path) -> str:  # noqa: ARG002
        """The name of the file or module, and of the function unless it is called `train`."""
        return function_name(self.path, "train") or "training"

    def config_type(self) -> type[Any] | None:
        """The dataclass by which the function annotates its first argument."""
        from training.user_code import annotated_config  # as late as in the other tasks

        return annotated_config(self.option, self.path)

    def defaults(self) -> dict[str, Any]:
        """The defaults of the fields of the dataclass, or else of the parameters."""
        from training.user_code import default_arguments

        return super().defaults() or default_arguments(self.option, self.path)

    def checksums(self) -> dict[str, str]:
        """Checksums of the function's files."""
        from search.task import checksums  # torch takes seconds

        return checksums.custom_code(self.path)


@dataclass(frozen=True, kw_only=True)
class ProgramTask(OwnTask):
    """The trials run a program by a command."""

    command: str
    """The command, with `{name}` for values."""
    parse: str | None
    """Regular expression that finds the metrics in a line of the output; None where the program prints JSON objects."""

    may_have_defaults = False
    saves_epochs = False
    without_seed = "the command has no {seed}, so nothing has seeded the program"
    unrecorded = ("of the program nothing is recorded but the scripts that its command names, and what these import",)

    @cached_property
    def template(self) -> CommandTemplate:
        """The command, split into words; a ValueError says that it cannot be read."""
        return CommandTemplate(self.command)

    @property
    def name(self) -> str:
        """The name of the script, of the module, or else of the program."""
        return self.template.title

    @property
    def option(self) -> str:
        """The setting that names what is trained."""
        return "command"

    @property
    def description(self) -> str:
        """The command."""
        return self.command

    @property
    def fixed(self) -> dict[str, Any]:
        """The command and how its output is read, and the limit of the epochs."""
        return {"command": self.command, "parse": self.parse, "epochs": self.epochs}

    @property
    def exported_as(self) -> dict[str, Any]:
        """The name of the program."""
        return {"program": self.name}

    @property
    def takes_new_seeds(self) -> bool:
        """Whether the program gets its seed in its command; it gets it there or not at all."""
        return self.template.takes_seed

    def checked_mode(self, metric: str | None, mode: Mode | None, val_fraction: float) -> Mode:
        """Check that the regular expression finds the metric, too."""
        chosen = super().checked_mode(metric, mode, val_fraction)
        if self.parse is None:
            return chosen
        try:
            groups = re.compile(self.parse).groupindex
        except re.error as error:
            raise ValueError(f"parse must be a regular expression: {error}, got {self.parse}") from None
        if self.metric not in groups:
            raise ValueError(f"parse needs a group for the metric, (?P<{self.metric}>...), got {self.parse}")
        return chosen

    def check_takes_new_seeds(self) -> None:
        """Raise a ValueError if the command has no place for a seed."""
        self.template.check_takes_seed()

    def short_name(self, data_dir: Path) -> str:  # noqa: ARG002
        """The name of the program, of signs that a folder can have."""
        return function_name(f"{self.name}:main", "main") or "program"

    def config_type(self) -> None:
        """No dataclass: the search space alone says what there is."""

    def checksums(self) -> dict[str, str]:
        """Checksums of the scripts that the command names."""
        from search.task import checksums  # torch takes seconds

        return checksums.command_code(self.template)
