"""The charts of the report as plotly figures: plain data that plotly.js draws."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from plotly.colors import sample_colorscale
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from search.analysis.equal_budget import EqualBudget
from search.analysis.gain import baseline_name
from search.analysis.importance import Importance
from search.analysis.time_accounting import PART_NAMES, WorkerTrial
from search.outputs.chart_layout import (
    ACCURACIES,
    BASELINE,
    BEST,
    COMPLETED,
    STATUS_COLOURS,
    STOPPED,
    Figure,
    axis_of,
    chart,
    height_of,
    metric_axis,
)
from search.record.confirmation import Confirmation
from search.record.ranking import baseline_trial, best_trial, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord
from search.space.distributions import Distribution, HyperparameterValue, OrderedChoice, from_unit, to_unit
from search.space.search_space import SearchSpace
from training.console.terminal import format_value
from training.metrics import CONFIDENCE

PART_COLOURS = dict(zip(PART_NAMES, ("#3f7fd0", "#8bb6ea", "#8e5bd0", "#b08a2e", "#d23f3f", "#8a9099"), strict=True))
SCALE = [[0, "#46307f"], [0.35, "#2f6f9f"], [0.7, "#3fb37f"], [1, "#f2c84b"]]
"""From the worst value to the best: dark to bright, told apart without colour vision too."""


def learning_curves(record: StudyRecord) -> Figure:
    """The metric of each trial after each epoch."""
    best, baseline = best_trial(record.trials), baseline_trial(record.trials)
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in record.trials:
        if trial.epochs and trial is not best and trial is not baseline:
            groups[trial.status].append(trial)
    traces = [
        _curves(record, trials, name.replace("_", " "), STATUS_COLOURS[name], width=1.2)
        for name, trials in sorted(groups.items(), key=lambda group: group[0] == "completed")
    ]
    if baseline and baseline is not best and baseline.epochs:
        traces.append(_curves(record, [baseline], baseline_name(record.metadata), BASELINE, width=2.5, dash="dash"))
    if best:
        traces.append(_curves(record, [best], f"best, trial {best.number}", BEST, width=3))
    values = [record.objective.value(metrics) for trial in record.trials for metrics in trial.epochs]
    return chart(traces, x={"title": "epoch", "dtick": _step(record.epochs)}, y=metric_axis(record, values), height=400)


def _curves(record: StudyRecord, trials: list[TrialRecord], name: str, colour: str, **line: Any) -> Figure:
    """Lines of several trials as one trace, with gaps between them: a thousand traces would be slow."""
    x: list[int | None] = []
    y: list[float | None] = []
    labels: list[str | None] = []
    for trial in trials:
        x += [*(metrics.epoch for metrics in trial.epochs), None]
        values = [record.objective.value(metrics) for metrics in trial.epochs]
        y += [*(height_of(record, value) for value in values), None]
        labels += [
            *(f"{_label(trial)}<br>epoch {epoch}: {value:.4f}" for epoch, value in enumerate(values, start=1)),
            None,
        ]
    shape = "lines" if any(len(trial.epochs) > 1 for trial in trials) and len(trials) > 100 else "lines+markers"
    return {
        "type": "scatter",
        "mode": shape,
        "name": name + (f" ({len(trials)})" if len(trials) > 1 else ""),
        "x": x,
        "y": y,
        "text": labels,
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour, **line},
        "marker": {"color": colour, "size": 4},
    }


def optimisation_history(record: StudyRecord) -> Figure:
    """The best value of each trial in order of proposal, and the best so far."""
    traces = [
        _points(record, trials, status, x=[trial.number for trial in trials])
        for status, trials in _by_status(record).items()
    ]
    measured = valid_trials(record.trials)
    if measured:
        bests = [trial.best_value for trial in measured]
        so_far = np.minimum.accumulate(bests) if record.mode == "min" else np.maximum.accumulate(bests)
        line = {"color": BEST, "width": 2, "shape": "hv"}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": [trial.number for trial in measured],
                "y": [height_of(record, value) for value in so_far.tolist()],
                "line": line,
                "hoverinfo": "skip",
            }
        )
    figure = chart(traces, x={"title": "trial"}, y=metric_axis(record, [trial.best_value for trial in measured]))
    baseline = baseline_trial(record.trials)
    if baseline and baseline in measured:
        level = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y"}
        height = height_of(record, baseline.best_value)
        figure["layout"]["shapes"] = [level | {"y0": height, "y1": height, "line": {"color": BASELINE, "dash": "dash"}}]
    return figure


def parallel_coordinates(record: StudyRecord) -> Figure:
    """A line for each trial through its hyperparameters to its best value, coloured by this value."""
    space, trials = record.space, valid_trials(record.trials)
    values = [trial.best_value for trial in trials]
    merits = np.array([_merit(record, value) for value in values])
    low, high = (float(merits.min()), float(merits.max())) if len(merits) else (0.0, 1.0)
    heights = (merits - low) / ((high - low) or 1.0)
    rank = np.argsort(np.argsort(merits)) / max(1, len(merits) - 1)
    bands, traces = 8, []
    for band in range(bands):
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str | None] = []
        inside = [index for index in range(len(trials)) if min(int(rank[index] * bands), bands - 1) == band]
        for index in inside:
            trial = trials[index]
            x += [*range(len(space) + 1), None]
            y += [*(_place(space, name, trial) for name in space), float(heights[index]), None]
            text += [*([f"{_label(trial)}<br>{record.metric} {values[index]:.4f}"] * (len(space) + 1)), None]
        colour = sample_colorscale(SCALE, (band + 0.5) / bands)[0]
        line = {"color": colour, "width": 1.2 if band < bands - 1 else 2.5}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "text": text,
                "line": line,
                "opacity": 0.75,
                "hovertemplate": "%{text}<extra></extra>",
                "showlegend": False,
            }
        )
    axes = [*space, record.metric]
    annotations = [
        note
        for column, name in enumerate(space)
        for note in _axis_notes(column, [(to_unit(space[name], value), value) for value in _ticks(space[name])])
    ]
    marks = [((merit - low) / ((high - low) or 1.0), value) for merit, value in _marks(record, values)]
    annotations += _axis_notes(len(space), marks)
    for column, name in enumerate(space):
        if any(name not in trial.hyperparameters for trial in trials):
            annotations += _axis_notes(column, [(NOT_DRAWN, "not drawn")])
    figure = chart(
        traces, x={}, y={"visible": False, "range": [NOT_DRAWN - 0.04, 1.06], "fixedrange": True}, height=380
    )
    figure["layout"]["xaxis"] = {
        "tickvals": list(range(len(axes))),
        "ticktext": axes,
        "range": [-0.15, len(axes) - 0.7],
        "fixedrange": True,
        "zeroline": False,
        "side": "top",
    }
    figure["layout"]["annotations"] = annotations
    return figure


NOT_DRAWN = -0.1
"""Where a line passes the axis of a hyperparameter that its trial does not have."""


def _place(space: SearchSpace, name: str, trial: TrialRecord) -> float:
    value = trial.hyperparameters.get(name)
    return NOT_DRAWN if value is None else to_unit(space[name], value)


def _axis_notes(column: int, ticks: Sequence[tuple[float, Any]]) -> list[Figure]:
    """Numbers beside an axis of the parallel coordinates."""
    return [
        {
            "x": column,
            "y": height,
            "text": format_value(value),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 4,
            "font": {"size": 11},
        }
        for height, value in ticks
    ]


def slice_of(record: StudyRecord, name: str) -> Figure:
    """The best value of each trial over one hyperparameter."""
    traces = [
        _points(record, trials, status, x=[_shown(trial.hyperparameters[name]) for trial in trials])
        for status, trials in _by_status(record, with_value_of=name).items()
    ]
    best = best_trial(record.trials)
    if best and name in best.hyperparameters:
        star = _points(record, [best], "best", x=[_shown(best.hyperparameters[name])])
        traces.append(star | {"marker": {"color": BEST, "size": 13, "symbol": "star"}})
    values = [trial.best_value for trial in valid_trials(record.trials)]
    figure = chart(traces, x=axis_of(name, record.space[name]), y=metric_axis(record, values), height=300)
    figure["layout"]["showlegend"] = False
    return figure


def _shown(value: HyperparameterValue) -> HyperparameterValue:
    return str(value) if isinstance(value, bool) else value


Plane = tuple[str, str]
"""Names of the hyperparameters across and up."""


def contour(record: StudyRecord, compared: EqualBudget, plane: Plane, optimizer: str | None = None) -> Figure | None:
    """Values between the trials, those of one optimizer or all, over two hyperparameters; and the trials themselves.

    Between trials the values are interpolated linearly; there are none outside of the area that the trials span.
    """
    chosen = [
        (trial, value)
        for trial, value in zip(compared.trials, compared.values, strict=True)
        if (optimizer is None or trial.hyperparameters.get("optimizer") == optimizer)
        and {*plane} <= trial.hyperparameters.keys()
    ]
    if not chosen:
        return None
    trials, values = zip(*chosen, strict=True)
    merits = [_merit(record, value) for value in values]
    of_all = [_merit(record, value) for value in compared.values]
    marks = _marks(record, compared.values)
    bar = {"tickvals": [merit for merit, _ in marks], "ticktext": [format_value(value) for _, value in marks]}
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": [trial.hyperparameters[plane[0]] for trial in trials],
        "y": [trial.hyperparameters[plane[1]] for trial in trials],
        "text": [_label(trial) for trial in trials],
        "customdata": values,
        "hovertemplate": f"%{{text}}<br>{record.metric} %{{customdata:.4f}}<extra></extra>",
        "marker": {
            "color": merits,
            "colorscale": SCALE,
            "cmin": min(of_all),
            "cmax": max(of_all),
            "showscale": True,
            "colorbar": {"thickness": 12, "outlinewidth": 0, **bar},
            "size": 9,
            "line": {"color": "#ffffff", "width": 1},
        },
        "showlegend": False,
    }
    area = _between(trials, merits, plane, record.space)
    if area:
        area |= {"colorscale": SCALE, "zmin": min(of_all), "zmax": max(of_all)}
    across, up = (axis_of(name, record.space[name]) for name in plane)
    figure = chart([area, points] if area else [points], x=across, y=up, height=320)
    figure["layout"]["title"] = {"text": optimizer or "", "x": 0.5, "y": 0.98, "font": {"size": 13}}
    return figure


def _merit(record: StudyRecord, value: float) -> float:
    """How good a value of the metric is, on the stretched scale of the axes; more is better."""
    height = height_of(record, value)
    return -math.log10(height) if record.metadata.is_accuracy else -height


def _marks(record: StudyRecord, values: Sequence[float]) -> list[tuple[float, float]]:
    """Merits to be marked on a scale, and the values that they stand for."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    between = ACCURACIES if record.metadata.is_accuracy else np.linspace(low, high, 5).tolist()
    return [(_merit(record, value), value) for value in between if low <= value <= high]


