"""The incumbent: the best value so far of studies, over their trials, epochs or seconds."""

from dataclasses import dataclass
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
    """The incumbent of one study; each value holds up to the next cost, the last one up to the end."""

    costs: NDArray[np.float64]
    values: NDArray[np.float64]
    end: float

    def values_at(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """The incumbent at each cost; no cost may lie before the first one of the trajectory."""
        return self.values[np.searchsorted(self.costs, costs, side="right") - 1]


@dataclass(frozen=True)
class IncumbentRange:
    """Mean and extremes of the trajectories of a group, over the costs where all its studies have a value."""

    costs: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def incumbent_range(group: Group, cost: Cost) -> IncumbentRange | None:
    """The incumbent of a group over a cost; None if there is no cost at which all its studies have a value."""
    trajectories = [trajectory for record in group.records if (trajectory := _trajectory(record, cost))]
    if len(trajectories) < len(group.records):
        return None
    begin = max(trajectory.costs[0] for trajectory in trajectories)
    end = min(trajectory.end for trajectory in trajectories)
    if begin > end:
        return None
    changes = np.unique(np.concatenate([*(trajectory.costs for trajectory in trajectories), [begin, end]]))
    costs = changes[(changes >= begin) & (changes <= end)]
    values = np.array([trajectory.values_at(costs) for trajectory in trajectories])
    return IncumbentRange(costs.tolist(), values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist())


def _trajectory(record: StudyRecord, cost: Cost) -> Trajectory | None:
    """The trajectory of a study; None without a valid trial, or without a clock."""
    if cost == "seconds" and record.metadata.origin:
        return None
    if cost == "trials":
        ended = sorted(ended_trials(record.trials), key=_last_report)
        steps = [(float(number), trial.best_value if trial.is_valid else None) for number, trial in enumerate(ended, 1)]
    else:
        steps = _epoch_values(record)
        if cost == "epochs":
            steps = [(float(number), value) for number, (_, value) in enumerate(steps, 1)]
    costs: list[float] = []
    values: list[float] = []
    for at_cost, value in steps:
        if value is not None and (not values or (value < values[-1] if record.mode == "min" else value > values[-1])):
            costs.append(at_cost)
            values.append(value)
    return Trajectory(np.array(costs), np.array(values), steps[-1][0]) if costs else None


def _last_report(trial: TrialRecord) -> tuple[int, float]:
    return max(((timing.session, timing.reported) for timing in trial.timings.values()), default=(0, 0.0))


def _epoch_values(record: StudyRecord) -> list[tuple[float, float | None]]:
    """For each epoch, in order of time, its report in seconds since the study began and its value if that is valid."""
    offsets = session_offsets(record)
    values: list[tuple[float, float | None]] = []
    for trial in record.trials:
        reported = 0.0
        for metrics in trial.epochs:
            timing = trial.timings.get(metrics.epoch)
            elapsed = metrics.seconds or 0.0  # unknown only where no one asks for seconds
            reported = offsets[timing.session] + timing.reported if timing else reported + elapsed
            is_valid = trial.is_valid and record.objective.measured([metrics])
            values.append((reported, record.objective.value(metrics) if is_valid else None))
    return sorted(values, key=lambda pair: pair[0])
