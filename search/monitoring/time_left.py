"""Estimates how long a study still takes, from the trials that it has run."""

import heapq
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from threading import Lock

from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord

RECENT = 100
"""The trials to come are expected to be like this number of trials that ended last."""

DRAWS = 21
"""Number of possible ends, the median of which is the estimate."""
SINGLE = 50
"""Of the trials to come, this number is drawn for each of them."""


@dataclass(frozen=True)
class _Running:
    """A trial that runs."""

    done: int
    """Number of epochs."""
    epoch_seconds: float
    survival: list[float]
    """For each epoch, the chance that it is run after those before it."""

    def draw_rest(self, drawn: random.Random) -> float:
        """Seconds that it may still take; it is in the middle of an epoch."""
        return self.epoch_seconds * (_draw_epochs(self.survival, self.done, drawn) - self.done - 0.5)


class TimeLeft:
    """Estimates the time until a study ends.

    From the recent trials, and those that run, it is estimated how many epochs a trial runs (Kaplan and Meier 1958),
    and so how many more one runs that has come as far as those that run; these take the time of their own epochs, and
    the trials to come that of recent ones. By these chances possible ends are drawn, always the same ones, in which the
    trials are laid end to end for as many workers as there are. What workers do besides, such as waiting for the next
    trial, is measured and lasts on. `benchmarks/README.md` says how good this is.
    """

    def __init__(self, record: StudyRecord) -> None:
        """Begin with a session of a study; its earlier trials count, too."""
        self._record = record
        self._ended: deque[tuple[float, int]] = deque(maxlen=RECENT)
        """The seconds and epochs of the trials that ended last."""
        self._recent: list[tuple[float, int]] = []
        """The same with those that are paused."""
        self._running: dict[int, TrialRecord] = {}
        """The trials that may continue, by number."""
        self._lock = Lock()
        """Several threads of a view ask."""
        self._seen = 0
        self._busy = 0.0
        """Seconds of all trials that have ended."""
        self._look()
        self._before = self._busy + sum(map(_seconds, self._running.values()))
        """Seconds of all trials before this session."""
        self._slower = 1.0
        """How many times as long trials take with what is neither in their epochs nor between them."""

    def seconds(self, elapsed: float, workers: int) -> float | None:
        """Estimate the remaining seconds.

        Args:
            elapsed: Seconds since the trials of this session began.
            workers: How many trials run at the same time.

        Returns:
            The estimate; None before a trial has ended.
        """
        with self._lock:
            return self._seconds(elapsed, workers)

    def _seconds(self, elapsed: float, workers: int) -> float | None:
        self._look()
        record = self._record
        if not self._recent:
            return None
        running = [trial for trial in record.standings.may_continue() if trial.status == "running"]
        seen = [*self._recent, *((_seconds(trial), len(trial.epochs)) for trial in running)]
        epoch_seconds = sum(seconds for seconds, _ in seen) / max(1, sum(epochs for _, epochs in seen))
        if len(running) == workers:
            slowest = max(seconds / max(1, epochs) for seconds, epochs in seen)
            self._slower = self._slowness(elapsed * workers, running, slowest)
        survival = self._survival(running)
        to_come = max(0, record.num_samples - record.standings.num_ended - len(running))
        now = [self._running_now(trial, epoch_seconds, survival) for trial in running][:workers]
        workers_now: list[_Running | None] = [*now, *[None] * (workers - len(now))]
        drawn = random.Random(0)
        return self._slower * median(self._draw_end(workers_now, to_come, survival, drawn) for _ in range(DRAWS))

    def _running_now(self, trial: TrialRecord, epoch_seconds: float, survival: list[float]) -> _Running:
        done = len(trial.epochs)
        if trial.is_baseline and self._record.metadata.settings.full_baseline:
            survival = [1.0] * len(survival)  # it is not stopped
        return _Running(done, _seconds(trial) / done if done else epoch_seconds, survival)

    def _draw_end(
        self, now: Sequence[_Running | None], to_come: int, survival: list[float], drawn: random.Random
    ) -> float:
        """One possible time until the end, in which each trial runs as many epochs as it may, with their chances."""
        free = [0.0 if one is None else one.draw_rest(drawn) for one in now]  # when each worker gets its next trial
        heapq.heapify(free)
        rounds = max(0, to_come - SINGLE) // len(free)  # of more trials, only the sum matters
        taken = []
        for _ in range(to_come - rounds * len(free)):
            seconds, epochs = drawn.choice(self._recent)
            taken.append(seconds / max(1, epochs) * _draw_epochs(survival, 0, drawn))
            heapq.heapreplace(free, free[0] + taken[-1])
        return max(free) + (rounds * fmean(taken) if rounds else 0.0)

    def _slowness(self, worked: float, running: list[TrialRecord], slowest: float) -> float:
        """How many times as long trials take with what is neither in their epochs nor between them.

        Args:
            worked: Seconds since the trials began, of all workers.
            running: As many trials as there are workers.
            slowest: Seconds of the epochs of the slowest trial, which may be those of a trial that has just begun.
        """
        busy = self._busy - self._before + sum(map(_seconds, self._running.values()))
        in_epochs = sum(_seconds(trial) / len(trial.epochs) if trial.epochs else slowest for trial in running)
        return 1 + max(0.0, worked - busy - in_epochs) / busy if busy > 0 else 1.0

    def _survival(self, running: list[TrialRecord]) -> list[float]:
        """For each epoch, which share of the trials that have done all before it runs it.

        A trial that runs says only that it has come so far.
        """
        limit = self._record.epoch_limit or self._record.epochs
        ended = Counter(epochs for _, epochs in self._recent)
        reached = Counter(epochs for _, epochs in self._recent) + Counter(len(trial.epochs) for trial in running)
        at_risk, shares = reached.total(), []
        for epoch in range(limit):
            shares.append(1 - ended[epoch] / at_risk if at_risk else 1.0)
            at_risk -= reached[epoch]
        return shares

    def _look(self) -> None:
        """Note which trials have ended since the last time."""
        trials = self._record.trials
        self._running |= {trial.number: trial for trial in trials[self._seen :]}
        self._seen = len(trials)
        for trial in [trial for trial in self._running.values() if not trial.may_continue]:
            del self._running[trial.number]
            self._busy += _seconds(trial)
            self._ended.append((_seconds(trial), len(trial.epochs)))
        paused = [trial for trial in self._running.values() if trial.status == "paused"]
        recent = [*self._ended, *((_seconds(trial), len(trial.epochs)) for trial in paused)]
        self._recent = [(seconds, epochs) for seconds, epochs in recent if seconds > 0][-RECENT:]


def _seconds(trial: TrialRecord) -> float:
    """The seconds that a trial took, also between its epochs."""
    return (trial.seconds or 0.0) + sum(timing.waiting_seconds for timing in trial.timings.values())


def _draw_epochs(survival: list[float], done: int, drawn: random.Random) -> int:
    """How many epochs a trial will have run that has done some and runs the next one."""
    epochs = done + 1
    while epochs < len(survival) and drawn.random() < survival[epochs]:
        epochs += 1
    return epochs
