"""The charts of the report as plotly figures: plain data that plotly.js draws."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, IntDistribution
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
    axis_value,
    chart,
    has_scale,
    hyperparameter_axis,
    metric_axis,
    round_ticks,
)
from search.record.confirmation import Confirmation
from search.record.estimate import Estimate
from search.record.ranking import baseline_trial, best_trial, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord
from search.space.distributions import Distribution, HyperparameterValue, OrderedChoice, bounds, from_unit, to_unit
from training.console.terminal import counted, format_metric, format_value
from training.metrics import CONFIDENCE

_COLOURS = ("#3f7fd0", "#8bb6ea", "#8e5bd0", "#b08a2e", "#d23f3f", "#d98cc0", "#8a9099")
PART_COLOURS = dict(zip(PART_NAMES, _COLOURS, strict=True))
HOVER_TEXT = "%{text}<extra></extra>"
SCALE = [[0, "#46307f"], [0.35, "#2f6f9f"], [0.7, "#3fb37f"], [1, "#f2c84b"]]
"""Dark for the worst value, bright for the best; the scale works without colour vision, too."""


def learning_curves(record: StudyRecord) -> Figure:
    """Draw the metric of each trial after each epoch."""
    best, baseline = best_trial(record.trials), baseline_trial(record.trials)
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in record.trials:
        if trial.best_epoch and trial is not best and trial is not baseline:
            groups[trial.status].append(trial)
    traces = [
        _curves(record, trials, name.replace("_", " "), STATUS_COLOURS[name], width=1.2)
        for name, trials in sorted(groups.items(), key=lambda group: group[0] == "completed")
    ]
    if baseline and baseline is not best and baseline.best_epoch:
        traces.append(_curves(record, [baseline], baseline_name(record.metadata), BASELINE, width=2.5, dash="dash"))
    if best:
        traces.append(_curves(record, [best], best_name(record, best), BEST, width=3))
    values = [value for trial in record.trials for value in trial.curve.values()]
    return chart(
        traces, x={"title": "epoch", "dtick": math.ceil(record.epochs / 10)}, y=metric_axis(record, values), height=400
    )


def best_name(record: StudyRecord, best: TrialRecord) -> str:
    """The name of the best trial in a chart; in a confirmed study another configuration may be the result."""
    return f"best{' of the search' if record.metadata.confirmation else ''}, trial {best.number}"


def _scatter(mode: str, x: Sequence[Any], y: Sequence[Any], **style: Any) -> Figure:
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **style}


def _curves(record: StudyRecord, trials: list[TrialRecord], name: str, colour: str, **line: Any) -> Figure:
    """Draw the curves of several trials as one trace, with gaps between them: a thousand traces would be slow."""
    x: list[int | None] = []
    y: list[float | None] = []
    labels: list[str | None] = []
    for trial in trials:
        curve = trial.curve
        x += [*curve, None]
        y += [*(axis_value(record, value) for value in curve.values()), None]
        labels += [
            *(f"{_label(trial)}<br>epoch {epoch}: {format_metric(value)}" for epoch, value in curve.items()),
            None,
        ]
    return _scatter(
        "lines" if any(len(trial.epochs) > 1 for trial in trials) and len(trials) > 100 else "lines+markers",
        x,
        y,
        name=name + (f" ({len(trials)})" if len(trials) > 1 else ""),
        text=labels,
        hovertemplate=HOVER_TEXT,
        line={"color": colour, **line},
        marker={"color": colour, "size": 4},
    )


def optimisation_history(record: StudyRecord) -> Figure:
    """Draw the best value of each trial in order of proposal, and the incumbent."""
    traces = [
        _points(record, trials, status, x=[trial.number for trial in trials])
        for status, trials in _group_by_status(record).items()
    ]
    numbers, incumbents = incumbent_values(record)
    if numbers:
        y = [axis_value(record, value) for value in incumbents]
        line = {"color": BEST, "width": 2, "shape": "hv"}
        traces.append(_scatter("lines", numbers, y, name="best so far", line=line, hoverinfo="skip"))
    values = [trial.best_value for trial in valid_trials(record.trials)]
    if values:
        traces += _failed_points(record, values, {trial.number: trial.number for trial in record.trials})
    step = math.ceil(len(record.trials) / 10)  # no ticks between two trials
    figure = chart(traces, x={"title": "trial", "dtick": max(1, step)}, y=metric_axis(record, values))
    baseline = baseline_trial(record.trials)
    if baseline and baseline.is_valid:
        level = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y"}
        height = axis_value(record, baseline.best_value)
        figure["layout"]["shapes"] = [level | {"y0": height, "y1": height, "line": {"color": BASELINE, "dash": "dash"}}]
    return figure


def _failed_points(record: StudyRecord, values: Sequence[float], places: Mapping[int, Any]) -> list[Figure]:
    """Mark the trials that diverged or failed, which have no value, at the height of the worst value.

    `places` has the position on the x axis by number of the trial; trials without a position are left out.
    """
    height = axis_value(record, max(values) if record.mode == "min" else min(values))
    traces = []
    for status in FAILED:
        trials = [trial for trial in record.trials if trial.status == status and trial.number in places]
        if trials:
            x, y = [places[trial.number] for trial in trials], [height] * len(trials)
            marker = {"color": STATUS_COLOURS[status], "size": 8, "symbol": "x"}
            labels = [_label(trial) for trial in trials]
            traces.append(_scatter("markers", x, y, name=status, text=labels, hovertemplate=HOVER_TEXT, marker=marker))
    return traces


def incumbent_values(record: StudyRecord) -> tuple[list[int], list[float]]:
    """Numbers of the valid trials, and the best value of the study after each of them."""
    trials = valid_trials(record.trials)
    best = min if record.mode == "min" else max
    return [trial.number for trial in trials], [*accumulate((trial.best_value for trial in trials), best)]


def parallel_coordinates(record: StudyRecord) -> Figure:
    """Draw a line for each trial through its hyperparameters to its best value; the value gives the colour."""
    space, trials = record.space, valid_trials(record.trials)
    values = [trial.best_value for trial in trials]
    scores = np.array([_score(record, value) for value in values])
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    heights = (scores - low) / ((high - low) or 1.0)
    rank = np.argsort(np.argsort(scores)) / max(1, len(scores) - 1)
    bands, traces = 8, []
    for band in range(bands):
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str | None] = []
        inside = [index for index in range(len(trials)) if min(int(rank[index] * bands), bands - 1) == band]
        for index in inside:
            trial = trials[index]
            x += [*range(len(space) + 1), None]
            y += [*(_parallel_height(record, name, trial) for name in space), float(heights[index]), None]
            text += [*([f"{_label(trial)}<br>{record.metric} {format_metric(values[index])}"] * (len(space) + 1)), None]
        colour = sample_colorscale(SCALE, (band + 0.5) / bands)[0]
        line = {"color": colour, "width": 1.2 if band < bands - 1 else 2.5}
        style = {"opacity": 0.75, "hovertemplate": HOVER_TEXT, "showlegend": False}
        traces.append(_scatter("lines", x, y, text=text, line=line, **style))
    annotations = [
        note
        for column, name in enumerate(space)
        for note in _axis_notes(column, [(to_unit(space[name], value), value) for value in _ticks(space[name])])
    ]
    ticks = [((score - low) / ((high - low) or 1.0), value) for score, value in _score_ticks(record, values)]
    annotations += _axis_notes(len(space), ticks)
    for column, name in enumerate(space):
        if any(name not in trial.hyperparameters for trial in trials):
            annotations += _axis_notes(column, [(INACTIVE, "inactive")])
    figure = chart(traces, x={}, y={"visible": False, "range": [INACTIVE - 0.04, 1.06], "fixedrange": True}, height=380)
    axis = {"range": [-0.15, len(space) + 0.3], "fixedrange": True, "zeroline": False, "side": "top"}
    axis |= {"tickvals": [*range(len(space) + 1)], "ticktext": [*space, record.metric]}
    figure["layout"] |= {"xaxis": axis, "annotations": annotations}
    return figure


INACTIVE = -0.1
"""Height at which a line passes the axis of a hyperparameter that is inactive in its trial."""


def _parallel_height(record: StudyRecord, name: str, trial: TrialRecord) -> float:
    value = trial.hyperparameters.get(name)
    return INACTIVE if value is None else to_unit(record.space[name], value)


def _axis_notes(column: int, ticks: Sequence[tuple[float, Any]]) -> list[Figure]:
    """Write values beside an axis of the parallel coordinates."""
    note = {"x": column, "showarrow": False, "xanchor": "left", "xshift": 4, "font": {"size": 11}}
    return [note | {"y": height, "text": format_value(value)} for height, value in ticks]


def slice_plot(record: StudyRecord, name: str) -> Figure:
    """Draw the best value of each trial over one hyperparameter."""
    traces = [
        _points(record, trials, status, x=[_category(record, name, trial) for trial in trials])
        for status, trials in _group_by_status(record, name).items()
    ]
    best = best_trial(record.trials)
    if best and name in best.hyperparameters:
        star = _points(record, [best], "best", x=[_category(record, name, best)])
        traces.append(star | {"marker": {"color": BEST, "size": 13, "symbol": "star"}})
    values = [trial.best_value for trial in valid_trials(record.trials)]
    places = {trial.number: _category(record, name, trial) for trial in record.trials if name in trial.hyperparameters}
    traces += _failed_points(record, values, places) if values else []
    figure = chart(traces, x=hyperparameter_axis(name, record.space[name]), y=metric_axis(record, values), height=300)
    figure["layout"]["showlegend"] = False
    return figure


def _category(record: StudyRecord, name: str, trial: TrialRecord) -> HyperparameterValue:
    value = trial.hyperparameters[name]
    return value if has_scale(record.space[name]) else str(value)


Plane = tuple[str, str]
"""Names of the hyperparameters on the x axis and on the y axis."""


def contour(
    record: StudyRecord, compared: EqualBudget, plane: Plane, optimizer: HyperparameterValue | None = None
) -> Figure | None:
    """Draw the metric over two hyperparameters: the trials, of one optimizer or of all, and the values between them.

    Between trials the values are interpolated linearly; outside of the area that the trials span there are no values.
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
    scores = [_score(record, value) for value in values]
    all_scores = [_score(record, value) for value in compared.values]
    ticks = _score_ticks(record, compared.values)
    bar = {"tickvals": [score for score, _ in ticks], "ticktext": [format_value(value) for _, value in ticks]}
    colours = {"color": scores, "colorscale": SCALE, "cmin": min(all_scores), "cmax": max(all_scores)}
    colours |= {"showscale": True, "colorbar": {"thickness": 12, "outlinewidth": 0, **bar}}
    points = _scatter(
        "markers",
        *([trial.hyperparameters[name] for trial in trials] for name in plane),
        text=[
            f"{_label(trial)}<br>{record.metric} {format_metric(value)}"
            for trial, value in zip(trials, values, strict=True)
        ],
        hovertemplate=HOVER_TEXT,
        marker=colours | {"size": 9, "line": {"color": "#ffffff", "width": 1}},
        showlegend=False,
    )
    area = _interpolate(record, trials, scores, plane)
    if area:
        area |= {"colorscale": SCALE, "zmin": min(all_scores), "zmax": max(all_scores)}
    x, y = (hyperparameter_axis(name, record.space[name], whole=True) for name in plane)
    figure = chart([area, points] if area else [points], x=x, y=y, height=320)
    figure["layout"]["title"] = {
        "text": "" if optimizer is None else str(optimizer),
        "x": 0.5,
        "y": 0.98,
        "font": {"size": 13},
    }
    return figure


