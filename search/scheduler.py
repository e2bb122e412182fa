"""Early stopping: which trials are worth their next epoch."""

import itertools
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from search.record import StudyRecord
from search.settings import SchedulerName
from search.space import HyperparameterValue

CONTINUE: str = TrialScheduler.CONTINUE
GRACE_EPOCHS = 1
"""Every trial runs this many epochs."""
REDUCTION = 3
"""One in so many trials goes on at each of the epochs 1, 3, 9, ..."""


class BaselineSparingASHA(ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving that never stops the baseline, so that the gain is over its full training.

    Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2, in Ray's stopping variant: at
    epochs 1, 3, 9, ... a trial goes on if it is among the best third of those that came as far before it.
    """

    def __init__(self, record: StudyRecord, baseline: dict[str, HyperparameterValue]) -> None:
        super().__init__(
            time_attr="epoch",
            max_t=record.epochs,
            grace_period=GRACE_EPOCHS,
            reduction_factor=REDUCTION,
            metric=record.metric,
            mode=record.mode,
        )
        rungs = itertools.takewhile(lambda epoch: epoch < record.epochs, (REDUCTION**k for k in itertools.count()))
        self._deciding_epochs = {record.epochs, *(GRACE_EPOCHS * rung for rung in rungs)}
        self._baseline = baseline
        for earlier in record.trials:
            trial = SimpleNamespace(trial_id=f"earlier {earlier.number}", config=earlier.hyperparameters)
            self.on_trial_add(None, trial)
            for metrics in earlier.epochs:
                self.on_trial_result(None, trial, asdict(metrics))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on; the baseline's results count for the others."""
        if result.get("epoch") not in self._deciding_epochs:
            return CONTINUE  # else a resumed trial would be judged for epochs that it left behind
        decision: str = super().on_trial_result(tune_controller, trial, result)
        is_baseline = self._baseline.items() <= trial.config.items()
        return CONTINUE if is_baseline else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002
        """Forget the trial; its results at the deciding epochs are known already."""
        self._trial_info.pop(trial.trial_id, None)


def build_scheduler(
    name: SchedulerName, record: StudyRecord, baseline: dict[str, HyperparameterValue]
) -> TrialScheduler:
    """Build a scheduler that knows the trials of the record so far."""
    match name:
        case "asha":
            return BaselineSparingASHA(record, baseline)
        case "none":
            return FIFOScheduler()
