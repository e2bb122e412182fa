"""The comparison of groups of studies: costs, best values, differences and their significance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from search.analysis.groups import Difference, Group, check_comparable, differences, group_studies, have_repeats
from search.analysis.significance import Significance, TooFewTrials, test_groups
from search.analysis.time_accounting import wall_seconds
from search.record.columns import distinct_columns
from search.record.ranking import best_trial, ended_trials, epochs_run
from search.record.study_record import StudyRecord
from search.task.custom_metrics import metric_value
from training.metrics import CONFIDENCE

NOTHING_DIFFERS = "Settings, search space, versions and machine are the same."


@dataclass(frozen=True)
class Comparison:
    """Groups of studies; all others are compared with the first one."""

    groups: list[Group]
    differences: list[Difference]
    significances: list[Significance | TooFewTrials]

    @property
    def has_repeats(self) -> bool:
        """Whether a group has several studies."""
        return have_repeats(self.groups)

    @property
    def explanation(self) -> str:
        """How to read the significances, in a few sentences."""
        first = self.groups[0].first
        dataset, is_accuracy = first.metadata.dataset, first.metadata.is_accuracy
        better = f", that is, a lower {'loss' if dataset else 'value'}" if first.mode == "min" else ""
        images = " and the choice of the images" if is_accuracy else ", but not the choice of the images"
        sentences = [
            f"The best {first.metric} is compared with that of {self.groups[0].name}; "
            f"a difference above 0 is better{better}.",
            f"The {CONFIDENCE} % intervals (bootstrap) take into account the chance of the search"
            f"{images if dataset else ''}.",
        ]
        if len(self.significances) > 1:
            sentences.append(f"About {100 - CONFIDENCE} of 100 such intervals are wrong, so one of many may be wrong.")
        return " ".join(sentences)


def compare(records: Sequence[StudyRecord]) -> Comparison:
    """Compare two or more studies; a ValueError says that this is impossible."""
    check_comparable(records)
    groups = group_studies(records)
    significances = [significance for group in groups[1:] for significance in test_groups(group, groups[0])]
    return Comparison(groups, differences(groups), significances)


OVERVIEW_COLUMNS = ("group", "studies", "trials", "epochs", "seconds", "time")
"""Columns of the overview besides the metrics."""


def displayed_metrics(groups: Sequence[Group]) -> dict[str, str]:
    """The column of each metric that is shown of the best trials; the metric of the studies is the first."""
    return distinct_columns("metric", groups[0].first.metadata.task.displayed_metrics, OVERVIEW_COLUMNS)


def overview(groups: Sequence[Group]) -> pd.DataFrame:
    """A row for each group with its number of studies, and with means of their costs and best metrics."""
    rows = []
    for group in groups:
        bests = [
            metrics for record in group.records if (best := best_trial(record.trials)) and (metrics := best.best_epoch)
        ]
        row = {
            "group": group.name,
            "studies": len(group.records),
            "trials": np.mean([len(ended_trials(record.trials)) for record in group.records]),
            "epochs": np.mean([epochs_run(record.trials) for record in group.records]),
            "seconds": np.mean([_seconds(record) for record in group.records]),
        }
        for name, column in displayed_metrics(groups).items():
            values = [value for metrics in bests if (value := metric_value(metrics, name)) is not None]
            row[column] = np.mean(values) if values else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _seconds(record: StudyRecord) -> float:
    """Wall clock of a study; that of one that was imported is not known."""
    return np.nan if record.metadata.origin else wall_seconds(record)
