"""Time accounting: how the cores of a study spent their time from the command to the end."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise

from search.record.provenance import Session, WidthChange
from search.record.study_record import StudyRecord
from search.record.trial import Timing, TrialRecord

PART_NAMES = {
    "training": "training",
    "evaluation": "evaluation",
    "start_up": "start-up",
    "ray_and_sampler": "Ray and sampler",
    "lost": "lost",
    "paused": "paused",
    "idle": "idle",
}
"""The names of the parts of the time in the summary and the report."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The seconds of a worker before one report of an epoch or of a failure."""

    trial: TrialRecord
    timing: Timing
    training: float = 0.0
    evaluation: float = 0.0
    lost: float = 0.0
    may_be_paused: bool = False
    """Whether the trial may go on in another worker although none has died: after a rung, or where fewer ran."""

    @property
    def began(self) -> float:
        """Seconds from the beginning of the session to that of the interval."""
        return self.timing.reported - self.training - self.evaluation - self.lost - self.timing.waiting_seconds

    @property
    def ends_its_trial(self) -> bool:
        """Whether the trial ended with this report, or was paused after it."""
        if self.may_be_paused and self.trial.worker_failures == 0 and self._next_is_elsewhere:
            return True
        has_last_report = self.trial.status in ("completed", "stopped_early", "paused") or self.lost > 0
        return has_last_report and self.timing is self.trial.timings[max(self.trial.timings)]

    @property
    def _next_is_elsewhere(self) -> bool:
        """Whether another worker of the same session runs the next epoch of the trial."""
        timings = [timing for timing in self.trial.timings.values() if timing.session == self.timing.session]
        later = [timing for timing in timings if timing.reported > self.timing.reported]
        following = min(later, key=lambda timing: timing.reported, default=self.timing)
        return (following.node, following.pid) != (self.timing.node, self.timing.pid)


@dataclass(frozen=True)
class WorkerTrial:
    """A trial, or the part of a trial that a worker ran without another trial in between; in seconds."""

    worker: str
    trial: TrialRecord
    began: float
    """Seconds since the study began, without the time between two sessions."""
    ended: float


def time_accounting(record: StudyRecord) -> dict[str, float]:
    """The time of the cores: the whole, which is cores x wall clock of all sessions of the study, and its parts.

    Each part is measured by itself. The clocks of the workers measure `training`, `evaluation`, the work of `lost`
    epochs, and the waiting time within a trial; the clock of the driver measures the time before the first trial of a
    worker, between two trials and after the last one. So the sum shows whether a part is missing or counted twice.
    Where a user has asked for a pause, or for fewer trials at a time, the time of workers that did nothing is `paused`.
    In a cluster that grows, the cores of its largest size count from the beginning, and are `idle` until they come.

    Returns:
        Core seconds of `whole` and of each of `PART_NAMES`.
    """
    intervals = _intervals(record)
    parts = dict.fromkeys(("whole", *PART_NAMES), 0.0)
    for number, session in enumerate(record.metadata.sessions):
        changes = [change for change in record.metadata.widths if change.session == number]
        for part, core_seconds in _session_parts(session, intervals[number], changes):
            parts[part] += core_seconds
    return {part: round(core_seconds, 6) for part, core_seconds in parts.items()}


def worker_trials(record: StudyRecord) -> list[WorkerTrial]:
    """The trials of each worker; the worker that began first comes first."""
    intervals = _intervals(record)
    *offsets, _ = session_offsets(record)
    trials = []
    for session, offset in enumerate(offsets):
        for number, worker in enumerate(_group_by_worker(intervals[session]), start=1):
            name = f"worker {number}" if len(offsets) == 1 else f"session {session + 1}, worker {number}"
            for _, trial_intervals in groupby(worker, key=lambda interval: interval.trial.number):
                first, *_, last = [*trial_intervals] * 2
                trials.append(WorkerTrial(name, last.trial, offset + first.began, offset + last.timing.reported))
    return trials


def wall_seconds(record: StudyRecord) -> float:
    """Wall clock of all sessions; a session that was killed ends with its last report."""
    return round(session_offsets(record)[-1], 1)


def session_offsets(record: StudyRecord) -> list[float]:
    """Begin of each session and end of the last one, in seconds without the time between two sessions."""
    intervals = _intervals(record)
    walls = [_wall(session, intervals[number]) for number, session in enumerate(record.metadata.sessions)]
    return [0.0, *accumulate(walls)]


