"""Charts of what was found out about a study, as plotly figures: confirmation, importance, time and errors."""

from collections.abc import Sequence

from search.analysis.importance import Importance
from search.analysis.time_accounting import PART_NAMES, WorkerTrial
from search.outputs.chart_layout import BEST, COMPLETED, STATUS_COLOURS, STOPPED, Figure, chart, scatter
from search.outputs.trial_charts import trial_label
from search.record.confirmation import Confirmation
from search.record.estimate import Estimate
from training.metrics import CONFIDENCE

_COLOURS = ("#3f7fd0", "#8bb6ea", "#8e5bd0", "#b08a2e", "#d23f3f", "#d98cc0", "#8a9099")
PART_COLOURS = dict(zip(PART_NAMES, _COLOURS, strict=True))


def confirmation(confirmed: Confirmation) -> Figure:
    """Draw the mean of each configuration over new seeds with its interval, each seed, and the value in the search.

    The first row shows the winner, trained from the seeds that did not choose it.
    """
    chosen = [one for one in confirmed.configurations if one.is_measured]
    measured = [confirmed.confirmed, *chosen]
    names = [f"trial {confirmed.confirmed.trial}, further seeds", *(f"trial {one.trial}" for one in chosen)]
    estimates = [one.metric for one in measured]
    means = [estimate.mean for estimate in estimates]
    hover = {"hovertemplate": "%{y}: %{x:.4f}<extra></extra>"}
    seed_points = scatter(
        "markers",
        [value for one in measured for value in one.values],
        [name for name, one in zip(names, measured, strict=True) for _ in one.values],
        name="one seed",
        text=[f"seed {seed}" for one in measured for seed in one.seeds],
        hovertemplate="%{text}: %{x:.4f}<extra></extra>",
        marker={"color": STOPPED, "size": 6},
    )
    mean_points = scatter(
        "markers",
        means,
        names,
        name=f"mean, {CONFIDENCE} % interval",
        error_x=_error_bars(means, estimates) | {"color": COMPLETED},
        marker={"color": COMPLETED, "size": 10},
        **hover,
    )
    search_points = scatter(
        "markers",
        [one.search_value for one in measured],
        names,
        name="value in the search",
        marker={"color": BEST, "size": 11, "symbol": "diamond-open"},
        **hover,
    )
    y = {"type": "category", "categoryorder": "array", "categoryarray": names[::-1]}
    x = {"title": confirmed.winner.metric_name}
    return chart([seed_points, mean_points, search_points], x=x, y=y, height=130 + 45 * len(names))


def _error_bars(centers: Sequence[float], intervals: Sequence[Estimate | Importance]) -> Figure:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, interval.high - center) for center, interval in zip(centers, intervals, strict=True)],
        "arrayminus": [max(0.0, center - interval.low) for center, interval in zip(centers, intervals, strict=True)],
        "thickness": 1.5,
    }


def importance_bars(importances: Sequence[Importance]) -> Figure:
    """Draw the share of each hyperparameter, with its interval."""
    upwards = list(reversed(importances))
    shares = [importance.share for importance in upwards]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [importance.name for importance in upwards],
        "x": shares,
        "marker": {"color": COMPLETED},
        "error_x": _error_bars(shares, upwards),
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    x = {"title": "importance", "range": [0, 1], "tickformat": ".0%"}
    return chart([bars], x=x, y={}, height=120 + 45 * len(upwards))


def timeline(runs: Sequence[WorkerTrial]) -> Figure:
    """Draw a row for each worker, and in it a bar for each trial that it ran."""
    workers = list(dict.fromkeys(run.worker for run in runs))
    traces = []
    for status, colour in STATUS_COLOURS.items():
        bars = [run for run in runs if run.trial.status == status]
        if bars:
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": status.replace("_", " "),
                    "y": [run.worker for run in bars],
                    "base": [round(run.began, 2) for run in bars],
                    "x": [round(run.ended - run.began, 2) for run in bars],
                    "text": [str(run.trial.number) for run in bars],
                    "textposition": "inside",
                    "insidetextanchor": "middle",
                    "textangle": 0,
                    "customdata": [trial_label(run.trial) for run in bars],
                    "hovertemplate": "%{customdata}<br>from %{base} s, %{x} s<extra></extra>",
                    "marker": {"color": colour, "line": {"color": "rgba(255,255,255,0.7)", "width": 1}},
                }
            )
    y = {"categoryorder": "array", "categoryarray": workers[::-1]}
    figure = chart(
        traces, x={"title": "seconds since the command", "rangemode": "tozero"}, y=y, height=120 + 42 * len(workers)
    )
    figure["layout"] |= {"barmode": "overlay", "uniformtext": {"minsize": 11, "mode": "hide"}}
    return figure


def time_bar(core_seconds: dict[str, float]) -> Figure:
    """Draw one bar: the shares of the core seconds of all sessions."""
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [""],
            "x": [core_seconds[part] / core_seconds["whole"]],
            "marker": {"color": PART_COLOURS[part]},
            "hovertemplate": f"{name}: %{{x:.2p}}, {core_seconds[part]:.4g} core seconds<extra></extra>",
        }
        for part, name in PART_NAMES.items()
        if core_seconds[part] > 0
    ]
    figure = chart(traces, x={"tickformat": ".0%", "range": [0, 1]}, y={"visible": False}, height=190)
    figure["layout"]["barmode"] = "stack"
    figure["layout"]["legend"]["traceorder"] = "normal"
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw the confusion matrix of the test images; only wrong predictions are coloured."""
    cells = [(row, column, count) for row, line in enumerate(matrix) for column, count in enumerate(line)]
    colours = {
        "type": "heatmap",
        "x": list(classes),
        "y": list(classes),
        "z": [
            [None if row == column else count for column, count in enumerate(line)] for row, line in enumerate(matrix)
        ],
        "colorscale": [[0, "rgba(210,63,63,0)"], [1, "rgba(210,63,63,0.75)"]],
        "showscale": False,
        "hoverongaps": False,
        "hovertemplate": "%{y}, predicted as %{x}: %{z}<extra></extra>",
    }
    numbers = scatter(
        "text",
        [classes[column] for _, column, _ in cells],
        [classes[row] for row, _, _ in cells],
        text=[f"<b>{count}</b>" if row == column else str(count or "") for row, column, count in cells],
        textfont={"size": 10},
        hoverinfo="skip",
        showlegend=False,
    )
    y = {"title": "true class", "autorange": "reversed", "type": "category", "showgrid": False}
    x = {"title": "predicted class", "type": "category", "tickangle": -45, "showgrid": False}
    return chart([colours, numbers], x=x, y=y, height=480)
