"""Successive halving that pauses weak trials, and lets the best of them continue when there is room."""

import itertools
import math
from collections.abc import Sequence

from search.record.ranking import leading_trial
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings


class Promotion:
    """Which trials continue after a rung: the first epochs of a trial, after which it is compared with the others.

    Asynchronous successive halving in its promoting form: Li et al. 2020, "A System for Massively Parallel
    Hyperparameter Tuning", algorithm 2. With reduction factor 3 there are rungs after 1, 3, 9, ... epochs. A trial is
    paused at a rung, and continues from there as soon as it is among the best third of all trials that came as far.
    So a weak trial costs one epoch, and a trial that reported too early for a fair comparison is not lost.

    Everything follows from the trials of the record, so nothing is to be restored when a study is resumed.
    """

    def __init__(self, settings: StudySettings) -> None:
        self._num_samples = settings.num_samples
        self._limit = settings.epochs or math.inf
        self._grace_period = settings.grace_period
        self._reduction_factor = settings.reduction_factor

    def continues(self, trial: TrialRecord, epoch: int, value: float, trials: Sequence[TrialRecord]) -> bool:
        """Whether a running trial continues after an epoch that the record does not have yet.

        Args:
            trial: The trial.
            epoch: The number of epochs that it has run.
            value: The objective's metric in this epoch.
            trials: All trials of the study.
        """
        if epoch not in self._rungs(epoch + 1):
            return True
        costs = {other.number: _cost(other, epoch) for other in trials if other is not trial}
        costs[trial.number] = -value if trial.objective.mode == "max" else value
        return trial.number in self._best(costs)

    def promote(self, record: StudyRecord, *, all_begun: bool) -> bool:
        """Queue the next paused trial that continues, if there is one, and no other trial waits.

        When all trials of the study have begun, the best one continues to its end, even if it is one of too few at
        its rung.

        Returns:
            Whether a trial was queued.
        """
        if record.standings.counts["interrupted"]:
            return False
        promoted = self._next_promoted(record.trials, all_begun=all_begun)
        if promoted:
            record.promote(promoted)
        return promoted is not None

    def _next_promoted(self, trials: list[TrialRecord], *, all_begun: bool) -> TrialRecord | None:
        paused = {trial.number: trial for trial in trials if trial.status == "paused"}
        rungs = sorted({len(trial.epochs) for trial in paused.values()}, reverse=True)
        for rung in rungs:
            for number in self._best({trial.number: _cost(trial, rung) for trial in trials}):
                if number in paused and len(paused[number].epochs) == rung:
                    return paused[number]
        best = leading_trial(trials)
        return best if all_begun and best and best.status == "paused" else None

    def without_chance(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The paused trials that are never promoted, whatever the trials that have not begun yet will report."""
        most, best = self._num_samples // self._reduction_factor, leading_trial(trials)
        without = []
        for trial in trials:
            if trial.status == "paused" and trial is not best:
                rung = len(trial.epochs)
                better = sum(_cost(other, rung) < _cost(trial, rung) for other in trials)
                if better >= most:
                    without.append(trial)
        return without

    def _rungs(self, epochs: int) -> list[int]:
        """The rungs below a number of epochs."""
        rungs = (self._grace_period * self._reduction_factor**number for number in itertools.count())
        return list(itertools.takewhile(lambda rung: rung < min(epochs, self._limit), rungs))

    def _best(self, costs: dict[int, float]) -> list[int]:
        """The numbers of the trials that continue after a rung, the best first."""
        reached = {number: cost for number, cost in costs.items() if cost < math.inf}
        return sorted(reached, key=reached.__getitem__)[: len(reached) // self._reduction_factor]


def _cost(trial: TrialRecord, rung: int) -> float:
    """The objective at a rung, negated if it is maximised; infinity if the trial has not reached it or has failed.

    A trial that ended by itself before the rung counts with its best epoch.
    """
    if trial.failure:
        return math.inf
    measured = trial.objective.measured(trial.epochs[rung - 1 : rung])
    if not measured and trial.ended_by_itself and trial.best_epoch:
        measured = [trial.best_epoch]
    return trial.objective.minimized(measured[0]) if measured else math.inf
