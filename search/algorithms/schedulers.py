"""Early stopping: which trials are worth their next epoch."""

import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from search.algorithms.promotion import Promotion
from search.algorithms.stopping import StudyStopper
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings

NO_LIMIT = 10**6
"""Epochs after which successive halving decides for the last time, where trials have no limit."""
EPOCHS_OF_BRACKETS = 81
"""The brackets of hyperband, where trials have no limit, are those of this number of epochs."""
CONTINUE: str = TrialScheduler.CONTINUE
STOP: str = TrialScheduler.STOP


@dataclass(frozen=True, eq=False)
class _Trial:
    """A trial as Ray's schedulers see it: the same object, however often the trial was interrupted and resumed."""

    trial_id: str
    seed: int


class SuccessiveHalving(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Asynchronous successive halving in one or more brackets.

    Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2, in Ray's stopping variant:
    with reduction factor 3, at epochs 1, 3, 9, ... a trial goes on if it is among the best third of those of its
    bracket that came as far before it. The second bracket decides from epoch 3 on, the third from 9; each gets e times
    as many trials as the next one.
    """

    def on_trial_add(self, tune_controller: Any, trial: _Trial) -> None:  # noqa: ARG002
        """Sample a bracket by the trial's seed: a resumed trial gets the same one, which Ray's own code does not do."""
        weights = [math.exp(len(bracket._rungs)) for bracket in self._brackets]
        (self._trial_info[trial.trial_id],) = random.Random(trial.seed).choices(self._brackets, weights)

    def count_later(self, trial: _Trial, epochs: int, best_value: float) -> None:
        """Count a trial that ended by itself after some epochs at all later decisions, with its best value."""
        for milestone, values in self._trial_info[trial.trial_id]._rungs:
            if milestone > epochs:
                values[trial.trial_id] = self._metric_op * best_value


class MedianRule(MedianStoppingRule):  # type: ignore[misc]
    """Stops a trial whose best epoch is worse than the median of the other trials' means up to the same epoch.

    Golovin et al. 2017, "Google Vizier: A Service for Black-Box Optimization", section 3.2.1.
    """

    def on_trial_result(self, tune_controller: Any, trial: _Trial, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on; the baseline is judged again after it should have stopped."""
        self._stopped_trials.discard(trial)
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return decision


class _UsualEnd:
    """Knows after how many epochs trainings end by themselves, if all do so after the same number.

    A scheduler that decides at just this epoch would stop a training that has ended, but has not said so yet.
    """

    def __init__(self, trials: Iterable[TrialRecord]) -> None:
        self._epochs = {trial.epochs[-1].epoch for trial in trials if trial.ended_by_itself and trial.epochs}

    def add(self, trial: TrialRecord, result: dict[str, Any]) -> None:
        """Add a trial that has ended by itself; its last report may not be in the record yet."""
        if trial.epochs or "epoch" in result:
            self._epochs.add(result["epoch"] if "epoch" in result else trial.epochs[-1].epoch)

    def is_at(self, epoch: int) -> bool:
        """Whether all trainings that have ended by themselves did so after this epoch."""
        return self._epochs == {epoch}


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Applies one of Ray's schedulers to the trials of a record; never stops the baseline or a trial at its end.

    Ray's scheduler sees all epochs of a trial as one run, also those before an interruption, so a resumed trial is
    judged only for its new epochs, and by all of its epochs. The results of the baseline are compared with those of
    the others; it runs in full, so that the gain is measured over its full training.
    """

    def __init__(self, scheduler: TrialScheduler, record: StudyRecord) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._record = record
        self._usual_end = _UsualEnd(record.trials)
        self._trials: dict[int, _Trial] = {}
        """By number in the record; Ray gives a trial another name each time it is resumed."""
        # what is decided of them does not matter any more, and takes seconds for 10,000 trials
        with mock.patch.object(_Bracket, "cutoff", return_value=None):
            for trial in record.trials:
                for epoch, value in trial.curve.items():
                    self._judge(trial, epoch, value)
                if trial.ended_by_itself:
                    self._end(trial, {})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Decide whether a trial goes on."""
        recorded = self._record.running(trial.trial_id)
        decision = CONTINUE
        if result.get("objective") is not None:  # not a failure, and not an epoch without the metric
            decision = self._judge(recorded, result["epoch"], result["objective"])
        if "ended" in result:
            self._usual_end.add(recorded, result)
            self._end(recorded, result)
        limit, epoch = self._record.epoch_limit, result.get("epoch", 0)
        ends_by_itself = "ended" in result or (limit is not None and epoch >= limit) or self._usual_end.is_at(epoch)
        return CONTINUE if recorded.is_baseline or ends_by_itself else decision

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles the scheduler into its scratch folder

    def _end(self, trial: TrialRecord, result: dict[str, Any]) -> None:
        """Count a trial that has ended by itself; its last report may not be in the record yet."""
        curve = trial.curve | ({result["epoch"]: result["objective"]} if result.get("objective") is not None else {})
        if isinstance(self._scheduler, SuccessiveHalving) and curve:
            best = min(curve.values()) if self._record.mode == "min" else max(curve.values())
            self._scheduler.count_later(self._trials[trial.number], max(curve), best)

    def _judge(self, trial: TrialRecord, epoch: int, value: float) -> str:
        if trial.number not in self._trials:
            self._trials[trial.number] = _Trial(str(trial.number), trial.seed)
            self._scheduler.on_trial_add(None, self._trials[trial.number])
        result = {"epoch": epoch, "objective": value}
        decision: str = self._scheduler.on_trial_result(None, self._trials[trial.number], result)
        return decision


class PausingScheduler(FIFOScheduler):  # type: ignore[misc]
    """Ends a trial at a rung, where it is paused in the record unless it is good enough to continue at once."""

    def __init__(self, promotion: Promotion, record: StudyRecord) -> None:
        super().__init__()
        self._promotion = promotion
        self._record = record
        self._usual_end = _UsualEnd(record.trials)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Decide whether a trial goes on."""
        recorded, value = self._record.running(trial.trial_id), result.get("objective")
        if "ended" in result:
            self._usual_end.add(recorded, result)
        if value is None or "ended" in result or self._usual_end.is_at(result["epoch"]):
            return CONTINUE
        if recorded.is_baseline and self._record.metadata.settings.full_baseline:
            return CONTINUE
        goes_on = self._promotion.continues(recorded, result["epoch"], value, self._record.trials)
        return CONTINUE if goes_on else STOP

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles the scheduler into its scratch folder


class InterruptingScheduler(FIFOScheduler):  # type: ignore[misc]
    """Lets a trial wait where the study is paused or ends, but first asks the scheduler of the study.

    So a study that is paused stops the same trials as one that is not: a stopper that Ray asks first would keep the
    scheduler from the epoch, and from the decision at a rung.
    """

    def __init__(self, scheduler: TrialScheduler, stopper: StudyStopper) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._stopper = stopper

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on now."""
        decision: str = self._scheduler.on_trial_result(tune_controller, trial, result)
        if "left" in result:
            self._stopper.interrupted.add(trial.trial_id)
            return STOP
        waits = decision == CONTINUE and self._stopper.lets_wait(trial.trial_id, result.get("node", ""))
        return STOP if waits else decision

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles the scheduler into its scratch folder


def build_scheduler(settings: StudySettings, record: StudyRecord) -> TrialScheduler:
    """Build the scheduler of a study, which has seen the trials of its record so far."""
    options = {
        "time_attr": "epoch",
        "metric": "objective",
        "mode": record.mode,
        "grace_period": settings.grace_period,
    }
    halving = options | {"max_t": settings.epochs or NO_LIMIT, "reduction_factor": settings.reduction_factor}
    match settings.scheduler:
        case "asha":
            return StudyScheduler(SuccessiveHalving(**halving), record)
        case "promotion":
            return PausingScheduler(Promotion(settings), record)
        case "hyperband":
            return StudyScheduler(SuccessiveHalving(**halving, brackets=_num_rungs(settings)), record)
        case "median":
            return StudyScheduler(MedianRule(**options, min_time_slice=math.inf), record)  # infinite: none is paused
        case "none":
            return FIFOScheduler()


def describe(settings: StudySettings) -> str:
    """The scheduler of a study and its options, as text."""
    match settings.scheduler:
        case "none":
            return "no scheduler"
        case "median":
            return f"median from epoch {settings.grace_period}"
        case name:
            return f"{name} from epoch {settings.grace_period}, reduction factor {settings.reduction_factor}"


def _num_rungs(settings: StudySettings) -> int:
    """The number of epochs after which successive halving decides, without the last epoch."""
    epochs = settings.epochs or EPOCHS_OF_BRACKETS
    rungs = (settings.grace_period * settings.reduction_factor**k for k in itertools.count())
    return max(1, sum(1 for _ in itertools.takewhile(lambda epoch: epoch < epochs, rungs)))
