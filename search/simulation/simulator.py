"""Replays a study against recorded learning curves, with all parts of a real study except the clock."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import TrialScheduler

from search.algorithms.promotion import Promotion
from search.algorithms.samplers import build_sampler
from search.algorithms.schedulers import CONTINUE, build_scheduler
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.record.metadata import Dataset, StudyMetadata
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.settings import StudySettings
from search.simulation.learning_curves import Curve, GridCurves
from search.simulation.study_curves import StudyTrial
from search.space.search_space import SearchSpace
from search.space.toml_file import default_space
from search.task.custom_metrics import CustomMetrics, metric_value
from training.metrics import EpochMetrics

Result = TypeVar("Result")
Suggest = Callable[[str], dict[str, Any] | str | None]


@dataclass(frozen=True)
class Report:
    """A report of a replayed trial: an epoch or a failure."""

    trial: TrialRecord
    step: EpochMetrics | CustomMetrics | Failure
    ended: bool
    """Whether this is the last report of the trial."""
    clock: float
    """Seconds since the study began."""
    seconds_used: float
    """Seconds that all workers together have trained by then."""


@dataclass(frozen=True)
class Incumbent:
    """The best value of a replayed study when a trial ends, and its cost."""

    value: float
    trial: TrialRecord
    epoch: int
    """The best epoch of the trial."""
    epochs_run: int
    clock: float
    seconds_used: float


class MemoryStorage(InMemoryStorage):
    """A storage in memory, with the interface of `StudyStorage`."""

    address = None

    def change(self, make: Callable[[], Result]) -> Result:
        """Make a change; no other process can interfere."""
        return make()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials; Optuna's own method does not find one that waits again, if it is asked with a tuple."""
        return super().get_all_trials(study_id, deepcopy, [*states] if isinstance(states, tuple) else states)


def memory_record(settings: StudySettings, space: SearchSpace) -> StudyRecord:
    """An empty record in memory of a study without images."""
    recorded = Dataset(
        name="recorded",
        sha256="",
        classes=[],
        training_images=0,
        validation_images=0,
        test_images=0,
        image_shape=[1, 1, 1],
        class_images=[],
    )
    on_images = settings.task.network is not None
    metadata = StudyMetadata(settings=settings, space=space, dataset=recorded if on_images else None)
    storage: Any = MemoryStorage()
    return StudyRecord.create(Path("a study that has no folder"), metadata, server=storage)


def replay_grid(curves: GridCurves, settings: StudySettings, space: SearchSpace, workers: int) -> Iterator[Report]:
    """Run a study with these settings against a grid's curves; a ValueError says that a curve is missing."""
    record = memory_record(settings, space)
    if settings.baseline:
        record.enqueue_starting_points(settings.num_samples)
    sampler = build_sampler(settings.sampler, settings.seed, 0, settings.epochs, record.epoch_seconds)
    search = SearchAlgorithm(
        record, sampler, seed=settings.seed, num_ended=settings.num_samples, stopper=StudyStopper()
    )
    scheduler = build_scheduler(settings, record)
    return simulate(
        record, search.suggest, scheduler, lambda trial: curves.curve(trial.hyperparameters, trial.seed), workers
    )


def replay_trials(trials: list[StudyTrial], settings: StudySettings, workers: int) -> Iterator[Report]:
    """Replay the trials of a study in the order of `trials`; each ends at the latest where it ended in the study."""
    record = memory_record(settings, default_space(settings.network))
    remaining = deque(trials)
    promotion = Promotion(settings) if settings.scheduler == "promotion" else None

    def suggest(trial_id: str) -> dict[str, Any] | None:
        promotes = promotion is not None and promotion.promote(record, all_begun=not remaining)
        if not promotes and not remaining:
            return None
        if not promotes:
            record.study.enqueue_trial({}, user_attrs={"baseline": remaining.popleft().is_baseline})
        proposal = record.study.ask()
        record.start(trial_id, proposal, trials[proposal.number].number)
        return {}

    return simulate(
        record, suggest, build_scheduler(settings, record), lambda trial: trials[trial.number].curve, workers
    )


def simulate(
    record: StudyRecord,
    suggest: Suggest,
    scheduler: TrialScheduler,
    curve_of: Callable[[TrialRecord], Curve],
    workers: int,
) -> Iterator[Report]:
    """Simulate workers that run trials one after the other, with the calls that Ray and its callbacks would make.

    Args:
        record: The record of the trials.
        suggest: Starts the next trial in the record; returns no dictionary if there is no trial now.
        scheduler: Decides after each epoch whether its trial goes on.
        curve_of: Returns the curve of a trial, which is not empty.
        workers: Number of trials that run at the same time.

    Yields:
        Each report, in order of time; of simultaneous reports, first that of the epoch that began first.
    """
    running: list[tuple[float, int, str, Curve, int]] = []
    """For each running trial: end of its epoch, order of that epoch's beginning, name, curve, index in the curve."""
    order, names = itertools.count(), itertools.count()
    clock = seconds_used = 0.0
    while True:
        while len(running) < workers:
            trial_id = f"replayed-{next(names)}"
            if not isinstance(suggest(trial_id), dict):
                break
            curve = curve_of(record.running(trial_id))
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=trial_id))
            index = len(record.running(trial_id).epochs)  # above 0 for a promoted trial
            heapq.heappush(running, (clock + seconds_of(curve[index]), next(order), trial_id, curve, index))
        if not running:
            return
        busy, before = len(running), clock
        clock, _, trial_id, curve, index = heapq.heappop(running)
        seconds_used += busy * (clock - before)
        step, goes_on = curve[index], index + 1 < len(curve)
        if isinstance(step, Failure):
            record.add_failure(trial_id, step)
        else:
            report = {"epoch": step.epoch, "objective": record.objective.value(step)}
            decision = scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial_id), report)
            record.add_epoch(trial_id, step)
            goes_on = goes_on and decision == CONTINUE
        trial = record.running(trial_id) if goes_on else record.finish(trial_id)
        if trial.status == "paused" and index + 1 == len(curve):
            trial.status = "stopped_early"  # nothing is known of its later epochs
        if goes_on:
            heapq.heappush(running, (clock + seconds_of(curve[index + 1]), next(order), trial_id, curve, index + 1))
        yield Report(trial, step, not goes_on, clock, seconds_used)


def seconds_of(step: EpochMetrics | CustomMetrics | Failure) -> float:
    """The time of an epoch or of a failure; a curve that is replayed has one for each."""
    assert step.seconds is not None, "what is replayed has times"
    return step.seconds


def incumbents(reports: Iterable[Report], settings: StudySettings) -> dict[int, Incumbent]:
    """The incumbent after each number of ended trials, from the first valid trial on."""
    sign = 1 if settings.direction == "max" else -1
    best_epochs: dict[int, tuple[float, TrialRecord, int]] = {}
    result: dict[int, Incumbent] = {}
    ended, epochs_run = set[int](), 0
    for report in reports:
        number = report.trial.number
        if not isinstance(report.step, Failure):
            epochs_run += 1
            value = metric_value(report.step, settings.metric_name)
            assert value is not None, "epochs without the metric are not replayed"
            if number not in best_epochs or sign * value > sign * best_epochs[number][0]:
                best_epochs[number] = value, report.trial, report.step.epoch
        else:
            best_epochs.pop(number, None)  # the metrics of a failed trial are not valid
        if report.ended:
            ended.add(number)
        if report.ended and best_epochs:
            best = max(best_epochs.values(), key=lambda best: sign * best[0])
            result[len(ended)] = Incumbent(*best, epochs_run, report.clock, report.seconds_used)
    return result
