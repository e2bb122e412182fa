"""The task to classify images with a network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from search.task.metric_names import Mode
from search.task.task import NATS, POINTS, Task
from training.config import check_choice, dataset_name
from training.metrics import EpochMetrics

MetricName = Literal["val_accuracy", "val_loss", "test_accuracy", "test_loss"]
METRICS = ["val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_loss"]
TUTORIAL_EPOCHS = 10
_FIELDS = tuple(field.name for field in fields(EpochMetrics))


def image_metrics(*, epoch: int, seconds: float, values: Mapping[str, float | None]) -> EpochMetrics:
    """The metrics of an epoch that the training of images has reported; its own time leaves out the checkpoint."""
    unmeasured = {"val_accuracy": None, "val_loss": None}  # without a validation split
    measured: dict[str, Any] = {**unmeasured, "seconds": seconds, **values, "epoch": epoch}
    return EpochMetrics(**measured)


@dataclass(frozen=True, kw_only=True)
class ImageTask(Task):
    """The trials classify images; the data set is ours, or a folder or a function of the user."""

    network_name: str
    """The value of `TrialConfig.network`."""
    dataset: str
    """The data set as the settings name it; its own name, once the record has it."""

    default_epochs = TUTORIAL_EPOCHS
    trains_on_all_data = True
    epoch_type: ClassVar[type[Any]] = EpochMetrics

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.dataset

    @property
    def network(self) -> str:
        """The value of `TrialConfig.network`."""
        return self.network_name

    @property
    def option(self) -> str:
        """The setting that names what is trained."""
        return "network"

    @property
    def fixed(self) -> dict[str, Any]:
        """Fields of `TrialConfig` that are the same in every trial."""
        return {"epochs": self.epochs, "network": self.network}

    @property
    def metric_names(self) -> list[str]:
        """All metrics of an epoch."""
        return METRICS

    @property
    def displayed_metrics(self) -> list[str]:
        """The metric of the study, and the accuracy on the test images."""
        return list(dict.fromkeys([self.metric, "test_accuracy"]))

    def checked_mode(self, metric: str | None, mode: Mode | None, val_fraction: float) -> None:  # noqa: ARG002
        """Check that the metric is one of a data set with this validation split; its name says its mode."""
        if mode is not None:
            raise ValueError(
                "mode is only for train_function and command; otherwise an accuracy is maximised and a loss is "
                "minimised"
            )
        check_choice("metric", self.metric, MetricName)
        if val_fraction > 0 and self.metric.startswith("test_"):
            raise ValueError(f"metric {self.metric} would choose by the test images; this needs val_fraction 0")
        if val_fraction == 0 and self.metric.startswith("val_"):
            raise ValueError(f"metric {self.metric} needs validation images, but val_fraction is 0")

    def check_stored(self) -> None:
        """Raise a ValueError if the record does not say which data set was used."""
        if self.dataset == "auto":
            raise ValueError("its settings do not name the data set")

    def recorded(self, dataset: str | None, metrics: Sequence[str]) -> Self:
        """The task with the name of its data set."""
        if dataset is None:
            raise ValueError("a study has either a data set or a training of the user's own")
        if metrics:
            raise ValueError(f"the metrics of images cannot be {metrics}")
        return replace(self, dataset=dataset)

    def short_name(self, data_dir: Path) -> str | None:
        """The name of the data set, unless it depends on which one can be downloaded."""
        if self.dataset != "auto":
            return dataset_name(self.dataset)
        from training.images import mnist  # torch takes seconds

        return "fashion-mnist" if mnist.is_present("fashion-mnist", data_dir) else None

    def unit(self, metric: str) -> str:
        """Points of an accuracy, or nats of a loss."""
        return POINTS if metric.endswith("accuracy") else NATS

    def config_type(self) -> type[Any]:
        """`TrialConfig` with the hyperparameters of the network."""
        from training.networks.network_config import config_type  # pydantic takes a fifth of a second

        return config_type(self.network)

    def checksums(self) -> dict[str, str]:
        """Checksums of the modules of the image training, and of the user's network."""
        from search.task import checksums  # torch takes seconds

        return checksums.code(self.network)

    def code_since(self, commit: str) -> str:
        """The code is that of this project, so the commit says which one it was."""
        return f"Tunesmith's commit {commit}"

    def check_epoch(self, metrics: EpochMetrics) -> None:
        """Raise a ValueError if a metric is out of its range."""
        for name in _FIELDS:
            value = getattr(metrics, name)
            top = 1 if name.endswith("accuracy") else math.inf
            if value is not None and not (0 <= value <= top and math.isfinite(value)):
                raise ValueError(f"{name} cannot be {value}")
