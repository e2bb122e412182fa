"""Settings of a study: one field for each option of `python search/run.py`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from training.config import PROJECT, DataConfig, check_choice, check_seed

MetricName = Literal["val_accuracy", "val_loss", "test_accuracy", "test_loss"]
SchedulerName = Literal["asha", "none"]
Mode = Literal["max", "min"]


@dataclass(frozen=True, kw_only=True)
class StudySettings(DataConfig):
    """Options of a study."""

    num_samples: int = 20
    """Trials to run, the baseline included; >= 1."""
    epochs: int = 10
    """Passes over the training images of a trial that is not stopped early; >= 1."""
    metric: MetricName | None = None
    """Highest accuracy or lowest loss to search for; by default val_accuracy (test_accuracy if val_fraction is 0)."""
    scheduler: SchedulerName = "asha"
    """asha: stop trials early that are behind (grace 1 epoch, reduction 3); none: run all epochs."""
    baseline: bool = True
    """Run the tutorial's own settings, in full, as trial 0, so that the study says what it gained."""
    seed: int = 0
    """Fixes the proposals and the validation split; trial N trains with seed + N."""
    max_concurrent: int | None = None
    """Trials at the same time; by default as many as the machine has room for."""
    cpus_per_trial: int = 1
    """Cores for each trial, which are also its torch threads; >= 1."""
    gpus_per_trial: float = 0.0
    """GPUs for each trial, a fraction to share one; >= 0."""
    name: str | None = None
    """Name of the study and of its folder; by default the data set, the date and the time."""
    results_dir: Path = field(default_factory=lambda: PROJECT / "results")
    """Folder that receives the study's folder."""
    dashboard: bool = True
    """Start the Ray dashboard on this machine."""
    resume: str | None = None
    """Go on with a study: its name, its folder or latest. Its own settings are kept; num_samples is the wanted total,
    and +N adds N."""

    def __post_init__(self) -> None:
        """Check every field; nothing on disk is touched."""
        super().__post_init__()
        for option in ("num_samples", "epochs", "cpus_per_trial"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} must be >= 1, got {getattr(self, option)}")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ValueError(f"max_concurrent must be >= 1, got {self.max_concurrent}")
        if not 0 <= self.gpus_per_trial < float("inf"):
            raise ValueError(f"gpus_per_trial must be >= 0, got {self.gpus_per_trial}")
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial above 1 must be a whole number, got {self.gpus_per_trial}")
        check_choice("scheduler", self.scheduler, SchedulerName)
        check_seed("seed", self.seed)
        check_seed("the last trial's seed", self.seed + self.num_samples - 1)
        self._check_metric()
        self._check_folders()

    @property
    def metric_name(self) -> MetricName:
        """The metric in force: the chosen one, or the default for this validation fraction."""
        return self.metric or ("val_accuracy" if self.val_fraction > 0 else "test_accuracy")

    @property
    def mode(self) -> Mode:
        """Whether the metric is maximised or minimised."""
        return "min" if self.metric_name.endswith("_loss") else "max"

    def _check_metric(self) -> None:
        check_choice("metric", self.metric_name, MetricName)
        if self.val_fraction > 0 and self.metric_name.startswith("test_"):
            raise ValueError(f"metric {self.metric_name} would choose by the test set; that needs val_fraction 0")
        if self.val_fraction == 0 and self.metric_name.startswith("val_"):
            raise ValueError(f"metric {self.metric_name} needs validation images, but val_fraction is 0")

    def _check_folders(self) -> None:
        if self.results_dir.exists() and not self.results_dir.is_dir():
            raise ValueError(f"the results folder is not a folder: {self.results_dir}")
        if self.name is None:
            return
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(
                "name must be 1 to 100 letters, digits, dots, dashes and underscores, "
                f"beginning with a letter or digit, got {self.name!r}"
            )
        if self.name == "latest" or (self.resume is None and (self.results_dir / self.name).exists()):
            raise ValueError(f"name {self.name} is taken: {self.results_dir / self.name}")
