"""Settings of a replay: one field for each option of `python search/replay.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from search.settings import MetricName, SamplerName, SchedulerName, StudySettings


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Options of `python search/replay.py`."""

    table: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """A table that benchmarks/learning_curves.py recorded (.csv.gz); or the epochs.csv of a study, to show what each
    scheduler would have saved and whether fewer trials would have been enough."""
    sampler: SamplerName | None = None
    """What proposes configurations, by default tpe; not for a study's own trials."""
    scheduler: SchedulerName | None = None
    """What stops weak trials early, by default asha; with a study's own trials, by default each in turn."""
    grace_period: int = StudySettings.grace_period
    """Epochs that every trial runs before a scheduler may stop it; >= 1."""
    reduction_factor: int = StudySettings.reduction_factor
    """asha and hyperband: one of this many trials continues at each decision, and the next decision comes after this
    many times as many epochs; >= 2."""
    num_samples: int | None = None
    """Trials of a study, by default 20; not for a study's own trials."""
    baseline: bool = True
    """Begin with the tutorial's own settings, in full, and with each other optimizer in them."""
    metric: MetricName | None = None
    """Highest accuracy or lowest loss to search for; by default val_accuracy, or what there is."""
    workers: int = 2
    """Trials at the same time; >= 1."""
    seed: int = 0
    """Fixes the first study; each further one has another seed."""
    seeds: int = 20
    """Studies to replay, or random orders of a study's own trials; >= 1."""

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
