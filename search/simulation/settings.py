"""Settings of a replay: one field for each option of `python search/replay.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from search.settings import SamplerName, SchedulerName, StudySettings
from search.task.image_task import MetricName


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Options of `python search/replay.py`."""

    table: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """Table of learning curves from benchmarks/learning_curves.py (.csv.gz), on which whole studies are replayed. Or
    epochs.csv of a study: then the command prints what each scheduler would have saved, and whether fewer trials would
    have been enough."""
    sampler: SamplerName | None = None
    """Algorithm that proposes configurations, by default gp; only for a table of learning curves."""
    scheduler: SchedulerName | None = None
    """Algorithm that stops weak trials early. By default asha; for the epochs.csv of a study, asha,
    promotion and median in turn."""
    grace_period: int = StudySettings.grace_period
    """Number of epochs that every trial runs before the scheduler may stop it; >= 1."""
    reduction_factor: int = StudySettings.reduction_factor
    """For asha, promotion and hyperband: one of this many trials continues at each decision, and the next decision
    comes after this many times as many epochs; >= 2."""
    num_samples: int | None = None
    """Number of trials in each study, by default 20; only for a table of learning curves."""
    baseline: bool = True
    """Begin each study with the default settings of its network, which are trained in full; then try the same settings
    with each other optimizer. The defaults of the mlp are the tutorial's settings."""
    metric: MetricName | None = None
    """Metric by which trials are compared; the highest accuracy or the lowest loss is the best. By default
    val_accuracy, or test_accuracy if there are no validation metrics."""
    workers: int = 2
    """Number of trials that run at the same time; >= 1."""
    seed: int = 0
    """Seed of the first replayed study; each further study has another seed."""
    seeds: int = 20
    """Number of studies that are replayed; for the epochs.csv of a study, number of random orders of its trials; >=
    1."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""

    def study_settings(self, **changes: Any) -> StudySettings:
        """The settings of a study with the options of this replay and with `changes`."""
        options = {
            "sampler": self.sampler,
            "scheduler": self.scheduler,
            "grace_period": self.grace_period,
            "reduction_factor": self.reduction_factor,
            "num_samples": self.num_samples,
            "baseline": self.baseline,
            "metric": self.metric,
        }
        return StudySettings(**{name: value for name, value in options.items() if value is not None} | changes)

    def __post_init__(self) -> None:
        for option in ("workers", "seeds"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} must be >= 1, got {getattr(self, option)}")
