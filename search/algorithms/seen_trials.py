"""What a sampler sees of the trials of a study: of many, the best ones and the most recent ones."""

import copy
import math
from bisect import insort
from collections.abc import Iterator
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.record.reading import is_paused
from search.space.distributions import HyperparameterValue, to_unit
from search.space.encoding import SpaceEncoding
from search.space.search_space import Point, SearchSpace, contains

MOST_SEEN = 300
"""A sampler sees all trials that have ended up to this number, and of more at most as many: the best and the newest."""
BEST_SEEN = 50
"""How many of them are the best ones. TPE takes 25 trials as good ones at most: the same ones as if it saw all."""
Key = tuple[HyperparameterValue | None, ...]
"""The values of a point in the order of the space."""


class SeenTrials:
    """Follows the trials of a study from proposal to proposal; a trial that has ended is looked at once.

    So a proposal takes the same time whatever the number of trials. `benchmarks/README.md` says what TPE loses by it:
    nothing that could be measured.
    """

    def __init__(self, space: SearchSpace, encoding: SpaceEncoding) -> None:
        self._space = space
        self._encoding = encoding if encoding.is_needed else None
        self._trials: list[FrozenTrial] = []
        self._open: dict[int, None] = {}
        """Numbers of the trials that run, wait or are paused."""
        self._paused: set[int] = set()
        self._num_read = self._num_ended = 0
        self._best: list[tuple[int, int, float, int]] = []
        """The ranks of the best trials that have ended; the last part is the number."""
        self._recent: list[int] = []
        """Numbers of the most recent trials that have ended."""
        self._views: dict[int, FrozenTrial] = {}
        """How the trials look that a sampler saw last, by number."""
        self._proposed: set[Key] = set()
        self._proposed_by_open: set[Key] = set()
        """The points of the trials that have ended, and of those that may continue."""
        self._points = _Points(space)

    def follow(self, study: Study) -> list[FrozenTrial]:
        """Look at what has changed in a study, which is the same each time.

        Returns:
            The trials of the study itself that have ended since the last call, or were paused.
        """
        self._trials = study.get_trials(deepcopy=False)
        self._open |= dict.fromkeys(range(self._num_read, len(self._trials)))
        self._num_read = len(self._trials)
        ended = [number for number in self._open if self._trials[number].state.is_finished()]
        for number in ended:
            del self._open[number]
            self._add_ended(self._trials[number], study.direction)
        paused = {number for number in self._open if is_paused(self._trials[number])}
        new = [*ended, *sorted(paused - self._paused)]
        self._paused = paused
        self._proposed_by_open = {self.key(trial.params) for trial in self._inside_open() if _is_own(trial)}
        return [self._trials[number] for number in new if _is_own(self._trials[number])]

    def shown(self, direction: StudyDirection) -> list[FrozenTrial]:
        """The trials that a sampler sees, as it sees them, in the order of their numbers.

        Those that failed, and those that are paused, look as if they were pruned.
        """
        paused = {number for number in self._open if is_paused(self._trials[number])}
        chosen = {*self._recent, *paused}
        if self._num_ended + len(paused) > MOST_SEEN:
            ranks = sorted([*self._best, *(_rank(self._trials[number], direction) for number in paused)])
            newest = sorted(chosen)[BEST_SEEN - MOST_SEEN :]
            chosen = {*newest, *(rank[-1] for rank in ranks[:BEST_SEEN])}
        ended = chosen - paused
        self._views = {number: self._views.get(number) or self._view(self._trials[number]) for number in ended}
        may_continue = {
            number: self._view(self._trials[number]) for number in self._open if number not in paused - chosen
        }
        return [view for _, view in sorted((self._views | may_continue).items())]

    def is_proposed(self, point: Point) -> bool:
        """Whether a point was proposed in this study."""
        key = self.key(point)
        return key in self._proposed or key in self._proposed_by_open

    def key(self, point: Point) -> Key:
        """The values of a point."""
        return tuple(point.get(name) for name in self._space)

    def nearest_failed(self, point: Point) -> bool:
        """Whether the nearest of the trials that have ended, or are paused, failed."""
        if not self._points.any_failed:
            return False
        paused = [trial for trial in self._inside_open() if is_paused(trial)]
        return self._points.nearest_failed(point, paused)

    def _inside_open(self) -> Iterator[FrozenTrial]:
        """The trials that have not ended and whose points are in the space."""
        trials = (self._trials[number] for number in self._open)
        return (trial for trial in trials if contains(self._space, trial.params))

    def _add_ended(self, trial: FrozenTrial, direction: StudyDirection) -> None:
        self._num_ended += 1
        insort(self._recent, trial.number)
        del self._recent[:-MOST_SEEN]
        insort(self._best, _rank(trial, direction))
        del self._best[BEST_SEEN:]
        if contains(self._space, trial.params):
            self._points.add(trial)
            if _is_own(trial):
                self._proposed.add(self.key(trial.params))

    def _view(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial as a sampler sees it."""
        trial = as_pruned(trial)
        if not self._encoding or not trial.params:
            return trial
        params = self._encoding.encode(trial.params, trial.number)
        return changed(trial, params=params, distributions=self._encoding.optuna_distributions)


class _Points:
    """The points of the trials that have ended, as coordinates by which the nearest one is found."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._rows = np.empty((0, len(space)))
        """The coordinates of each point; nan for an inactive hyperparameter. There is room for more of them."""
        self._trials: list[tuple[int, bool]] = []
        """The number of each trial, and whether it failed."""
        self.any_failed = False

    def add(self, trial: FrozenTrial) -> None:
        """Add a trial whose point is in the space."""
        if len(self._trials) == len(self._rows):
            more = np.empty((max(64, len(self._rows)), len(self._space)))
            self._rows = np.concatenate([self._rows, more])
        self._rows[len(self._trials)] = self._coordinates(trial.params)
        self._trials.append((trial.number, trial.state == TrialState.FAIL))
        self.any_failed |= trial.state == TrialState.FAIL

    def nearest_failed(self, point: Point, others: list[FrozenTrial]) -> bool:
        """Whether the nearest trial failed, also among others, which did not; the first one of those equally near."""
        numbers = np.array([number for number, _ in self._trials] + [trial.number for trial in others])
        rows = self._rows[: len(self._trials)]
        if others:
            rows = np.concatenate([rows, [self._coordinates(trial.params) for trial in others]])
        squares = np.zeros(len(rows))
        for column, (name, coordinate) in enumerate(zip(self._space, self._coordinates(point), strict=True)):
            difference = rows[:, column] - coordinate
            if isinstance(self._space[name], CategoricalDistribution):
                difference = (difference != 0).astype(float)
            is_inactive = np.isnan(rows[:, column])
            difference[is_inactive != math.isnan(coordinate)] = 1.0
            difference[is_inactive & math.isnan(coordinate)] = 0.0
            squares += difference**2
        nearest = np.flatnonzero(squares == squares.min())
        first = int(nearest[numbers[nearest].argmin()])
        return first < len(self._trials) and self._trials[first][1]

    def _coordinates(self, point: Point) -> list[float]:
        return [to_unit(self._space[name], point[name]) if name in point else math.nan for name in self._space]


def as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """A paused trial, or one that failed, as if it were pruned; others as they are."""
    if is_paused(trial):
        return changed(trial, state=TrialState.PRUNED)
    if trial.state == TrialState.FAIL and trial.params:
        return changed(trial, state=TrialState.PRUNED, intermediate_values={})
    return trial


def changed(trial: FrozenTrial, **attributes: Any) -> FrozenTrial:
    """A copy of a trial with other attributes."""
    copied = copy.copy(trial)
    for name, value in attributes.items():
        setattr(copied, name, value)
    return copied


def _is_own(trial: FrozenTrial) -> bool:
    """Whether a trial belongs to the study itself, and not to the one with which it began."""
    return "warm_start" not in trial.user_attrs


def _rank(trial: FrozenTrial, direction: StudyDirection) -> tuple[int, int, float, int]:
    """The rank of a trial that has ended, or is paused, as TPE ranks them: first the completed, then by epochs."""
    sign = 1 if direction == StudyDirection.MINIMIZE else -1
    if trial.state == TrialState.COMPLETE:
        return 0, 0, sign * float(trial.value or 0.0), trial.number
    if trial.state == TrialState.FAIL or not trial.intermediate_values:
        return 2, 0, 0.0, trial.number
    epoch, value = max(trial.intermediate_values.items())
    return 1, -epoch, math.inf if math.isnan(value) else sign * value, trial.number
