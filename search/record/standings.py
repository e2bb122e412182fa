"""Counts the trials of a study and knows the best ones, without looking at all of them again each time."""

from collections import Counter
from collections.abc import Iterable
from threading import Lock

from search.record.ranking import best_trial, epochs_run, epochs_saved, leading_trial
from search.record.trial import Status, TrialRecord


class Standings:
    """What is asked of the trials of a study again and again while it runs, at the same cost whatever their number.

    A trial that has ended does not change, so it is counted once. Only the trials that may continue are looked at for
    each answer: those that run, and those that wait or are paused.
    """

    def __init__(self, trials: list[TrialRecord]) -> None:
        """Answer about the trials in this list, to which others will be added."""
        self._trials = trials
        self._seen = 0
        """Number of trials in the list that were seen, which are in `_open` or counted."""
        self._open: dict[int, TrialRecord] = {}
        """The trials that may continue, by number."""
        self._counts = Counter[Status]()
        self._epochs = 0
        self._epochs_of_stopped = 0
        self._best: TrialRecord | None = None
        self._any_ended_by_itself = False
        self._longest = self._longest_by_itself = 0
        self._lock = Lock()
        """A view asks from its own thread."""

    @property
    def counts(self) -> Counter[Status]:
        """Number of trials with each status."""
        open_counts = Counter(trial.status for trial in self._open_trials())
        return self._counts + open_counts

    @property
    def num_ended(self) -> int:
        """Number of trials that have ended or are paused."""
        paused = sum(trial.has_ended for trial in self._open_trials())
        return self._counts.total() + paused

    @property
    def num_trials(self) -> int:
        """Number of all trials."""
        return len(self._trials)

    @property
    def epochs_run(self) -> int:
        """Number of epochs that all trials ran."""
        return epochs_run(self._open_trials()) + self._epochs

    def epochs_saved(self, epochs: int | None) -> int:
        """Number of epochs that trials did not run because they were stopped early, as `ranking.epochs_saved` says."""
        open_trials = self._open_trials()
        if epochs is None or self.any_ended_by_itself:
            return 0
        return epochs_saved(open_trials, epochs) + epochs * self._counts["stopped_early"] - self._epochs_of_stopped

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that is not running and whose metrics are valid."""
        return best_trial(self._candidates())

    @property
    def best_ended(self) -> TrialRecord | None:
        """The best trial that has ended, or is paused, and whose metrics are valid."""
        return best_trial(trial for trial in self._candidates() if trial.has_ended)

    @property
    def leader(self) -> TrialRecord | None:
        """The best trial whose metrics are valid, which may still run."""
        return leading_trial(self._candidates())

    @property
    def any_ended_by_itself(self) -> bool:
        """Whether a training has returned before the last epoch of the study."""
        return any(trial.ended_by_itself for trial in self._open_trials()) or self._any_ended_by_itself

    @property
    def longest(self) -> int:
        """Number of epochs of the longest trial."""
        return max([len(trial.epochs) for trial in self._open_trials()] + [self._longest])

    @property
    def longest_by_itself(self) -> int:
        """Number of epochs of the longest trial that has ended by itself; 0 if there is none."""
        by_itself = [len(trial.epochs) for trial in self._open_trials() if trial.ended_by_itself]
        return max([*by_itself, self._longest_by_itself])

    def may_continue(self) -> list[TrialRecord]:
        """The trials that may continue, in the order of their numbers."""
        return sorted(self._open_trials(), key=lambda trial: trial.number)

    def open_trial(self, number: int) -> TrialRecord | None:
        """The trial with this number if it may continue."""
        self._open_trials()
        return self._open.get(number)

    def _candidates(self) -> list[TrialRecord]:
        """The trials among which the best one is."""
        open_trials = self._open_trials()
        return [*open_trials, self._best] if self._best else open_trials

    def _open_trials(self) -> list[TrialRecord]:
        """The trials that may continue, after those that have ended meanwhile are counted."""
        with self._lock:
            new = self._trials[self._seen :]
            self._seen += len(new)
            self._open |= {trial.number: trial for trial in new}
            for trial in [trial for trial in self._open.values() if not trial.may_continue]:
                del self._open[trial.number]
                self._count(trial)
            return list(self._open.values())

    def _count(self, ended: TrialRecord) -> None:
        self._counts[ended.status] += 1
        self._epochs += len(ended.epochs)
        self._epochs_of_stopped += len(ended.epochs) if ended.status == "stopped_early" else 0
        self._best = best_trial([ended, *_one(self._best)])
        self._any_ended_by_itself |= ended.ended_by_itself
        self._longest = max(self._longest, len(ended.epochs))
        if ended.ended_by_itself:
            self._longest_by_itself = max(self._longest_by_itself, len(ended.epochs))


def _one(trial: TrialRecord | None) -> Iterable[TrialRecord]:
    return [] if trial is None else [trial]
