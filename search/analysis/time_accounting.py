"""The time ledger: what the cores of a study did from command to end, by what its record holds."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from typing import Any

from search.record.study_record import StudyRecord
from search.record.trial import Run, TrialRecord

PART_NAMES = {
    "training": "training",
    "evaluation": "evaluation",
    "start_up": "start-up",
    "ray_and_sampler": "Ray and sampler",
    "lost": "lost",
    "idle": "idle",
}
"""The parts of the ledger, and what people are shown."""


@dataclass(frozen=True)
class Stretch:
    """What a worker did up to one report, of an epoch or of a failure; in seconds."""

    trial: TrialRecord
    run: Run
    training: float = 0.0
    evaluation: float = 0.0
    lost: float = 0.0

    @property
    def began(self) -> float:
        """Since the study was started."""
        return self.run.reported - self.training - self.evaluation - self.lost - self.run.waiting_seconds

    @property
    def ends_its_trial(self) -> bool:
        """Whether the trial was not to go on."""
        measured_to_its_end = self.trial.status in ("completed", "stopped_early") or self.lost > 0
        return measured_to_its_end and self.run is self.trial.runs[max(self.trial.runs)]


@dataclass(frozen=True)
class WorkerTrial:
    """A trial, or the part of it that one worker ran without a break by another trial; in seconds."""

    worker: str
    trial: TrialRecord
    began: float
    """Since the study was first started, the time between two starts left out."""
    ended: float


def time_ledger(record: StudyRecord) -> dict[str, float] | None:
    """What the cores did: the whole, which is cores x wall clock of all starts of the study, and its parts.

    Each part is measured by itself. Workers' clocks tell `training`, `evaluation`, the work of `lost` epochs, and how
    long a worker waited within a trial; the driver's clock tells the time before the first trial of a worker, between
    two of them and after the last. So their sum shows whether anything was left out or counted twice.

    Returns:
        Core seconds of `whole` and of each of `PART_NAMES`; None for a study from before this was recorded.
    """
    starts = record.facts.get("starts", [])
    if not starts or not all("trials_at_once" in start for start in starts):
        return None
    stretches = _stretches(record)
    ledger = dict.fromkeys(("whole", *PART_NAMES), 0.0)
    for number, start in enumerate(starts):
        for part, core_seconds in _of_one_start(start, stretches[number]):
            ledger[part] += core_seconds
    return {part: round(core_seconds, 1) for part, core_seconds in ledger.items()}


def worker_trials(record: StudyRecord) -> list[WorkerTrial]:
    """What each worker ran, worker by worker in the order in which they began."""
    stretches = _stretches(record)
    *offsets, _ = start_offsets(record)
    found = []
    for number, offset in enumerate(offsets):
        for place, worker in enumerate(_by_worker(stretches[number]), start=1):
            name = f"worker {place}" if len(offsets) == 1 else f"start {number + 1}, worker {place}"
            for _, of_trial in groupby(worker, key=lambda stretch: stretch.trial.number):
                first, *_, last = [*of_trial] * 2
                found.append(WorkerTrial(name, last.trial, offset + first.began, offset + last.run.reported))
    return found


def wall_seconds(record: StudyRecord) -> float:
    """Wall clock of all starts; of one that was killed, until its last report."""
    if "seconds" in record.facts:
        return float(record.facts["seconds"])  # a study from before each start had its own
    return round(start_offsets(record)[-1], 1)


def start_offsets(record: StudyRecord) -> list[float]:
    """When each start of the study began, and when the last one ended; in seconds, the time between two left out."""
    stretches = _stretches(record)
    walls = [_wall(start, stretches[number]) for number, start in enumerate(record.facts.get("starts", []))]
    return [0.0, *accumulate(walls)]


def _stretches(record: StudyRecord) -> dict[int, list[Stretch]]:
    """All that workers reported, by start of the study, in the order of the reports."""
    stretches: dict[int, list[Stretch]] = defaultdict(list)
    for trial in record.trials:
        for metrics in trial.epochs:
            if run := trial.runs.get(metrics.epoch):
                evaluation = metrics.evaluation_seconds or 0.0
                stretches[run.start].append(Stretch(trial, run, metrics.seconds - evaluation, evaluation))
        if trial.failure and (run := trial.runs.get(len(trial.epochs) + 1)):
            stretches[run.start].append(Stretch(trial, run, lost=trial.failure.seconds))
    for of_one_start in stretches.values():
        of_one_start.sort(key=lambda stretch: stretch.run.reported)
    return stretches


def _wall(start: dict[str, Any], stretches: list[Stretch]) -> float:
    last_report = stretches[-1].run.reported if stretches else 0.0
    return float(start.get("seconds", last_report))


def _of_one_start(start: dict[str, Any], stretches: list[Stretch]) -> Iterator[tuple[str, float]]:
    """Names of parts and core seconds, in any order."""
    wall, cores = _wall(start, stretches), start.get("cluster", start["machine"])["cpus"]
    at_once, cores_each = start["trials_at_once"], start["cpus_per_trial"]
    yield "whole", cores * wall
    yield "idle", (cores - at_once * cores_each) * wall
    workers = _by_worker(stretches)
    for part, seconds in chain(*map(_while_at_work, workers), _while_not_at_work(workers, at_once, wall)):
        yield part, seconds * cores_each


def _by_worker(stretches: list[Stretch]) -> list[list[Stretch]]:
    """What each worker reported; the worker that began first comes first."""
    workers: dict[tuple[int, int], list[Stretch]] = defaultdict(list)
    for stretch in stretches:
        workers[stretch.run.node, stretch.run.pid].append(stretch)
    return sorted(workers.values(), key=lambda worker: worker[0].began)


def _while_at_work(worker: list[Stretch]) -> Iterator[tuple[str, float]]:
    """From the beginning of a worker's first trial to its last report."""
    for stretch in worker:
        yield "training", stretch.training
        yield "evaluation", stretch.evaluation
        yield "lost", stretch.lost
        yield "ray_and_sampler", stretch.run.waiting_seconds
    for before, after in pairwise(worker):
        if before.trial is not after.trial:
            yield "ray_and_sampler", after.began - before.run.reported


def _while_not_at_work(workers: list[list[Stretch]], at_once: int, wall: float) -> Iterator[tuple[str, float]]:
    """Before the first trial of each worker, and after the last one if no other worker took its place."""
    last_reports: list[Stretch] = []
    for worker in workers:
        if len(last_reports) < at_once:
            yield "start_up", worker[0].began
        else:
            gone = min(last_reports, key=lambda stretch: stretch.run.reported)
            last_reports.remove(gone)
            part = "ray_and_sampler" if gone.ends_its_trial else "lost"
            yield part, worker[0].began - gone.run.reported
        last_reports.append(worker[-1])
    for last in last_reports:
        yield "idle" if last.ends_its_trial else "lost", wall - last.run.reported
    yield "idle", (at_once - len(last_reports)) * wall