def _between(trials: Sequence[TrialRecord], values: Sequence[float], plane: Plane, space: SearchSpace) -> Figure | None:
    across, up = (space[name] for name in plane)
    assert not isinstance(across, CategoricalDistribution)
    assert not isinstance(up, CategoricalDistribution)
    points = [[to_unit(space[name], trial.hyperparameters[name]) for name in plane] for trial in trials]
    try:
        interpolate = LinearNDInterpolator(np.array(points), np.array(values))
    except (QhullError, ValueError):  # fewer than three trials, or all on a line
        return None
    places = np.linspace(0, 1, 41)
    heights = interpolate(*np.meshgrid(places, places))
    return {
        "type": "contour",
        "x": [from_unit(across, place) for place in places],
        "y": [from_unit(up, place) for place in places],
        "z": [[None if math.isnan(height) else round(float(height), 5) for height in row] for row in heights],
        "contours": {"coloring": "heatmap"},
        "opacity": 0.6,
        "hoverinfo": "skip",
        "showscale": False,
    }


def confirmation(confirmed: Confirmation) -> Figure:
    """The mean of each configuration over fresh seeds with its interval, each seed, and what the search had said.

    The first row is of the winner from the seeds that chose nothing.
    """
    chosen = [one for one in confirmed.configurations if one.is_measured]
    measured = [confirmed.confirmed, *chosen]
    names = [f"trial {confirmed.confirmed.trial}, confirmed", *(f"trial {one.trial}" for one in chosen)]
    estimates = [one.metric for one in measured]
    seeds = {
        "type": "scatter",
        "mode": "markers",
        "name": "one seed",
        "x": [value for one in measured for value in one.values],
        "y": [name for name, one in zip(names, measured, strict=True) for _ in one.values],
        "text": [f"seed {seed}" for one in measured for seed in one.seeds],
        "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
        "marker": {"color": STOPPED, "size": 6},
    }
    means = {
        "type": "scatter",
        "mode": "markers",
        "name": f"mean, {CONFIDENCE} % interval",
        "x": [estimate.mean for estimate in estimates],
        "y": names,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [estimate.high - estimate.mean for estimate in estimates],
            "arrayminus": [estimate.mean - estimate.low for estimate in estimates],
            "thickness": 1.5,
            "color": COMPLETED,
        },
        "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
        "marker": {"color": COMPLETED, "size": 10},
    }
    searched = {
        "type": "scatter",
        "mode": "markers",
        "name": "the search said",
        "x": [one.search_value for one in measured],
        "y": names,
        "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
        "marker": {"color": BEST, "size": 11, "symbol": "diamond-open"},
    }
    y = {"type": "category", "categoryorder": "array", "categoryarray": names[::-1]}
    x = {"title": confirmed.winner.metric_name}
    return chart([seeds, means, searched], x=x, y=y, height=130 + 45 * len(names))


