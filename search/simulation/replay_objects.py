"""Replayed studies as objects for other programs: the documents of `search/replay.py --json`."""

from dataclasses import dataclass
from typing import Literal

from search.settings import SamplerName, SchedulerName


@dataclass(frozen=True, kw_only=True)
class ReplayedStudy:
    """A study that was replayed on a table of learning curves."""

    value: float
    """The best value of the metric."""
    regret: float
    """By how much the chosen configuration is worse than the best one of the table, in points or nats."""
    epochs: int
    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True, kw_only=True)
class MeansAfterTrials:
    """Means over the replayed studies when this number of trials has ended."""

    trials: int
    value: float
    regret: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class ReplayOfTable:
    """The document about a table of learning curves."""

    type: Literal["replay_of_table"] = "replay_of_table"
    metric: str
    sampler: SamplerName
    scheduler: SchedulerName
    num_samples: int
    epochs: int
    """Of a trial that is not stopped early."""
    workers: int
    best_value: float
    """Mean over seeds of the best configuration of the table."""
    studies: list[ReplayedStudy]
    after_trials: list[MeansAfterTrials]
    epochs_in_full: float
    """Mean number of epochs of the same trials if none was stopped early."""
    cpu_seconds_in_full: float


@dataclass(frozen=True, kw_only=True)
class SchedulerReplay:
    """What a scheduler would have saved in a study."""

    scheduler: SchedulerName
    epochs_saved: float
    """Part of the epochs, in [0, 1], in the order of the study."""
    seconds_saved: float | None
    """null where the seconds of the trials are not known."""
    loss: float
    """By how much the best value is worse."""
    random_orders: int
    random_epochs_saved: float
    """Mean over random orders of the trials."""
    random_seconds_saved: float | None
    random_loss: float
    random_same_best: int
    """In how many of the random orders the best value is the same."""


@dataclass(frozen=True, kw_only=True)
class ValueAfterTrials:
    """The best value of a study when this number of trials has ended."""

    trials: int
    value: float
    random_value: float
    """Mean over random orders of the trials."""
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class ReplayOfStudy:
    """The document about the epochs.csv of a study."""

    type: Literal["replay_of_study"] = "replay_of_study"
    metric: str
    trials: int
    epochs: int
    seconds: float | None
    """Of training; null where it is not known, in a study that was imported."""
    best_trial: int
    best_epoch: int
    best_value: float
    workers: int
    schedulers: list[SchedulerReplay]
    after_trials: list[ValueAfterTrials]
    enough_trials: int
    """When this number of trials had ended, the best value was reached."""
