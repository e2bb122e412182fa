"""Ray's `OptunaSearch` over the record of a study: Optuna proposes the trials, the record stores them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from search.algorithms.memory_prediction import MemoryLimit
from search.algorithms.promotion import Promotion
from search.algorithms.samplers import StudySampler
from search.algorithms.stopping import StudyStopper
from search.record.study_record import StudyRecord
from search.space.distributions import HyperparameterValue, optuna_distribution
from search.space.search_space import num_points
from training.console.terminal import counted


class SearchAlgorithm(OptunaSearch):  # type: ignore[misc]
    """Proposes configurations for Ray's trials until enough of them have ended, and records each proposal.

    A callback (`search/engine/recording_callback.py`) records what trials report and how they end: Ray passes every
    report and the reason of a failure to callbacks, but not to a search algorithm. A trial that goes on after an
    interruption, or because its worker died, waits in the record and is proposed first.
    """

    def __init__(
        self,
        record: StudyRecord,
        sampler: BaseSampler,
        *,
        seed: int,
        num_ended: int | None = None,
        stopper: StudyStopper,
        before_proposal: Callable[[], None] = lambda: None,
        memory_limit: MemoryLimit | None = None,
    ) -> None:
        """Prepare the search.

        Args:
            record: The record of the study.
            sampler: The sampler of Optuna's that proposes points.
            seed: The seed of the study; trial N trains with seed + N unless it was enqueued with a seed.
            num_ended: When this many trials have ended, nothing more is proposed; None for `num_samples`, which may
                change meanwhile.
            stopper: Decides whether the study ends earlier.
            before_proposal: Is called whenever Ray asks for a proposal, also while the study is paused.
            memory_limit: What is known of the memory that a trial can have.
        """
        space = record.space
        self._study_sampler = StudySampler(space, sampler, memory_limit)
        super().__init__(
            space={name: optuna_distribution(distribution) for name, distribution in space.items()},
            metric=record.metric,
            mode=record.mode,
            sampler=self._study_sampler,
            study_name=record.study.study_name,
            storage=record.storage,
        )
        self._record = record
        self._first_seed = seed
        self._num_ended = num_ended
        self._space_searched = space
        self._num_points = num_points(space)
        self._stopper = stopper
        self._before_proposal = before_proposal

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Propose the next configuration.

        Returns:
            The `hyperparameters`, searched and fixed, by name; the `seed` and the `number` of the trial; its `folder`
            and its `checkpoint` (paths), `epochs_recorded` and their lowest cost `best` (or None), from which a worker
            goes on; the address of the `store` of the checkpoints with the study's folder in it (or None);
            `nodes_avoided`, Ray's ids of the nodes on which it must not run. None while the running trials decide if
            more are needed, and while no trial may begin; `FINISHED` when the study is over, after which Ray asks no
            more.
        """
        self._before_proposal()
        running = self._record.running_ids()
        if self._stopper.starts_no_trial():
            return None if running else str(Searcher.FINISHED)  # a user may give the study more time meanwhile
        nothing_left = self.nothing_left()
        promotion = self._promotion()
        if not self._stopper.has_room(len(running)) and (running or promotion or not nothing_left):
            return None
        promotes = promotion is not None and promotion.promote(self._record, all_begun=nothing_left)
        if nothing_left and not promotes:
            return None if running else str(Searcher.FINISHED)
        return self._record.change(lambda: self._propose(trial_id))

    def _propose(self, trial_id: str) -> dict[str, Any]:
        proposal = self._ot_study.ask()
        self._space_searched.build_point(
            lambda name, distribution: suggest_value(proposal, name, optuna_distribution(distribution))
        )
        seed, redrawn = self._first_seed + proposal.number, self._study_sampler.redrawn
        trial = self._record.start(trial_id, proposal, seed, redrawn=redrawn)
        return {
            "hyperparameters": self._space_searched.add_fixed(trial.hyperparameters),
            "seed": trial.seed,
            "number": trial.number,
            "checkpoint": str(self._record.checkpoints.file(trial.number)),
            "folder": str(self._record.checkpoints.trial_folder(trial.number)),
            "store": self._record.metadata.store,
            "epochs_recorded": len(trial.epochs),
            "nodes_avoided": sorted(self._stopper.nodes_avoided),
            "best": self._record.objective.minimized(trial.best_epoch) if trial.best_epoch else None,
        }

    def _promotion(self) -> Promotion | None:
        """Which paused trials continue, by the settings as they are now."""
        settings = self._record.metadata.settings
        return Promotion(settings) if settings.scheduler == "promotion" else None

    def nothing_left(self) -> bool:
        """Whether enough trials have ended or run, or every point of the space has been tried."""
        waiting = self._record.standings.counts["interrupted"]
        searches = self._record.metadata.plan is None  # a confirmation repeats configurations with other seeds
        self._stopper.exhausted = None
        if searches and waiting == 0 and self._has_all_points() and not self._record.queued():
            self._stopper.exhausted = (
                f"The search space has {counted(int(self._num_points), 'point')}, and every one has been tried."
            )
            return True
        num_ended = self._record.num_samples if self._num_ended is None else self._num_ended
        return self._record.standings.num_trials - waiting >= num_ended

    def _has_all_points(self) -> bool:
        """Whether every point of the space has been tried; trials are only counted until there may be enough."""
        if self._record.standings.num_trials < self._num_points:
            return False
        return len({tuple(trial.hyperparameters.items()) for trial in self._record.trials}) >= self._num_points

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the callback records reports."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the callback records the end."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the record is the study's own, and Ray's snapshots are never read."""
        Path(checkpoint_path).touch()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles the searcher into its scratch folder


def suggest_value(trial: Trial, name: str, distribution: BaseDistribution) -> HyperparameterValue:
    """Have Optuna suggest a value from a distribution."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)  # type: ignore[return-value]
    raise AssertionError(f"Optuna has no {distribution}")
