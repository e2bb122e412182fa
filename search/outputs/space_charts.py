"""Charts of several hyperparameters at once, as plotly figures: parallel coordinates and a plane of two."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, IntDistribution
from plotly.colors import sample_colorscale
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from search.analysis.equal_budget import EqualBudget
from search.outputs.chart_layout import (
    ACCURACIES,
    HOVER_TEXT,
    Figure,
    axis_value,
    chart,
    hyperparameter_axis,
    round_ticks,
    scatter,
)
from search.outputs.trial_charts import trial_label
from search.record.ranking import valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.space.distributions import Distribution, HyperparameterValue, OrderedChoice, bounds, from_unit, to_unit
from training.console.terminal import format_metric, format_value

SCALE = [[0, "#46307f"], [0.35, "#2f6f9f"], [0.7, "#3fb37f"], [1, "#f2c84b"]]
"""Dark for the worst value, bright for the best; the scale works without colour vision, too."""
INACTIVE = -0.1
"""Height at which a line passes the axis of a hyperparameter that is inactive in its trial."""
Plane = tuple[str, str]
"""Names of the hyperparameters on the x axis and on the y axis."""


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
            text += [
                *([f"{trial_label(trial)}<br>{record.metric} {format_metric(values[index])}"] * (len(space) + 1)),
                None,
            ]
        colour = sample_colorscale(SCALE, (band + 0.5) / bands)[0]
        line = {"color": colour, "width": 1.2 if band < bands - 1 else 2.5}
        style = {"opacity": 0.75, "hovertemplate": HOVER_TEXT, "showlegend": False}
        traces.append(scatter("lines", x, y, text=text, line=line, **style))
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


def _parallel_height(record: StudyRecord, name: str, trial: TrialRecord) -> float:
    value = trial.hyperparameters.get(name)
    return INACTIVE if value is None else to_unit(record.space[name], value)


def _axis_notes(column: int, ticks: Sequence[tuple[float, Any]]) -> list[Figure]:
    """Write values beside an axis of the parallel coordinates."""
    note = {"x": column, "showarrow": False, "xanchor": "left", "xshift": 4, "font": {"size": 11}}
    return [note | {"y": height, "text": format_value(value)} for height, value in ticks]


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
    points = scatter(
        "markers",
        *([trial.hyperparameters[name] for trial in trials] for name in plane),
        text=[
            f"{trial_label(trial)}<br>{record.metric} {format_metric(value)}"
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


def _ticks(distribution: Distribution) -> list[Any]:
    match distribution:
        case OrderedChoice():
            return list(distribution.values)
        case CategoricalDistribution():
            return list(distribution.choices)
        case _:
            whole = isinstance(distribution, IntDistribution)
            return round_ticks(*bounds(distribution), log=distribution.log, whole=whole)
