"""Colours, layout and axes of all charts."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator
from optuna.distributions import CategoricalDistribution, IntDistribution

from search.record.study_record import StudyRecord
from search.space.distributions import Distribution, OrderedChoice, bounds, is_log, values_of
from training.console.terminal import format_value

Figure = dict[str, Any]
"""A part of a plotly figure; the page sets the colours of text and grid."""
HOVER_TEXT = "%{text}<extra></extra>"
"""Shows only the text of a point while the pointer is on it."""

BEST, BASELINE, COMPLETED, STOPPED, FAILURE = "#e8710a", "#8e5bd0", "#3f7fd0", "#8a9099", "#d23f3f"
STATUS_COLOURS = {
    "completed": COMPLETED,
    "stopped_early": STOPPED,
    "paused": STOPPED,
    "interrupted": "#b08a2e",
    "running": "#2e9e6b",
    "diverged": FAILURE,
    "failed": "#7d1f1f",
}


def scatter(mode: str, x: Sequence[Any], y: Sequence[Any], **style: Any) -> Figure:
    """Build a trace of points, or of the lines between them; `mode` is that of plotly."""
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **style}


def hyperparameter_axis(name: str, distribution: Distribution, *, whole: bool = False) -> Figure:
    """Build the axis of a hyperparameter.

    Args:
        name: The hyperparameter.
        distribution: What is searched.
        whole: Whether the axis shows the whole range, also where there is no trial; not for categories.
    """
    axis: Figure = {"title": name}
    match distribution:
        case _ if not has_scale(distribution):
            names = list(map(str, values_of(distribution) or ()))
            return axis | {"type": "category", "categoryorder": "array", "categoryarray": names}
        case OrderedChoice(values=values):
            axis |= {"tickvals": list(values), "ticktext": list(map(str, values))}
        case _ if is_log(distribution):
            ticks = round_ticks(*bounds(distribution), log=True)  # type: ignore[arg-type]
            axis |= {"tickvals": ticks, "ticktext": list(map(format_value, ticks))}
        case IntDistribution():
            axis["tickvals"] = round_ticks(*bounds(distribution), whole=True)
    axis["type"] = "log" if is_log(distribution) else "linear"
    if whole and not isinstance(distribution, CategoricalDistribution):
        low, high = bounds(distribution)
        if is_log(distribution):
            low, high = math.log10(low), math.log10(high)
        margin = 0.04 * (high - low)
        axis["range"] = [low - margin, high + margin]
    return axis


def round_ticks(low: float, high: float, *, log: bool = False, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, or these two where there is only one.

    Args:
        low: The smallest number on the axis.
        high: The largest one.
        log: Whether the scale is logarithmic; then the ticks are powers of ten.
        whole: Whether there are only whole numbers.
    """
    locator = LogLocator(numticks=6) if log else MaxNLocator(4, steps=[1, 2, 5, 10], integer=whole)
    ticks = dict.fromkeys(float(f"{tick:.12g}") for tick in locator.tick_values(low, high))
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else [low, high]


def has_scale(distribution: Distribution) -> bool:
    """Whether a hyperparameter has an axis of numbers; choices, and ordered values with 0, have one of names."""
    if isinstance(distribution, OrderedChoice):
        return distribution.log
    return not isinstance(distribution, CategoricalDistribution)


def chart(traces: Iterable[Figure], *, x: Figure, y: Figure, height: int = 340) -> Figure:
    """Put traces into the layout that all charts share."""
    layout = {
        "height": height,
        "margin": {"l": 60, "r": 24, "t": 34, "b": 48},
        "xaxis": _set_title(x),
        "yaxis": _set_title(y),
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    return {"data": list(traces), "layout": layout}


def _set_title(axis: Figure) -> Figure:
    title = axis.get("title")
    return axis | ({"title": {"text": title, "standoff": 8}} if title else {})


ACCURACIES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Ticks of an accuracy axis."""


LARGEST_VALUE = 1e307
"""Larger values are drawn here, because an axis from the lowest to the highest number has no finite length."""


def metric_axis(record: StudyRecord, values: Sequence[float]) -> Figure:
    """Build the axis of the metric: an accuracy by its error on an inverted log scale, which is wide near 1."""
    if record.metadata.is_accuracy:
        ticks = {"tickvals": [1 - accuracy for accuracy in ACCURACIES], "ticktext": list(map(str, ACCURACIES))}
        return {"title": record.metric, "type": "log", "autorange": "reversed", **ticks}
    is_wide = len(values) > 0 and min(values) > 0 and max(values) / min(values) > 20
    return {"title": record.metric, **({"type": "log", "dtick": "D2"} if is_wide else {})}


def axis_value(record: StudyRecord, value: float) -> float:
    """Convert a value of the metric to its axis: an accuracy to its error; no error counts as half an image."""
    if not record.metadata.is_accuracy:
        return min(max(-LARGEST_VALUE, value), LARGEST_VALUE)
    return float(max(1 - value, 0.5 / max(1, record.metadata.metric_images)))
