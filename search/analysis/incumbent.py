"""The best value that studies had found, over what they had cost by then: trials, epochs and seconds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.analysis.groups import Group
from search.analysis.time_accounting import session_offsets
from search.record.ranking import ended_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord

Cost = Literal["trials", "epochs", "seconds"]


@dataclass(frozen=True)
class Trajectory:
    """Best value so far of one study; each holds up to the next place, the last one up to the end."""

    places: NDArray[np.float64]
    values: NDArray[np.float64]
    end: float

    def at(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values that held at these places, none of them before the first."""
        return self.values[np.searchsorted(self.places, places, side="right") - 1]


@dataclass(frozen=True)
class IncumbentRange:
    """Mean and extremes of the trajectories of an group, where all its studies have a value."""

    places: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class _Epoch:
    value: float | None
    """None if what the trial measured does not stand."""
    reported: float
    """In seconds since the study was started."""
    seconds: float
    """How long it took."""


def have_clocks(groups: Iterable[Group]) -> bool:
    """Whether all studies tell when their epochs were reported; old ones tell only how long each took."""
    return all(
        record.metadata.sessions and (trial.timings or not trial.epochs)
        for group in groups
        for record in group.records
        for trial in record.trials
    )


def incumbent_range(group: Group, cost: Cost, *, clocks: bool = True) -> IncumbentRange | None:
    """The best value so far of an group.

    Args:
        group: Its studies.
        cost: What it is told over.
        clocks: Whether seconds are those of the wall clock, else those of all epochs one after the other.

    Returns:
        None if the studies of the group have no place in common.
    """
    trajectories = [trajectory for record in group.records if (trajectory := _trajectory(record, cost, clocks=clocks))]
    if len(trajectories) < len(group.records):
        return None
    begin, end = (
        max(trajectory.places[0] for trajectory in trajectories),
        min(trajectory.end for trajectory in trajectories),
    )
    if begin > end:
        return None
    changes = np.unique(np.concatenate([*(trajectory.places for trajectory in trajectories), [begin, end]]))
    places = changes[(changes >= begin) & (changes <= end)]
    values = np.array([trajectory.at(places) for trajectory in trajectories])
    return IncumbentRange(places.tolist(), values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist())


def _trajectory(record: StudyRecord, cost: Cost, *, clocks: bool) -> Trajectory | None:
    """None for a study that measured nothing that stands."""
    epochs = _epochs(record)
    match cost:
        case "trials":
            ended = sorted(ended_trials(record.trials), key=_last_report)
            values = [trial.best_value if trial.is_valid else None for trial in ended]
            steps = [(float(place), value) for place, value in enumerate(values, start=1)]
        case "epochs":
            steps = [(float(place), epoch.value) for place, epoch in enumerate(epochs, start=1)]
        case "seconds" if clocks:
            steps = [(epoch.reported, epoch.value) for epoch in epochs]
        case "seconds":
            in_turn = accumulate(epoch.seconds for epoch in epochs)
            steps = [(place, epoch.value) for place, epoch in zip(in_turn, epochs, strict=True)]
    return _accumulated(record, steps)


def _last_report(trial: TrialRecord) -> tuple[int, float]:
    """Sorts trials by their ends; those without clocks stay in the order of their proposal."""
    return max(((timing.session, timing.reported) for timing in trial.timings.values()), default=(0, 0.0))


def _epochs(record: StudyRecord) -> list[_Epoch]:
    """All epochs in the order of their reports, or trial after trial where that is not known."""
    offsets = session_offsets(record)
    found = []
    for trial in record.trials:
        reported = 0.0
        for metrics in trial.epochs:
            timing = trial.timings.get(metrics.epoch)
            if timing and timing.session < len(offsets):
                reported = offsets[timing.session] + timing.reported
            else:
                reported += metrics.seconds
            value = record.objective.value(metrics) if trial.is_valid else None
            found.append(_Epoch(value, reported, metrics.seconds))
    if any(trial.timings for trial in record.trials):
        found.sort(key=lambda epoch: epoch.reported)
    return found


def _accumulated(record: StudyRecord, steps: Sequence[tuple[float, float | None]]) -> Trajectory | None:
    places: list[float] = []
    values: list[float] = []
    for place, value in steps:
        if value is not None and (not values or (value < values[-1] if record.mode == "min" else value > values[-1])):
            places.append(place)
            values.append(value)
    return Trajectory(np.array(places), np.array(values), steps[-1][0]) if places else None
