"""An imported trial as a record stores it: as if it had been run here, without what its source does not have."""

from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from search.record.trial import OPTUNA_STATE, TrialRecord, timed_json
from search.space.distributions import optuna_distribution
from search.space.search_space import SearchSpace


def stored_trial(trial: TrialRecord, space: SearchSpace) -> FrozenTrial:
    """The trial in Optuna's study; one that had not ended waits there, and is read back as interrupted."""
    attributes: dict[str, Any] = {"ray_trial_id": trial.trial_id}
    optional = {"seed": trial.known_seed, "whole_seconds": trial.whole_seconds}
    attributes |= {name: value for name, value in optional.items() if value is not None}
    attributes |= {f"epoch {metrics.epoch}": timed_json(metrics, None) for metrics in trial.epochs}
    if trial.ended_by_itself:
        attributes["ended_by_itself"] = True
    if trial.has_ended:
        attributes["status"] = trial.status
    if trial.failure:
        attributes["failure"] = timed_json(trial.failure, None)
    value = trial.best_value if trial.status == "completed" and trial.best_epoch else None
    if trial.status == "stopped_early":
        value = next(reversed(trial.curve.values()), None)
    return create_trial(
        state=OPTUNA_STATE.get(trial.status, TrialState.WAITING),
        value=value,
        params=dict(trial.hyperparameters),
        distributions={name: optuna_distribution(space[name]) for name in trial.hyperparameters},
        intermediate_values=trial.curve,
        user_attrs=attributes,
    )
