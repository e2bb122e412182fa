"""A comparison of studies as objects for other programs: the document of `search/compare.py --json`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search.analysis.comparison import Comparison, displayed_metrics, overview
from search.analysis.significance import TooFewTrials
from search.task.metric_names import Mode


@dataclass(frozen=True, kw_only=True)
class GroupOfStudies:
    """A study, or several studies that repeat each other, with means over them."""

    name: str
    studies: list[str]
    """Their folders."""
    trials: float
    epochs: float
    seconds: float
    """Wall-clock time."""
    metrics: dict[str, float | None]
    """Those of the best trials; null if no trial has valid metrics."""


@dataclass(frozen=True, kw_only=True)
class DifferentSetting:
    """A property that is not the same in all studies."""

    name: str
    values: dict[str, str]
    """By group."""


@dataclass(frozen=True, kw_only=True)
class ComparedGroups:
    """How much better the best values of a group are than those of the reference group."""

    group: str
    reference: str
    unit: str
    gain: float | None
    """Above 0 if the group is better, for an accuracy and for a loss."""
    low: float | None
    """Lower bound of the 95 % interval of the gain."""
    high: float | None
    first: int | None
    """Number of trials of each study that were compared; null if all were."""
    is_clear: bool
    """Whether the difference is larger than chance explains."""
    sentence: str
    """The same for people."""


@dataclass(frozen=True, kw_only=True)
class NotCompared:
    """Why two groups could not be compared."""

    sentence: str


@dataclass(frozen=True, kw_only=True)
class ComparisonOfStudies:
    """The document of `search/compare.py`."""

    type: Literal["comparison"] = "comparison"
    metric: str
    mode: Mode
    groups: list[GroupOfStudies]
    """All others are compared with the first one."""
    significances: list[ComparedGroups | NotCompared]
    explanation: str
    """How to read the significances."""
    differences: list[DifferentSetting]
    page: str
    """HTML file with the charts."""


def comparison_of_studies(comparison: Comparison, page: Path) -> ComparisonOfStudies:
    """The document about a comparison whose charts are on this page."""
    first = comparison.groups[0].first
    return ComparisonOfStudies(
        metric=first.metric,
        mode=first.mode,
        groups=_groups(comparison),
        significances=_significances(comparison),
        explanation=comparison.explanation,
        differences=[
            DifferentSetting(
                name=one.name,
                values=dict(zip([group.name for group in comparison.groups], one.values, strict=True)),
            )
            for one in comparison.differences
        ],
        page=str(page),
    )


def _groups(comparison: Comparison) -> list[GroupOfStudies]:
    columns = displayed_metrics(comparison.groups)
    rows = overview(comparison.groups).to_dict("records")
    return [
        GroupOfStudies(
            name=group.name,
            studies=[str(record.folder.resolve()) for record in group.records],
            trials=float(row["trials"]),
            epochs=float(row["epochs"]),
            seconds=float(row["seconds"]),
            metrics={name: float(row[column]) for name, column in columns.items()},
        )
        for group, row in zip(comparison.groups, rows, strict=True)
    ]


def _significances(comparison: Comparison) -> list[ComparedGroups | NotCompared]:
    return [
        NotCompared(sentence=one.sentence)
        if isinstance(one, TooFewTrials)
        else ComparedGroups(
            group=one.group,
            reference=one.reference,
            unit=one.unit,
            gain=one.gain,
            low=one.low,
            high=one.high,
            first=one.first,
            is_clear=one.is_clear,
            sentence=one.sentence,
        )
        for one in comparison.significances
    ]
