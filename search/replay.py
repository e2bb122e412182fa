"""Replay studies in seconds: against a table of learning curves, or the trials of a finished study in hindsight."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from search.settings import MetricName, SamplerName, SchedulerName, StudySettings
from training.console.command_line import parse, refuse
from training.console.terminal import guard_output


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Options of `python search/replay.py`."""

    table: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """A table that benchmarks/learning_curves.py recorded (.csv.gz), or the epochs.csv of a study: what would each
    scheduler have saved, would fewer trials have been enough?"""
    sampler: SamplerName | None = None
    """What proposes configurations, by default tpe; a study's own trials need none."""
    scheduler: SchedulerName | None = None
    """What stops weak trials early, by default asha; with a study's own trials, by default each in turn."""
    grace_epochs: int = StudySettings.grace_epochs
    """Epochs that every trial runs before a scheduler may stop it; >= 1."""
    reduction: int = StudySettings.reduction
    """asha and hyperband: one in so many trials goes on at each decision, and the next is so many times later; >= 2."""
    num_samples: int | None = None
    """Trials of a study, by default 20; a study's own trials are as many as they are."""
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
        """The settings of one study.

        Args:
            changes: What depends on the table, and the seed.

        Raises:
            ValueError: They are not those of any study.
        """
        given = {
            "sampler": self.sampler,
            "scheduler": self.scheduler,
            "grace_epochs": self.grace_epochs,
            "reduction": self.reduction,
            "num_samples": self.num_samples,
            "baseline": self.baseline,
            "metric": self.metric,
        }
        return StudySettings(**{name: value for name, value in given.items() if value is not None} | changes)

    def __post_init__(self) -> None:
        """Check what `StudySettings` does not know of."""
        for option in ("workers", "seeds"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} must be >= 1, got {getattr(self, option)}")


def main() -> int:
    """Replay what the command line describes; returns the exit status."""
    options = parse(ReplaySettings, __doc__ or "")

    from search.simulation import counterfactual, grid_study  # optuna, Ray and pandas take seconds
    from search.simulation.learning_curves import is_grid, read_csv, read_grid
    from search.simulation.study_curves import is_study, read_study

    try:
        table = read_csv(options.table)
        if is_grid(table):
            grid_study.show(read_grid(options.table, table), options)
        elif is_study(table):
            counterfactual.show(read_study(options.table, table), options)
        else:
            raise ValueError(
                f"{options.table} is neither a table of learning curves nor the epochs.csv of a study: "
                f"its columns are {', '.join(map(str, table.columns))}"
            )
    except (ValueError, OSError) as error:
        refuse(str(error))
    return 0


if __name__ == "__main__":
    guard_output(outlive_reader=False)
    sys.exit(main())
