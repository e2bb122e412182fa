"""Renders the page of a comparison: one HTML file with the significance, the incumbents and the differences."""

import itertools
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
    axis_value,
    chart,
    metric_axis,
)
from search.outputs.html_page import Section, render_page
from search.outputs.summary import duration
from training.console.terminal import format_metric

FILE_NAME = "comparison.html"
COLOURS = (COMPLETED, BEST, BASELINE, STATUS_COLOURS["running"], FAILURE, STATUS_COLOURS["interrupted"], STOPPED)
"""Colours of the groups in their order; after the last colour, the first one is used again."""


def render(comparison: Comparison) -> str:
    """Render the page as HTML."""
    metrics = [*displayed_metrics(comparison.groups).values()]
    rows = [
        [row["group"], str(row["studies"]), f"{row['trials']:.0f}", f"{row['epochs']:.0f}"]
        + ["" if math.isnan(row["seconds"]) else duration(row["seconds"])]
        + ["" if math.isnan(row[name]) else format_metric(row[name]) for name in metrics]
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
        " A line is the mean over the studies of a group, and the band reaches from the worst of them to the best."
        if comparison.has_repeats
        else ""
    )
    best = f"Each line shows the best {metric} so far"
    over_trials = f"{best}, over the number of trials that had ended.{bands}"
    over_epochs = f"{best}, over the number of epochs that all trials together had run.{bands}"
    over_time = f"{best}, over the wall-clock time since the command; the time between two sessions is left out.{bands}"
    time_axis = "seconds since the command"
    studies = [record.metadata for group in comparison.groups for record in group.records]
    sections = [Section("Best value over trials", over_trials, [incumbents(comparison, "trials", "ended trials")])]
    if all(study.has_curves for study in studies):
        sections.append(Section("Best value over epochs", over_epochs, [incumbents(comparison, "epochs", "epochs")]))
    if all(study.origin is None for study in studies):
        sections.append(Section("Best value over time", over_time, [incumbents(comparison, "seconds", time_axis)]))
    return sections


def incumbents(comparison: Comparison, cost: Cost, axis: str) -> Figure:
    """Draw the best value so far of each group over its cost; of repeated studies, their mean and their range."""
    traces: list[Figure] = []
    values: list[float] = []
    for group, colour in zip(comparison.groups, itertools.cycle(COLOURS), strict=False):
        incumbent = incumbent_range(group, cost)
        if incumbent:
            traces += _traces(group, incumbent, colour)
            values += incumbent.low + incumbent.high
    first = comparison.groups[0].first
    return chart(traces, x={"title": axis, "rangemode": "tozero"}, y=metric_axis(first, values))


def _traces(group: Group, incumbent: IncumbentRange, colour: str) -> list[Figure]:
    record = group.first
    step = {"type": "scatter", "mode": "lines", "x": incumbent.costs, "legendgroup": group.name}
    edge = step | {
        "line": {"color": colour, "width": 0, "shape": "hv"},
        "showlegend": False,
        "hoverinfo": "skip",
    }
    mean = step | {
        "name": escape(group.name)  # plotly interprets some HTML
        + (f" ({len(group.records)} studies)" if len(group.records) > 1 else ""),
        "y": [axis_value(record, value) for value in incumbent.mean],
        "text": [format_metric(value) for value in incumbent.mean],
        "hovertemplate": "%{x}: %{text}<extra></extra>",
        "line": {"color": colour, "width": 2.5, "shape": "hv"},
    }
    if len(group.records) == 1:
        return [mean]
    shade = "rgba({}, {}, {}, 0.18)".format(*(int(colour[start : start + 2], 16) for start in (1, 3, 5)))
    low = edge | {"y": [axis_value(record, value) for value in incumbent.low]}
    high_values = [axis_value(record, value) for value in incumbent.high]
    high = edge | {"y": high_values, "fill": "tonexty", "fillcolor": shade}
    return [low, high, mean]
