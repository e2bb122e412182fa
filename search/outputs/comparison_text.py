"""A comparison of studies as text for the terminal."""

from collections.abc import Sequence

from search.analysis.comparison import NOTHING_DIFFERS, Comparison, displayed_metrics, overview
from search.analysis.groups import Group
from training.console.terminal import format_metric, wrapped

LONGEST_NAME = 20
"""Characters of a group's name in the table."""


def show_comparison(comparison: Comparison) -> None:
    """Print the comparison in lines of the width of the terminal."""
    if comparison.has_repeats:
        print("Means over the studies of each group:")
    print(_overview_text(comparison.groups))
    print("\nDifferences:" if comparison.differences else f"\n{NOTHING_DIFFERS}")
    for difference in comparison.differences:
        values = [f"{value} ({group.name})" for group, value in zip(comparison.groups, difference.values, strict=True)]
        _print_wrapped(f"  {difference.name}: {'; '.join(values)}")
    print()
    for significance in comparison.significances:
        _print_wrapped(significance.sentence)
    _print_wrapped(comparison.explanation)


def _overview_text(groups: Sequence[Group]) -> str:
    """Render the table of groups."""
    table = overview(groups)
    table["group"] = [_shorten(name) for name in table["group"]]
    whole = dict.fromkeys(["trials", "epochs", "seconds"], "{:.0f}".format)
    metrics = dict.fromkeys(displayed_metrics(groups).values(), format_metric)
    return table.to_string(index=False, formatters=whole | metrics, na_rep="-")


def _shorten(name: str) -> str:
    """Leave out the middle of a long name: studies differ at the beginning or the end of their names."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[half - LONGEST_NAME + 1 :]}"


def _print_wrapped(line: str) -> None:
    indent = "    " if line.startswith(" ") else "  "
    print(wrapped(line, hanging=indent))