def _intervals(record: StudyRecord) -> dict[int, list[Interval]]:
    """The intervals of all workers by session of the study, in the order of their reports."""
    intervals: dict[int, list[Interval]] = defaultdict(list)
    pauses = record.metadata.settings.scheduler == "promotion" or bool(record.metadata.widths)
    for trial in record.trials:
        for metrics in trial.epochs:
            if timing := trial.timings.get(metrics.epoch):
                evaluation = metrics.evaluation_seconds or 0.0
                training = metrics.seconds - evaluation
                intervals[timing.session].append(Interval(trial, timing, training, evaluation, may_be_paused=pauses))
        if trial.failure and (timing := trial.timings.get(len(trial.epochs) + 1)):
            intervals[timing.session].append(Interval(trial, timing, lost=trial.failure.seconds))
    for session_intervals in intervals.values():
        session_intervals.sort(key=lambda interval: interval.timing.reported)
    return intervals


def _wall(session: Session, intervals: list[Interval]) -> float:
    last_report = intervals[-1].timing.reported if intervals else 0.0
    return last_report if session.seconds is None else session.seconds


def _session_parts(
    session: Session, intervals: list[Interval], changes: list[WidthChange]
) -> Iterator[tuple[str, float]]:
    """The parts of a session and their core seconds; a part may come several times."""
    wall, cores_each = _wall(session, intervals), session.cpus_per_trial
    cpus = max([session.cpus, *(change.cpus for change in changes)])
    concurrent = max([session.max_concurrent_trials, *(change.max_concurrent_trials for change in changes)])
    narrow = [*_narrow_spans(session, changes, concurrent, wall)]
    yield "whole", cpus * wall
    yield "idle", (cpus - concurrent * cores_each) * wall
    workers = _group_by_worker(intervals)
    for part, seconds in chain(*map(_working_seconds, workers)):
        yield part, seconds * cores_each
    for part, began, ended in chain(*map(_gaps, workers), _unused(workers, concurrent, wall)):
        overlaps = [(kind, max(0.0, min(ended, until) - max(began, since))) for since, until, kind in narrow]
        for kind, seconds in [*overlaps, (part, ended - began - sum(seconds for _, seconds in overlaps))]:
            yield kind, seconds * cores_each


def _narrow_spans(
    session: Session, changes: list[WidthChange], concurrent: int, wall: float
) -> Iterator[tuple[float, float, str]]:
    """The times in which fewer trials than `concurrent` could run, and the part to which their unused time belongs."""
    widths = [(0.0, session.max_concurrent_trials, "idle")]
    for change in changes:
        is_asked = change.max_concurrent_trials < min(concurrent, change.capacity)
        widths.append((change.seconds, change.max_concurrent_trials, "paused" if is_asked else "idle"))
    for (began, width, kind), (ended, *_) in pairwise([*widths, (wall, 0, "")]):
        if width < concurrent:
            yield began, ended, kind


def _group_by_worker(intervals: list[Interval]) -> list[list[Interval]]:
    """The intervals of each worker; the worker that began first comes first."""
    workers: dict[tuple[int, int], list[Interval]] = defaultdict(list)
    for interval in intervals:
        workers[interval.timing.node, interval.timing.pid].append(interval)
    return sorted(workers.values(), key=lambda worker: worker[0].began)


def _working_seconds(worker: list[Interval]) -> Iterator[tuple[str, float]]:
    """The seconds of the trials of a worker."""
    for interval in worker:
        yield "training", interval.training
        yield "evaluation", interval.evaluation
        yield "lost", interval.lost
        yield "ray_and_sampler", interval.timing.waiting_seconds


def _gaps(worker: list[Interval]) -> Iterator[tuple[str, float, float]]:
    """The times between two trials of a worker, or before it continues a trial: the part, its beginning and its end."""
    for before, after in pairwise(worker):
        yield "ray_and_sampler", before.timing.reported, max(before.timing.reported, after.began)


def _unused(workers: list[list[Interval]], concurrent: int, wall: float) -> Iterator[tuple[str, float, float]]:
    """The times before the first trial of each worker, and after its last one if no other worker replaced it."""
    last_reports: list[Interval] = []
    for worker in workers:
        if len(last_reports) < concurrent:
            yield "start_up", 0.0, worker[0].began
        else:
            replaced = min(last_reports, key=lambda interval: interval.timing.reported)
            last_reports.remove(replaced)
            part = "ray_and_sampler" if replaced.ends_its_trial else "lost"
            yield part, replaced.timing.reported, worker[0].began
        last_reports.append(worker[-1])
    for last in last_reports:
        yield "idle" if last.ends_its_trial else "lost", last.timing.reported, wall
    for _ in range(concurrent - len(last_reports)):
        yield "idle", 0.0, wall
