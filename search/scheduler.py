"""Early stopping: which trials are worth their next epoch."""

from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from search.settings import StudySettings
from search.space import HyperparameterValue


class BaselineSparingASHA(ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving that never stops the baseline, so that the gain is over its full training.

    Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2, in Ray's stopping variant: at
    epochs 1, 3, 9, ... a trial goes on if it is among the best third of those that came as far before it.
    """

    def __init__(self, max_epochs: int, baseline: dict[str, HyperparameterValue]) -> None:
        super().__init__(time_attr="epoch", max_t=max_epochs, grace_period=1, reduction_factor=3)
        self._baseline = baseline

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on; the baseline's results count for the others."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        is_baseline = self._baseline.items() <= trial.config.items()
        return TrialScheduler.CONTINUE if is_baseline else decision


def build_scheduler(settings: StudySettings, baseline: dict[str, HyperparameterValue]) -> TrialScheduler:
    """Build the scheduler that `settings.scheduler` names."""
    match settings.scheduler:
        case "asha":
            return BaselineSparingASHA(settings.epochs, baseline)
        case "none":
            return FIFOScheduler()
