"""Ray's `OptunaSearch` over the record of the study: the proposals are Optuna's, the bookkeeping is ours."""

from pathlib import Path
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial
from ray.tune.search.optuna import OptunaSearch

from search.record import StudyRecord
from search.space import OrderedChoice, SearchSpace, distributions


class SpaceSampler(TPESampler):
    """Tree-structured Parzen estimator whose draws for ordered choices go to the nearest member.

    Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4; multivariate as in Falkner et al.
    2018 (BOHB). Every option is explicit, because Optuna 5 changed the defaults.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(n_startup_trials=5, n_ei_candidates=24, multivariate=True, constant_liar=True, seed=seed)
        self._space = space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw all hyperparameters together, once there are enough finished trials to learn from."""
        draws = super().sample_relative(study, trial, search_space)
        return {name: self._nearest(name, draw) for name, draw in draws.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one hyperparameter by itself: the random start."""
        return self._nearest(param_name, super().sample_independent(study, trial, param_name, param_distribution))

    def _nearest(self, name: str, draw: Any) -> Any:
        dimension = self._space[name]
        return dimension.nearest(draw) if isinstance(dimension, OrderedChoice) else draw


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """Proposes configurations for Ray's trials and records each proposal.

    What trials report and how they end goes to the record by way of a callback (`search/study.py`), because Ray shows
    callbacks every report, the one that stops a trial and the reason of a failure, and a searcher neither.
    """

    def __init__(self, record: StudyRecord, space: SearchSpace, seed: int) -> None:
        super().__init__(
            space=distributions(space),
            metric=record.metric,
            mode=record.mode,
            sampler=SpaceSampler(space, seed + len(record.trials)),  # a resumed study draws on, not the same again
            study_name=record.study.study_name,
            storage=record.storage,
        )
        self._record = record
        self._first_seed = seed

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Propose the next configuration, an interrupted one first.

        Returns:
            The searched hyperparameters and the seed, which are fields of `TrialConfig`; and what a worker needs to go
            on with a trial, `checkpoint` (a path) and `epochs_recorded`.
        """
        super().suggest(trial_id)
        proposal = self._ot_trials.pop(trial_id)
        trial = self._record.start(trial_id, proposal, self._first_seed + proposal.number)
        return {
            **trial.hyperparameters,
            "seed": trial.seed,
            "checkpoint": str(self._record.checkpoint(trial)),
            "epochs_recorded": len(trial.epochs),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the callback records reports."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback records the end."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the record is `study.db`, and Ray's own snapshots are never read."""
        Path(checkpoint_path).touch()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles the searcher into its scratch folder
