"""What a study is about: images that a network learns to classify, or a training function of the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.engine.custom_training import config_kind, metrics_type
from search.record.trial import Metrics
from training.config import TrialConfig
from training.loop import EpochMetrics
from training.networks.network_config import config_type

IMAGE_METRICS = ["val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_loss"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the trials of a study train and measure."""

    name: str
    """The data set, or the training function without its folder."""
    network: str | None = None
    """As `TrialConfig.network`; None with a training function, which brings network and data itself."""
    train_function: str | None = None
    """Its place, if there is one."""
    fixed: dict[str, Any]
    """What is the same in every trial: fields of `TrialConfig`, or `train_function` and `epochs`."""
    metric_names: list[str]
    """All that is measured in each epoch, what matters most first."""
    told_metrics: list[str]
    """What is told of a trial in few words."""
    epoch_type: type[Metrics]
    """The class of what is measured in an epoch."""

    @property
    def has_images(self) -> bool:
        """Whether images are classified: then there are images to test with, and a model to ship."""
        return self.network is not None

    def is_accuracy(self, metric: str) -> bool:
        """Whether a metric is an accuracy in [0, 1], which is told in points."""
        return self.has_images and metric.endswith("accuracy")

    def config_type(self) -> type[Any] | None:
        """The dataclass of all hyperparameters and their defaults; None with a function that takes a dictionary.

        A file that holds the network or the training function is imported.

        Raises:
            ValueError: It cannot be.
        """
        return config_type(self.network) if self.network is not None else config_kind(str(self.train_function))


def subject_of(facts: Mapping[str, Any]) -> Subject:
    """What a study is about, by the facts in its record."""
    settings = facts["settings"]
    function, metric = settings.get("train_function"), settings["metric"]
    if function is None:
        fixed = {name: settings[name] for name in ("epochs", "precision", "network", "lr_schedule") if name in settings}
        return Subject(
            name=facts["dataset"]["name"],
            network=settings.get("network", TrialConfig.network),
            fixed=fixed,
            metric_names=IMAGE_METRICS,
            told_metrics=list(dict.fromkeys([metric, "test_accuracy"])),
            epoch_type=EpochMetrics,
        )
    names = list(dict.fromkeys([metric, *facts.get("metrics", [])]))
    return Subject(
        name=Path(function).name,
        train_function=function,
        fixed={"train_function": function, "epochs": settings["epochs"]},
        metric_names=names,
        told_metrics=[metric],
        epoch_type=metrics_type(tuple(names)),
    )
