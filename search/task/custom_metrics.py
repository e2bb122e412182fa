"""The metrics of a training function of the user's own, whose names are known only when it reports."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomMetrics:
    """The metrics of a training function in one epoch; those of the function are kept apart from ours."""

    epoch: int
    """Finished epochs, from 1."""
    seconds: float | None
    """Wall-clock time of the epoch; None where nobody knows it, in a study that was imported."""
    evaluation_seconds: None = None
    """Always None: only the training function knows which part of the time was evaluation."""
    values: dict[str, float | None]
    """The metrics of the function by name; None for one that is not finite."""


def metric_value(metrics: object, name: str) -> float | None:
    """A metric in an epoch of any study; None if the epoch has not measured it."""
    return metrics.values.get(name) if isinstance(metrics, CustomMetrics) else getattr(metrics, name)