def _score(record: StudyRecord, value: float) -> float:
    """Convert a value of the metric to the scale of its axis, so that more is better."""
    height = axis_value(record, value)
    if record.metadata.is_accuracy:
        return -math.log10(height)
    return height if record.mode == "max" else -height


def _score_ticks(record: StudyRecord, values: Sequence[float]) -> list[tuple[float, float]]:
    """Choose the ticks of a scale of scores: each score with its value of the metric."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    ends = axis_value(record, low), axis_value(record, high)
    ticks = ACCURACIES if record.metadata.is_accuracy else round_ticks(*ends)
    return [(_score(record, value), value) for value in ticks if low <= value <= high]


def _interpolate(
    record: StudyRecord, trials: Sequence[TrialRecord], scores: Sequence[float], plane: Plane
) -> Figure | None:
    x, y = (record.space[name] for name in plane)
    assert not isinstance(x, CategoricalDistribution)
    assert not isinstance(y, CategoricalDistribution)
    points = [[to_unit(record.space[name], trial.hyperparameters[name]) for name in plane] for trial in trials]
    try:
        interpolator = LinearNDInterpolator(np.array(points), np.array(scores))
    except (QhullError, ValueError):  # fewer than three trials, or all on a line
        return None
    grid = np.linspace(0, 1, 41)
    heights = interpolator(*np.meshgrid(grid, grid))
    return {
        "type": "contour",
        "x": [from_unit(x, unit) for unit in grid],
        "y": [from_unit(y, unit) for unit in grid],
        "z": [[None if math.isnan(height) else float(f"{height:.5g}") for height in row] for row in heights],
        "contours": {"coloring": "heatmap"},
        "opacity": 0.6,
        "hoverinfo": "skip",
        "showscale": False,
    }


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
    seed_points = _scatter(
        "markers",
        [value for one in measured for value in one.values],
        [name for name, one in zip(names, measured, strict=True) for _ in one.values],
        name="one seed",
        text=[f"seed {seed}" for one in measured for seed in one.seeds],
        hovertemplate="%{text}: %{x:.4f}<extra></extra>",
        marker={"color": STOPPED, "size": 6},
    )
    mean_points = _scatter(
        "markers",
        means,
        names,
        name=f"mean, {CONFIDENCE} % interval",
        error_x=_error_bars(means, estimates) | {"color": COMPLETED},
        marker={"color": COMPLETED, "size": 10},
        **hover,
    )
    search_points = _scatter(
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
                    "customdata": [_label(run.trial) for run in bars],
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
    numbers = _scatter(
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


def _points(record: StudyRecord, trials: list[TrialRecord], status: str, x: list[Any]) -> Figure:
    hollow = "-open" if status in ("stopped_early", "paused", "interrupted") else ""
    return _scatter(
        "markers",
        x,
        [axis_value(record, trial.best_value) for trial in trials],
        name=status.replace("_", " "),
        text=[
            f"{_label(trial)}<br>{counted(len(trial.epochs), 'epoch')}<br>"
            f"{record.metric} {format_metric(trial.best_value)}"
            for trial in trials
        ],
        hovertemplate=HOVER_TEXT,
        marker={"color": STATUS_COLOURS.get(status, BEST), "size": 8, "symbol": f"circle{hollow}"},
    )


def _group_by_status(record: StudyRecord, hyperparameter: str | None = None) -> dict[str, list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in valid_trials(record.trials):
        if hyperparameter is None or hyperparameter in trial.hyperparameters:
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
            whole = isinstance(distribution, IntDistribution)
            return round_ticks(*bounds(distribution), log=distribution.log, whole=whole)
