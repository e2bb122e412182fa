"""Replays a study against recorded learning curves: everything is a real study's but the clock, which jumps."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from optuna.storages import InMemoryStorage
from ray.tune.schedulers import TrialScheduler

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
from training.metrics import EpochMetrics

Result = TypeVar("Result")
Suggest = Callable[[str], dict[str, Any] | str | None]


@dataclass(frozen=True)
class Report:
    """What a trial of a replayed study reported: an epoch, or how it failed."""

    trial: TrialRecord
    step: EpochMetrics | Failure
    ended: bool
    """Whether it was the trial's last report."""
    clock: float
    """Seconds since the study began."""
    seconds_used: float
    """Seconds that all workers together have trained until then."""


@dataclass(frozen=True)
class Found:
    """The best that a replayed study has found when a trial ends, and for how much."""

    value: float
    trial: TrialRecord
    epoch: int
    """The trial's best."""
    epochs_run: int
    clock: float
    seconds_used: float


class MemoryStorage(InMemoryStorage):
    """A record that lives as long as the process."""

    address = None

    @property
    def _backend(self) -> "MemoryStorage":
        return self

    def change(self, make: Callable[[], Result]) -> Result:
        """Make a change: nothing can get between."""
        return make()


def memory_record(settings: StudySettings, space: SearchSpace) -> StudyRecord:
    """An empty record in memory, of a study on no images."""
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
    metadata = StudyMetadata(settings=settings, space=space, dataset=recorded)
    storage: Any = MemoryStorage()
    return StudyRecord.create(Path("a study that has no folder"), metadata, server=storage)


def replay_grid(curves: GridCurves, settings: StudySettings, space: SearchSpace, workers: int) -> Iterator[Report]:
    """Run a study with these settings against a grid's curves; a ValueError says that a curve is missing."""
    record = memory_record(settings, space)
    if settings.baseline:
        record.enqueue_starting_points(settings.num_samples)
    sampler = build_sampler(settings.sampler, settings.seed, trials_so_far=0)
    search = SearchAlgorithm(
        record, sampler, seed=settings.seed, num_ended=settings.num_samples, stopper=StudyStopper()
    )
    scheduler = build_scheduler(settings, record)
    return simulate(
        record, search.suggest, scheduler, lambda trial: curves.curve(trial.hyperparameters, trial.seed), workers
    )


def replay_trials(trials: list[StudyTrial], settings: StudySettings, workers: int) -> Iterator[Report]:
    """Run the trials of a study again, in the order given, as far as they went; trial 0 of the replay is the first."""
    record = memory_record(settings, default_space(settings.network))
    left = iter(trials)

    def suggest(trial_id: str) -> dict[str, Any] | None:
        trial = next(left, None)
        if trial is None:
            return None
        record.study.enqueue_trial({}, user_attrs={"baseline": trial.is_baseline})
        record.start(trial_id, record.study.ask(), trial.number)
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
    """Have workers take trials as they become free, and ask and tell what Ray and its callbacks would, at that time.

    Args:
        record: Where the trials are recorded.
        suggest: Starts the next trial in the record; gives no dictionary when there is none now.
        scheduler: Decides after each epoch whether its trial goes on.
        curve_of: What a trial reports if it is not stopped; not empty.
        workers: Trials at the same time.

    Yields:
        Each report, in order of time; of epochs that end at the same moment the one that began first.
    """
    running: list[tuple[float, int, str, Curve, int]] = []
    """When the step of each running trial ends, its place in the order of beginning, and which step of its curve."""
    order, names = itertools.count(), itertools.count()
    clock = seconds_used = 0.0
    while True:
        while len(running) < workers:
            trial_id = f"replayed-{next(names)}"
            if not isinstance(suggest(trial_id), dict):
                break
            curve = curve_of(record.running(trial_id))
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=trial_id))
            heapq.heappush(running, (clock + curve[0].seconds, next(order), trial_id, curve, 0))
        if not running:
            return
        busy, before = len(running), clock
        clock, _, trial_id, curve, position = heapq.heappop(running)
        seconds_used += busy * (clock - before)
        step, going_on = curve[position], position + 1 < len(curve)
        if isinstance(step, Failure):
            record.add_failure(trial_id, step)
        else:
            decision = scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial_id), asdict(step))
            record.add_epoch(trial_id, step)
            going_on = going_on and decision == CONTINUE
        trial = record.running(trial_id) if going_on else record.finish(trial_id)
        if going_on:
            heapq.heappush(running, (clock + curve[position + 1].seconds, next(order), trial_id, curve, position + 1))
        yield Report(trial, step, not going_on, clock, seconds_used)


def found_so_far(reports: Iterable[Report], settings: StudySettings) -> dict[int, Found]:
    """What a study has found after so many trials have ended, from the first on that measured something that stands."""
    sign = 1 if settings.direction == "max" else -1
    best_epochs: dict[int, tuple[float, TrialRecord, int]] = {}
    found: dict[int, Found] = {}
    ended = epochs_run = 0
    for report in reports:
        number = report.trial.number
        if isinstance(report.step, EpochMetrics):
            epochs_run += 1
            value = getattr(report.step, settings.metric_name)
            if number not in best_epochs or sign * value > sign * best_epochs[number][0]:
                best_epochs[number] = value, report.trial, report.step.epoch
        else:
            best_epochs.pop(number, None)  # what a failed trial measured does not stand
        ended += report.ended
        if report.ended and best_epochs:
            best = max(best_epochs.values(), key=lambda best: sign * best[0])
            found[ended] = Found(*best, epochs_run, report.clock, report.seconds_used)
    return found
