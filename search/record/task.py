"""The task of a study: to classify images with a network, or to run a function or a program of the user's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.record.command_template import CommandTemplate
from search.record.custom_metrics import CustomMetrics
from search.record.trial import Metrics
from search.settings import StudySettings
from training.metrics import EpochMetrics
from training.networks.network_config import config_type
from training.user_code import annotated_config

POINTS, NATS = "points", "nats"
"""Units of the differences of an accuracy and of a loss on images."""
IMAGE_METRICS = ["val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_loss"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """The network, function or program that the trials of a study train, and the metrics that they report."""

    name: str
    """The name of the data set, or of the training function without its folder, or of the program."""
    network: str | None = None
    """The value of `TrialConfig.network`; None with a training of the user's own, which has its network and data."""
    train_function: str | None = None
    """The import path of the training function."""
    command: str | None = None
    """The command that runs the program, with `{name}` for values."""
    fixed: dict[str, Any]
    """Values that are the same in every trial: fields of `TrialConfig`; or `epochs` and `train_function`, or `command`
    and `parse`."""
    metric_names: list[str]
    """All metrics of an epoch, the most important one first."""
    displayed_metrics: list[str]
    """The metrics that are shown if there is room for only a few."""
    epoch_type: type[Metrics]
    """The class that holds the metrics of an epoch."""

    @property
    def test_metrics(self) -> list[str]:
        """The metrics on test data, which are reported and choose nothing, the most important one first."""
        return [name for name in self.metric_names if name.startswith("test_")]

    @property
    def trains_on_all_data(self) -> bool:
        """Whether the winner of a confirmation is trained on the validation data, too; others have their own."""
        return self.has_images

    @property
    def saves_epochs(self) -> bool:
        """Whether what is saved belongs to an epoch; a program has one folder until its end, used as it likes."""
        return self.command is None

    @property
    def takes_new_seeds(self) -> bool:
        """Whether new seeds reach the training: a program gets its seed in its command, or not at all."""
        return self.command is None or CommandTemplate(self.command).takes_seed

    def check_takes_new_seeds(self) -> None:
        """Raise a ValueError if new seeds do not reach the training."""
        if self.command is not None:
            CommandTemplate(self.command).check_takes_seed()

    @property
    def without_seed(self) -> str:
        """What it means that the training has no place for its seed."""
        if self.command is None:
            return "the function takes no seed, and only the generators of Python, NumPy and torch are seeded"
        return "the command has no {seed}, so nothing has seeded the program"

    @property
    def unrecorded(self) -> list[str]:
        """What the record does not have of the training, although its numbers may depend on it."""
        scripts = "the scripts that its command names, and what these import"
        return [] if self.command is None else [f"of the program nothing is recorded but {scripts}"]

    @property
    def has_images(self) -> bool:
        """Whether the task is to classify images, so that there are test images and a model to export."""
        return self.network is not None

    def unit(self, metric: str) -> str:
        """The unit of differences of a metric; that of a training function's metric is unknown and has its name."""
        if not self.has_images:
            return metric
        return POINTS if metric.endswith("accuracy") else NATS

    def is_accuracy(self, metric: str) -> bool:
        """Whether a metric is an accuracy in [0, 1]; differences of accuracies are shown in points."""
        return self.has_images and self.unit(metric) == POINTS

    def config_type(self) -> type[Any] | None:
        """The dataclass of all hyperparameters and their defaults; None if the search space alone says what there is.

        The file of a user's network or training function is imported; a ValueError says that this failed.
        """
        if self.network is not None:
            return config_type(self.network)
        return None if self.train_function is None else annotated_config("train_function", self.train_function)


def task_of(settings: StudySettings, dataset: str | None, custom_metrics: list[str]) -> Task:
    """The task of a study.

    `dataset` is the name of its data set; None with a training of the user's own, which has reported `custom_metrics`.
    """
    metric, epochs = settings.metric_name, settings.epochs
    if settings.has_images:
        return Task(
            name=str(dataset),
            network=settings.network,
            fixed={"epochs": epochs, "network": settings.network},
            metric_names=IMAGE_METRICS,
            displayed_metrics=list(dict.fromkeys([metric, "test_accuracy"])),
            epoch_type=EpochMetrics,
        )
    function, command = settings.train_function, settings.command
    code = {"train_function": function} if command is None else {"command": command, "parse": settings.parse}
    return Task(
        name=Path(str(function)).name.removeprefix("__main__:") if command is None else CommandTemplate(command).title,
        train_function=function,
        command=command,
        fixed={**code, "epochs": epochs},
        metric_names=list(dict.fromkeys([metric, *custom_metrics])),
        displayed_metrics=[metric],
        epoch_type=CustomMetrics,
    )