def importance_bars(found: Sequence[Importance]) -> Figure:
    """The share of each hyperparameter, with its interval."""
    shown = list(reversed(found))
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [importance.name for importance in shown],
        "x": [importance.share for importance in shown],
        "marker": {"color": [STOPPED if importance.is_noise else COMPLETED for importance in shown]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, importance.high - importance.share) for importance in shown],
            "arrayminus": [max(0.0, importance.share - importance.low) for importance in shown],
            "thickness": 1.5,
        },
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    ends = (min([0.0, *(one.low for one in found)]), max([1.0, *(one.high for one in found)]))
    x = {"title": "share of the variance", "range": [ends[0] - 0.02, ends[1] + 0.02], "tickformat": ".0%"}
    return chart([bars], x=x, y={}, height=120 + 45 * len(shown))


def timeline(stretches: Sequence[WorkerTrial]) -> Figure:
    """What ran where and when: a row for each worker, a bar for each trial on it."""
    workers = list(dict.fromkeys(stretch.worker for stretch in stretches))
    traces = []
    for status, colour in STATUS_COLOURS.items():
        bars = [stretch for stretch in stretches if stretch.trial.status == status]
        if bars:
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": status.replace("_", " "),
                    "y": [stretch.worker for stretch in bars],
                    "base": [round(stretch.began, 2) for stretch in bars],
                    "x": [round(stretch.ended - stretch.began, 2) for stretch in bars],
                    "text": [str(stretch.trial.number) for stretch in bars],
                    "textposition": "inside",
                    "insidetextanchor": "middle",
                    "customdata": [_label(stretch.trial) for stretch in bars],
                    "hovertemplate": "%{customdata}<br>from %{base} s, %{x} s<extra></extra>",
                    "marker": {"color": colour, "line": {"color": "rgba(255,255,255,0.7)", "width": 1}},
                }
            )
    y = {"categoryorder": "array", "categoryarray": workers[::-1]}
    figure = chart(
        traces, x={"title": "seconds since the command", "rangemode": "tozero"}, y=y, height=120 + 42 * len(workers)
    )
    figure["layout"]["barmode"] = "overlay"
    return figure


