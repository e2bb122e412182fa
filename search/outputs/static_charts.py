"""Draws charts as PNG files for other documents: learning curves, optimisation history, importance."""

import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from search.analysis.equal_budget import EqualBudget
from search.analysis.gain import baseline_name
from search.analysis.importance import EVALUATOR, Importance
from search.outputs.chart_layout import ACCURACIES, BASELINE, BEST, COMPLETED, STATUS_COLOURS, axis_value
from search.outputs.trial_charts import best_name, incumbent_values
from search.record.ranking import baseline_trial, best_trial, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord
from training.metrics import CONFIDENCE

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # matplotlib would report on its cache of fonts

SIZE_INCHES = (7.2, 4.0)
DOTS_PER_INCH = 150


def learning_curves(record: StudyRecord) -> bytes:
    """Draw the metric of each trial after each epoch."""
    figure, axes = _axes(f"{record.folder.name}: learning curves", "epoch", record.metric)
    _metric_scale(axes, record)
    best, baseline = best_trial(record.trials), baseline_trial(record.trials)
    for trial in record.trials:
        if trial.best_epoch and trial is not best and trial is not baseline:
            _curve(axes, record, trial, STATUS_COLOURS[trial.status], linewidth=1, alpha=0.7)
    if baseline and baseline.best_epoch and baseline is not best:
        _curve(axes, record, baseline, BASELINE, linewidth=2, linestyle="--", label=baseline_name(record.metadata))
    if best:
        _curve(axes, record, best, BEST, linewidth=2.5, label=best_name(record, best))
    drawn = [trial for trial in record.trials if trial.best_epoch and trial not in (best, baseline)]
    statuses = dict.fromkeys(trial.status for trial in drawn)
    others = [Line2D([], [], color=STATUS_COLOURS[status], label=status.replace("_", " ")) for status in statuses]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, [*axes.get_legend_handles_labels()[0], *others])
    return _png(figure)


def optimisation_history(record: StudyRecord) -> bytes:
    """Draw the best value of each trial in order of proposal, and the incumbent."""
    figure, axes = _axes(f"{record.folder.name}: optimisation history", "trial", record.metric)
    _metric_scale(axes, record)
    measured = valid_trials(record.trials)
    values = {trial.number: trial.best_value for trial in measured}
    for status in dict.fromkeys(trial.status for trial in measured):
        numbers = [trial.number for trial in measured if trial.status == status]
        face = "none" if status in ("stopped_early", "paused", "interrupted") else STATUS_COLOURS[status]
        heights = [axis_value(record, values[number]) for number in numbers]
        name = status.replace("_", " ")
        axes.scatter(numbers, heights, s=36, facecolors=face, edgecolors=STATUS_COLOURS[status], label=name, zorder=3)
    worst = max(values.values(), default=0.0) if record.mode == "min" else min(values.values(), default=0.0)
    for status in FAILED if values else ():
        if failed := [trial.number for trial in record.trials if trial.status == status]:
            heights = [axis_value(record, worst)] * len(failed)
            axes.scatter(failed, heights, marker="x", color=STATUS_COLOURS[status], label=status)
    numbers, incumbents = incumbent_values(record)
    heights = [axis_value(record, value) for value in incumbents]
    axes.step(numbers, heights, where="post", color=BEST, linewidth=2, label="best so far")
    baseline = baseline_trial(record.trials)
    if baseline and baseline.number in values:
        height = axis_value(record, values[baseline.number])
        axes.axhline(height, color=BASELINE, linestyle="--", label=baseline_name(record.metadata))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, axes.get_legend_handles_labels()[0])
    return _png(figure)


def importance_bars(record: StudyRecord, compared: EqualBudget, importances: Sequence[Importance]) -> bytes:
    """Draw the importance of each hyperparameter with its interval."""
    title = f"{record.folder.name}: importance for {record.metric}\n{compared.phrase}"
    figure, axes = _axes(title, f"importance, {CONFIDENCE} % interval\n{EVALUATOR}", "")
    upwards = list(reversed(importances))
    shares = np.array([importance.share for importance in upwards])
    errors = [
        [max(0.0, importance.share - importance.low) for importance in upwards],
        [max(0.0, importance.high - importance.share) for importance in upwards],
    ]
    names = [importance.name for importance in upwards]
    axes.barh(names, shares, xerr=errors, color=COMPLETED, height=0.55, capsize=3)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    return _png(figure)


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left", parse_math=False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dfe3e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put the legend below the axes, where it hides no curve."""
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def _curve(axes: Axes, record: StudyRecord, trial: TrialRecord, colour: str, **style: Any) -> None:
    curve = trial.curve
    heights = [axis_value(record, value) for value in curve.values()]
    marker = "o" if len(curve) == 1 else None
    axes.plot([*curve], heights, color=colour, marker=marker, ms=3, **style)


def _metric_scale(axes: Axes, record: StudyRecord) -> None:
    """Scale the y axis for the values of `axis_value`: an accuracy by its error on an inverted log scale."""
    if record.metadata.is_accuracy:
        axes.set_yscale("log")
        axes.yaxis.set_inverted(True)
        axes.yaxis.set_major_locator(FixedLocator([1 - accuracy for accuracy in ACCURACIES]))
        axes.yaxis.set_major_formatter(lambda error, _: f"{1 - error:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # a name may have letters that no font has
        figure.savefig(stream, format="png")
    return stream.getvalue()
