"""The comparison of studies: what each arm found and cost, in what they differ, and what that proves."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from search.analysis.groups import Arm, Difference, check_comparable, differences, have_repeats, into_arms
from search.analysis.incumbent import have_clocks
from search.analysis.significance import LEVEL, NoVerdict, Verdict, judge
from search.analysis.time_accounting import wall_seconds
from search.monitoring.terminal import as_typed
from search.record.study_record import StudyRecord

WIDTH = 80
"""Columns of the terminal."""
LONGEST_NAME = 20
"""Characters of an arm's name in the table of the terminal."""
NOTHING_DIFFERS = "Settings, search space, versions and machine are the same."


@dataclass(frozen=True)
class Comparison:
    """Arms, the first of which all others are measured against."""

    arms: list[Arm]
    differences: list[Difference]
    verdicts: list[Verdict | NoVerdict]
    have_clocks: bool
    """Whether the seconds of best values so far are those of the wall clock."""

    @property
    def has_repeats(self) -> bool:
        """Whether an arm has several studies."""
        return have_repeats(self.arms)

    @property
    def explanation(self) -> str:
        """How the verdicts are to be read, in a few sentences."""
        metric = self.arms[0].first.metric
        losses = metric.endswith("_loss")
        sentences = [
            f"Best {metric} against that of {self.arms[0].name}; above 0 is better"
            + (", which is a lower loss." if losses else "."),
            f"The intervals ({LEVEL} %, bootstrap) are for the luck of the search"
            + ("; the luck of the images is not known for a loss." if losses else " and of the images."),
        ]
        if len(self.verdicts) > 1:
            sentences.append("Each interval holds by itself: of many, one may miss by chance.")
        return " ".join(sentences)


def compare(records: Sequence[StudyRecord]) -> Comparison:
    """Compare studies.

    Args:
        records: Two or more of them; repeats of each other become one arm.

    Raises:
        ValueError: They cannot be compared.
    """
    check_comparable(records)
    arms = into_arms(records)
    verdicts = [verdict for arm in arms[1:] for verdict in judge(arm, arms[0])]
    return Comparison(arms, differences(arms), verdicts, have_clocks(arms))


def metrics_told(arms: Sequence[Arm]) -> list[str]:
    """What is told of the best trials: the metric of the studies first."""
    return arms[0].first.subject.told_metrics


def overview(arms: Sequence[Arm]) -> pd.DataFrame:
    """A row for each arm: its number of studies, and means over these of what they cost and found."""
    rows = []
    for arm in arms:
        bests = [metrics for record in arm.records if (best := record.best()) and (metrics := record.best_epoch(best))]
        row = {
            "arm": arm.name,
            "studies": len(arm.records),
            "trials": np.mean([len(record.ended()) for record in arm.records]),
            "epochs": np.mean([record.epochs_run() for record in arm.records]),
            "seconds": np.mean([wall_seconds(record) for record in arm.records]),
        }
        for name in metrics_told(arms):
            row[name] = np.mean([getattr(metrics, name) for metrics in bests]) if bests else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def show(comparison: Comparison) -> None:
    """Print the comparison, no wider than a terminal."""
    if comparison.has_repeats:
        print("Means over the studies of each arm:")
    print(_overview_text(comparison.arms))
    print("\nWhat differs:" if comparison.differences else f"\n{NOTHING_DIFFERS}")
    for difference in comparison.differences:
        values = [f"{value} ({arm.name})" for arm, value in zip(comparison.arms, difference.values, strict=True)]
        _print_wrapped(f"  {difference.name}: {'; '.join(values)}")
    print()
    for verdict in comparison.verdicts:
        _print_wrapped(verdict.sentence)
    _print_wrapped(comparison.explanation)


def _overview_text(arms: Sequence[Arm]) -> str:
    """The table of arms for the terminal."""
    table = overview(arms)
    table["arm"] = [_shorten(name) for name in table["arm"]]
    whole = dict.fromkeys(["trials", "epochs", "seconds"], "{:.0f}".format)
    metrics = dict.fromkeys(metrics_told(arms), lambda value: "-" if np.isnan(value) else f"{value:.4f}")
    return table.to_string(index=False, formatters=whole | metrics)


def show_page(file: Path) -> None:
    """Print where the page is."""
    print(f"Page: {as_typed(file.resolve())}")


def _shorten(name: str) -> str:
    """Both ends of a long name: they tell studies apart."""
    if len(name) <= LONGEST_NAME:
        return name
    kept = (LONGEST_NAME - 1) // 2
    return f"{name[:kept]}…{name[kept - LONGEST_NAME + 1 :]}"


def _print_wrapped(line: str) -> None:
    indent = "    " if line.startswith(" ") else "  "
    print(textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False))
