"""The metrics of a training function of the user's own, whose names are known only when it reports."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from functools import cache


@dataclass(frozen=True, kw_only=True)
class CustomMetrics:
    """The metrics of a training function in one epoch; `metrics_type` adds a field for each metric."""

    epoch: int
    """Finished epochs, from 1."""
    seconds: float
    """Wall-clock time of the epoch."""
    evaluation_seconds: None = None
    """Always None: only the training function knows which part of the time was evaluation."""


@cache
def metrics_type(names: tuple[str, ...]) -> type[CustomMetrics]:
    """`CustomMetrics` with a field for each metric; a metric that an epoch does not report is None."""
    metrics = [(name, float | None, None) for name in names]
    return make_dataclass("CustomMetrics", metrics, bases=(CustomMetrics,), frozen=True, kw_only=True)


def metric_names(metrics: CustomMetrics) -> Sequence[str]:
    """The names of the metrics of an epoch."""
    common = {field.name for field in fields(CustomMetrics)}
    return [field.name for field in fields(metrics) if field.name not in common]
