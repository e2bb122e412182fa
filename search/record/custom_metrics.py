"""What a training function of the user's own measures: metrics whose names only its study knows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from functools import cache


@dataclass(frozen=True, kw_only=True)
class CustomMetrics:
    """What a training function measured in one epoch; `metrics_type` adds a field for each metric."""

    epoch: int
    """Finished epochs, from 1."""
    seconds: float
    """Wall-clock time of the epoch."""
    evaluation_seconds: None = None
    """Only the function knows which part of the time was evaluation."""


@cache
def metrics_type(names: tuple[str, ...]) -> type[CustomMetrics]:
    """`CustomMetrics` with these metrics; one that an epoch did not have is None."""
    metrics = [(name, float | None, None) for name in names]
    return make_dataclass("CustomMetrics", metrics, bases=(CustomMetrics,), frozen=True, kw_only=True)


def names_of(metrics: CustomMetrics) -> Sequence[str]:
    """The metrics of an epoch."""
    own = {field.name for field in fields(CustomMetrics)}
    return [field.name for field in fields(metrics) if field.name not in own]
