"""Time accounting: what the cores of a study did from command to end, by what its record holds."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise

from search.record.provenance import Session
from search.record.study_record import StudyRecord
from search.record.trial import Timing, TrialRecord

PART_NAMES = {
    "training": "training",
    "evaluation": "evaluation",
    "start_up": "start-up",
    "ray_and_sampler": "Ray and sampler",
    "lost": "lost",
    "idle": "idle",
}
"""The parts of the time, and their names in the summary and the report."""


@dataclass(frozen=True)
class Interval:
    """What a worker did up to one report, of an epoch or of a failure; in seconds."""

    trial: TrialRecord
    timing: Timing
    training: float = 0.0
    evaluation: float = 0.0
    lost: float = 0.0

    @property
    def began(self) -> float:
        """Since the study was started."""
        return self.timing.reported - self.training - self.evaluation - self.lost - self.timing.waiting_seconds

    @property
    def ends_its_trial(self) -> bool:
        """Whether the trial was not to go on."""
        measured_to_its_end = self.trial.status in ("completed", "stopped_early") or self.lost > 0
        return measured_to_its_end and self.timing is self.trial.timings[max(self.trial.timings)]


@dataclass(frozen=True)
class WorkerTrial:
    """A trial, or the part of it that one worker ran without a break by another trial; in seconds."""

    worker: str
    trial: TrialRecord
    began: float
    """Since the study was first started, the time between two sessions left out."""
    ended: float


def time_accounting(record: StudyRecord) -> dict[str, float]:
    """What the cores did: the whole, which is cores x wall clock of all sessions of the study, and its parts.

    Each part is measured by itself. Workers' clocks tell `training`, `evaluation`, the work of `lost` epochs, and how
    long a worker waited within a trial; the driver's clock tells the time before the first trial of a worker, between
    two of them and after the last. So their sum shows whether anything was left out or counted twice.

    Returns:
        Core seconds of `whole` and of each of `PART_NAMES`.
    """
    intervals = _intervals(record)
    parts = dict.fromkeys(("whole", *PART_NAMES), 0.0)
    for number, session in enumerate(record.metadata.sessions):
        for part, core_seconds in _session_parts(session, intervals[number]):
            parts[part] += core_seconds
    return {part: round(core_seconds, 1) for part, core_seconds in parts.items()}


def worker_trials(record: StudyRecord) -> list[WorkerTrial]:
    """What each worker ran, worker by worker in the order in which they began."""
    intervals = _intervals(record)
    *offsets, _ = session_offsets(record)
    found = []
    for number, offset in enumerate(offsets):
        for place, worker in enumerate(_by_worker(intervals[number]), start=1):
            name = f"worker {place}" if len(offsets) == 1 else f"session {number + 1}, worker {place}"
            for _, of_trial in groupby(worker, key=lambda interval: interval.trial.number):
                first, *_, last = [*of_trial] * 2
                found.append(WorkerTrial(name, last.trial, offset + first.began, offset + last.timing.reported))
    return found


def wall_seconds(record: StudyRecord) -> float:
    """Wall clock of all sessions; of one that was killed, until its last report."""
    return round(session_offsets(record)[-1], 1)


def session_offsets(record: StudyRecord) -> list[float]:
    """When each session of the study began, and when the last one ended; in seconds, the time between two left out."""
    intervals = _intervals(record)
    walls = [_wall(session, intervals[number]) for number, session in enumerate(record.metadata.sessions)]
    return [0.0, *accumulate(walls)]


def _intervals(record: StudyRecord) -> dict[int, list[Interval]]:
    """All that workers reported, by session of the study, in the order of the reports."""
    intervals: dict[int, list[Interval]] = defaultdict(list)
    for trial in record.trials:
        for metrics in trial.epochs:
            if timing := trial.timings.get(metrics.epoch):
                evaluation = metrics.evaluation_seconds or 0.0
                intervals[timing.session].append(Interval(trial, timing, metrics.seconds - evaluation, evaluation))
        if trial.failure and (timing := trial.timings.get(len(trial.epochs) + 1)):
            intervals[timing.session].append(Interval(trial, timing, lost=trial.failure.seconds))
    for of_session in intervals.values():
        of_session.sort(key=lambda interval: interval.timing.reported)
    return intervals


def _wall(session: Session, intervals: list[Interval]) -> float:
    last_report = intervals[-1].timing.reported if intervals else 0.0
    return last_report if session.seconds is None else session.seconds


def _session_parts(session: Session, intervals: list[Interval]) -> Iterator[tuple[str, float]]:
    """Names of parts and core seconds, in any order."""
    wall, concurrent, cores_each = _wall(session, intervals), session.max_concurrent_trials, session.cpus_per_trial
    yield "whole", session.cpus * wall
    yield "idle", (session.cpus - concurrent * cores_each) * wall
    workers = _by_worker(intervals)
    for part, seconds in chain(*map(_while_at_work, workers), _while_not_at_work(workers, concurrent, wall)):
        yield part, seconds * cores_each


def _by_worker(intervals: list[Interval]) -> list[list[Interval]]:
    """What each worker reported; the worker that began first comes first."""
    workers: dict[tuple[int, int], list[Interval]] = defaultdict(list)
    for interval in intervals:
        workers[interval.timing.node, interval.timing.pid].append(interval)
    return sorted(workers.values(), key=lambda worker: worker[0].began)


def _while_at_work(worker: list[Interval]) -> Iterator[tuple[str, float]]:
    """From the beginning of a worker's first trial to its last report."""
    for interval in worker:
        yield "training", interval.training
        yield "evaluation", interval.evaluation
        yield "lost", interval.lost
        yield "ray_and_sampler", interval.timing.waiting_seconds
    for before, after in pairwise(worker):
        if before.trial is not after.trial:
            yield "ray_and_sampler", after.began - before.timing.reported


def _while_not_at_work(workers: list[list[Interval]], concurrent: int, wall: float) -> Iterator[tuple[str, float]]:
    """Before the first trial of each worker, and after the last one if no other worker took its place."""
    last_reports: list[Interval] = []
    for worker in workers:
        if len(last_reports) < concurrent:
            yield "start_up", worker[0].began
        else:
            gone = min(last_reports, key=lambda interval: interval.timing.reported)
            last_reports.remove(gone)
            part = "ray_and_sampler" if gone.ends_its_trial else "lost"
            yield part, worker[0].began - gone.timing.reported
        last_reports.append(worker[-1])
    for last in last_reports:
        yield "idle" if last.ends_its_trial else "lost", wall - last.timing.reported
    yield "idle", (concurrent - len(last_reports)) * wall