def time_bar(ledger: dict[str, float]) -> Figure:
    """One bar: what all cores did from command to end."""
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [""],
            "x": [ledger[part] / ledger["whole"]],
            "marker": {"color": PART_COLOURS[part]},
            "hovertemplate": f"{name}: %{{x:.1%}}, {ledger[part]:.1f} core seconds<extra></extra>",
        }
        for part, name in PART_NAMES.items()
        if ledger[part]
    ]
    figure = chart(traces, x={"tickformat": ".0%", "range": [0, 1]}, y={"visible": False}, height=150)
    figure["layout"]["barmode"] = "stack"
    figure["layout"]["legend"]["traceorder"] = "normal"
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Test images by their class and the class that the model saw in them; right ones are left out of the colours."""
    cells = [(row, column, count) for row, line in enumerate(matrix) for column, count in enumerate(line)]
    colours = {
        "type": "heatmap",
        "x": list(classes),
        "y": list(classes),
        "z": [
            [count if row != column else None for column, count in enumerate(line)] for row, line in enumerate(matrix)
        ],
        "colorscale": [[0, "rgba(210,63,63,0)"], [1, "rgba(210,63,63,0.75)"]],
        "showscale": False,
        "hoverongaps": False,
        "hovertemplate": "%{y} seen as %{x}: %{z}<extra></extra>",
    }
    numbers = {
        "type": "scatter",
        "mode": "text",
        "x": [classes[column] for _, column, _ in cells],
        "y": [classes[row] for row, _, _ in cells],
        "text": [f"<b>{count}</b>" if row == column else str(count or "") for row, column, count in cells],
        "textfont": {"size": 10},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    y = {"title": "true class", "autorange": "reversed", "type": "category", "showgrid": False}
    x = {"title": "seen as", "type": "category", "tickangle": -45, "showgrid": False}
    return chart([colours, numbers], x=x, y=y, height=480)


def _points(record: StudyRecord, trials: list[TrialRecord], status: str, x: list[Any]) -> Figure:
    hollow = "-open" if status in ("stopped_early", "interrupted") else ""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": status.replace("_", " "),
        "x": x,
        "y": [height_of(record, trial.best_value) for trial in trials],
        "text": [
            f"{_label(trial)}<br>{len(trial.epochs)} epochs<br>{record.metric} {trial.best_value:.4f}"
            for trial in trials
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": STATUS_COLOURS.get(status, BEST), "size": 8, "symbol": f"circle{hollow}"},
    }


def _by_status(record: StudyRecord, with_value_of: str | None = None) -> dict[str, list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in valid_trials(record.trials):
        if with_value_of is None or with_value_of in trial.hyperparameters:
            groups[trial.status].append(trial)
    return groups


def _label(trial: TrialRecord) -> str:
    values = "<br>".join(f"{name} {format_value(value)}" for name, value in trial.hyperparameters.items())
    failure = f"<br>{trial.failure.kind}" if trial.failure and trial.status in FAILED else ""
    return f"<b>trial {trial.number}</b>, {trial.status.replace('_', ' ')}{failure}<br>{values}"


def _ticks(distribution: Distribution) -> list[Any]:
    match distribution:
        case OrderedChoice():
            return list(distribution.values)
        case CategoricalDistribution():
            return list(distribution.choices)
        case _:
            return [from_unit(distribution, place) for place in np.linspace(0, 1, 4)]


def _step(epochs: int) -> int:
    return max(1, math.ceil(epochs / 10))
