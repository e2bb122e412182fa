"""The page of a comparison: one HTML file with the significance, the best values so far, a table and what differs."""

import math
from datetime import datetime
from html import escape

from search.analysis.comparison import NOTHING_DIFFERS, Comparison, displayed_metrics, overview
from search.analysis.groups import Group
from search.analysis.incumbent import Cost, IncumbentRange, incumbent_range
from search.outputs.chart_layout import (
    BASELINE,
    BEST,
    COMPLETED,
    FAILURE,
    STATUS_COLOURS,
    STOPPED,
    Figure,
    chart,
    height_of,
    metric_axis,
)
from search.outputs.html_page import Section, render_page
from search.outputs.summary import duration

FILE_NAME = "comparison.html"
COLOURS = (COMPLETED, BEST, BASELINE, STATUS_COLOURS["running"], FAILURE, STATUS_COLOURS["interrupted"], STOPPED)
"""Of the groups in their order, again from the first after the last."""


def render(comparison: Comparison) -> str:
    """The page as HTML."""
    metrics = displayed_metrics(comparison.groups)
    rows = [
        [row["group"], str(row["studies"]), f"{row['trials']:.0f}", f"{row['epochs']:.0f}", duration(row["seconds"])]
        + ["" if math.isnan(row[name]) else f"{row[name]:.4f}" for name in metrics]
        for _, row in overview(comparison.groups).iterrows()
    ]
    return render_page(
        FILE_NAME,
        _sections(comparison),
        title=" against ".join(group.name for group in comparison.groups),
        significances=[significance.sentence for significance in comparison.significances],
        explanation=comparison.explanation,
        columns=["group", "studies", "trials", "epochs", "time", f"best {metrics[0]}", *metrics[1:]],
        rows=rows,
        has_repeats=comparison.has_repeats,
        groups=[(group.name, [record.folder.name for record in group.records]) for group in comparison.groups],
        differences=comparison.differences,
        nothing_differs=NOTHING_DIFFERS,
        written=datetime.now().astimezone().isoformat(timespec="seconds"),
    )


def _sections(comparison: Comparison) -> list[Section]:
    metric = comparison.groups[0].first.metric
    bands = (
        " A line is the mean of a group's studies, and the band reaches from the worst of them to the best."
        if comparison.has_repeats
        else ""
    )
    seconds = "Wall clock from the command on; the time between an end and a resumption is left out."
    over_trials = f"The best {metric} so far, over the trials that had ended.{bands}"
    over_epochs = "The same over the epochs run, of which a trial that was stopped early took few."
    time_axis = "seconds since the command"
    return [
        Section("Over trials", over_trials, [best_so_far(comparison, "trials", "trials ended")]),
        Section("Over epochs", over_epochs, [best_so_far(comparison, "epochs", "epochs run")]),
        Section("Over time", f"The same over seconds. {seconds}", [best_so_far(comparison, "seconds", time_axis)]),
    ]


def best_so_far(comparison: Comparison, cost: Cost, axis: str) -> Figure:
    """The best value so far of each group over what it had cost; of repeats, their mean and their extremes."""
    traces: list[Figure] = []
    shown: list[float] = []
    for place, group in enumerate(comparison.groups):
        found = incumbent_range(group, cost)
        if found:
            traces += _traces(group, found, COLOURS[place % len(COLOURS)])
            shown += found.low + found.high
    first = comparison.groups[0].first
    return chart(traces, x={"title": axis, "rangemode": "tozero"}, y=metric_axis(first, shown))


def _traces(group: Group, found: IncumbentRange, colour: str) -> list[Figure]:
    record = group.first
    step = {"type": "scatter", "mode": "lines", "x": found.costs, "legendgroup": group.name}
    edge = step | {
        "line": {"color": colour, "width": 0, "shape": "hv"},
        "showlegend": False,
        "hoverinfo": "skip",
    }
    mean = step | {
        "name": escape(group.name)  # plotly takes some of HTML for its own
        + (f" ({len(group.records)} studies)" if len(group.records) > 1 else ""),
        "y": [height_of(record, value) for value in found.mean],
        "text": [f"{value:.4f}" for value in found.mean],
        "hovertemplate": "%{x}: %{text}<extra></extra>",
        "line": {"color": colour, "width": 2.5, "shape": "hv"},
    }
    if len(group.records) == 1:
        return [mean]
    shade = "rgba({}, {}, {}, 0.18)".format(*(int(colour[start : start + 2], 16) for start in (1, 3, 5)))
    low = edge | {"y": [height_of(record, value) for value in found.low]}
    high = edge | {
        "y": [height_of(record, value) for value in found.high],
        "fill": "tonexty",
        "fillcolor": shade,
    }
    return [low, high, mean]
