"""Charts of the trials of a study, as plotly figures: learning curves, history, and one hyperparameter at a time."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from search.analysis.gain import baseline_name
from search.outputs.chart_layout import (
    BASELINE,
    BEST,
    HOVER_TEXT,
    STATUS_COLOURS,
    Figure,
    axis_value,
    chart,
    has_scale,
    hyperparameter_axis,
    metric_axis,
    scatter,
)
from search.record.ranking import baseline_trial, best_trial, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord
from search.space.distributions import HyperparameterValue
from training.console.terminal import counted, format_metric, format_value


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
            *(f"{trial_label(trial)}<br>epoch {epoch}: {format_metric(value)}" for epoch, value in curve.items()),
            None,
        ]
    return scatter(
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
        traces.append(scatter("lines", numbers, y, name="best so far", line=line, hoverinfo="skip"))
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
            labels = [trial_label(trial) for trial in trials]
            traces.append(scatter("markers", x, y, name=status, text=labels, hovertemplate=HOVER_TEXT, marker=marker))
    return traces


def incumbent_values(record: StudyRecord) -> tuple[list[int], list[float]]:
    """Numbers of the valid trials, and the best value of the study after each of them."""
    trials = valid_trials(record.trials)
    best = min if record.mode == "min" else max
    return [trial.number for trial in trials], [*accumulate((trial.best_value for trial in trials), best)]


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


def _points(record: StudyRecord, trials: list[TrialRecord], status: str, x: list[Any]) -> Figure:
    hollow = "-open" if status in ("stopped_early", "paused", "interrupted") else ""
    return scatter(
        "markers",
        x,
        [axis_value(record, trial.best_value) for trial in trials],
        name=status.replace("_", " "),
        text=[
            f"{trial_label(trial)}<br>{counted(len(trial.epochs), 'epoch')}<br>"
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


def trial_label(trial: TrialRecord) -> str:
    """What is shown while the pointer is on a trial: its number, its status and its hyperparameters."""
    values = "<br>".join(f"{name} {format_value(value)}" for name, value in trial.hyperparameters.items())
    failure = f"<br>{trial.failure.kind}" if trial.failure and trial.status in FAILED else ""
    return f"<b>trial {trial.number}</b>, {trial.status.replace('_', ' ')}{failure}<br>{values}"
