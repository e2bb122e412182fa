"""What a study is about: images that a network learns to classify, or a training function of the user's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.record.custom_metrics import metrics_type
from search.record.trial import Metrics
from search.settings import StudySettings
from training.metrics import EpochMetrics
from training.networks.network_config import config_type
from training.user_code import annotated_config

IMAGE_METRICS = ["val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_loss"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the trials of a study train and measure."""

    name: str
    """The data set, or the training function without its folder."""
    network: str | None = None
    """As `TrialConfig.network`; None with a training function, which brings network and data itself."""
    train_function: str | None = None
    """Its import path, if there is one."""
    fixed: dict[str, Any]
    """What is the same in every trial: fields of `TrialConfig`, or `train_function` and `epochs`."""
    metric_names: list[str]
    """All that is measured in each epoch, what matters most first."""
    displayed_metrics: list[str]
    """The metrics that are shown where there is room for few."""
    epoch_type: type[Metrics]
    """The class of what is measured in an epoch."""

    @property
    def has_images(self) -> bool:
        """Whether images are classified: then there are images to test with, and a model to export."""
        return self.network is not None

    def is_accuracy(self, metric: str) -> bool:
        """Whether a metric is an accuracy in [0, 1], which is shown in points."""
        return self.has_images and metric.endswith("accuracy")

    def config_type(self) -> type[Any] | None:
        """The dataclass of all hyperparameters and their defaults; None with a function that takes a dictionary.

        A file that holds the network or the training function is imported.

        Raises:
            ValueError: It cannot be.
        """
        if self.network is not None:
            return config_type(self.network)
        return annotated_config("train_function", str(self.train_function))


def task_of(settings: StudySettings, dataset: str | None, custom_metrics: list[str]) -> Task:
    """What a study is about.

    Args:
        settings: Of the study.
        dataset: Name of its images; None with a training function.
        custom_metrics: What the training function has measured so far.
    """
    function, metric = settings.train_function, settings.metric_name
    if function is None:
        return Task(
            name=str(dataset),
            network=settings.network,
            fixed={"epochs": settings.epochs, "network": settings.network},
            metric_names=IMAGE_METRICS,
            displayed_metrics=list(dict.fromkeys([metric, "test_accuracy"])),
            epoch_type=EpochMetrics,
        )
    names = list(dict.fromkeys([metric, *custom_metrics]))
    return Task(
        name=Path(function).name,
        train_function=function,
        fixed={"train_function": function, "epochs": settings.epochs},
        metric_names=names,
        displayed_metrics=[metric],
        epoch_type=metrics_type(tuple(names)),
    )
