"""The task of a study: what its trials train, and what the rest of the search asks about it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from search.task.metric_names import Mode

POINTS, NATS = "points", "nats"
"""Units of the differences of an accuracy and of a loss on images."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What the trials of a study train, and the metrics that they report; each kind of training is a class of its own.

    Other modules ask what there is (`network`, `train_function`) or call a method; they do not ask for the class.
    """

    metric: str
    """The metric by which trials are compared."""
    epochs: int | None
    """Largest number of epochs of a trial; None if there is no limit."""

    default_epochs: ClassVar[int | None] = None
    """Largest number of epochs of a trial if the settings name none."""
    trains_on_all_data: ClassVar[bool] = False
    """Whether the winner of a confirmation is trained on the validation data, too."""
    may_have_defaults: ClassVar[bool] = True
    """Whether hyperparameters may have default values, with which a study begins."""
    saves_epochs: ClassVar[bool] = True
    """Whether what is saved belongs to an epoch; a program has one folder until its end, used as it likes."""
    without_seed: ClassVar[str] = ""
    """What it means that the training has no place for its seed."""
    unrecorded: ClassVar[Sequence[str]] = ()
    """What the record does not have of the training, although its numbers may depend on it."""
    epoch_type: ClassVar[type[Any]]
    """The class that holds the metrics of an epoch."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the data set, or of the training function without its folder, or of the program."""

    @property
    def network(self) -> str | None:
        """The value of `TrialConfig.network`; None if the training has its own network and data."""
        return None

    @property
    def train_function(self) -> str | None:
        """The import path of the training function; None if there is none."""
        return None

    @property
    def imported_from(self) -> str | None:
        """The program from which the trials were imported, whose training is not known; None if none was."""
        return None

    @property
    @abstractmethod
    def option(self) -> str:
        """The setting that names what is trained."""

    @property
    def description(self) -> str:
        """What is trained, in the header of a study."""
        return self.name

    @property
    @abstractmethod
    def fixed(self) -> dict[str, Any]:
        """Values that are the same in every trial, by the setting that names them."""

    @property
    @abstractmethod
    def metric_names(self) -> list[str]:
        """All metrics of an epoch, the most important one first."""

    @property
    @abstractmethod
    def displayed_metrics(self) -> list[str]:
        """The metrics that are shown if there is room for only a few."""

    @property
    def test_metrics(self) -> list[str]:
        """The metrics on test data, which are reported and choose nothing, the most important one first."""
        return [name for name in self.metric_names if name.startswith("test_")]

    @property
    def takes_new_seeds(self) -> bool:
        """Whether new seeds reach the training."""
        return True

    @property
    def exported_as(self) -> dict[str, Any]:
        """The name of the user's own training by its kind, as an exported model has it."""
        return {}

    @abstractmethod
    def checked_mode(self, metric: str | None, mode: Mode | None, val_fraction: float) -> Mode | None:
        """Check the settings of the kind of training, and of its metric.

        Args:
            metric: The metric that the settings name; None if they name none.
            mode: Likewise.
            val_fraction: Fraction of the images that is held out for validation.

        Returns:
            The mode that the record holds; None if the metric alone says it.

        Raises:
            ValueError: A setting is missing, or is one of another kind of training.
        """

    def check_stored(self) -> None:  # noqa: B027
        """Raise a ValueError if settings in a record lack what a study must have."""

    @abstractmethod
    def recorded(self, dataset: str | None, metrics: Sequence[str]) -> Self:
        """The task with what the record of a study adds to its settings.

        Args:
            dataset: The name of its data set; None if there is none.
            metrics: The metrics that were reported, if only the training knows them.

        Raises:
            ValueError: A study of this kind cannot have these.
        """

    def check_can_train(self) -> None:  # noqa: B027
        """Raise a ValueError if no trial can be trained, because the training is not known."""

    def check_takes_new_seeds(self) -> None:  # noqa: B027
        """Raise a ValueError if new seeds do not reach the training."""

    @abstractmethod
    def short_name(self, data_dir: Path) -> str | None:
        """The name with which that of a study begins; None if it depends on which data set can be downloaded."""

    @abstractmethod
    def unit(self, metric: str) -> str:
        """The unit of differences of a metric; where it is unknown, the name of the metric."""

    def is_accuracy(self, metric: str) -> bool:
        """Whether a metric is an accuracy in [0, 1]; differences of accuracies are shown in points."""
        return self.unit(metric) == POINTS

    @abstractmethod
    def config_type(self) -> type[Any] | None:
        """The dataclass of all hyperparameters and their defaults; None if the search space alone says what there is.

        The file of a user's network or training function is imported; a ValueError says that this failed.
        """

    def defaults(self) -> dict[str, Any]:
        """The defaults of hyperparameters, by name: those of the fields of their dataclass.

        The file of a user's network or training function is imported; a ValueError says that this failed.
        """
        from training.config_fields import plain_fields  # pydantic takes a fifth of a second

        config_class = self.config_type()
        return {} if config_class is None else plain_fields(config_class())

    @abstractmethod
    def checksums(self) -> dict[str, str]:
        """Checksums of the code that decides what a trial measures, as it is now; the user's files are imported."""

    def code_since(self, commit: str) -> str:  # noqa: ARG002
        """Since when code may have changed that a study used at a commit of this project."""
        return "then"

    def reported_names(self, metrics: Any) -> list[str]:  # noqa: ARG002
        """The names of an epoch's metrics that the record must note, because only the training knows them."""
        return []

    @abstractmethod
    def check_epoch(self, metrics: Any) -> None:
        """Raise a ValueError if a record holds metrics that no epoch measures."""
