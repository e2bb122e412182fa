"""Ray's `OptunaSearch` over the record of the study: the proposals are Optuna's, the bookkeeping is ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from search.algorithms.samplers import StudySampler
from search.algorithms.stopping import Ending
from search.record.study_record import StudyRecord
from search.space.distributions import distribution
from search.space.search_space import Point, SearchSpace, num_points

NextRound = Callable[[StudyRecord], bool]
"""Enqueues more trials when all others have ended; says whether there are any."""


def no_next_round(record: StudyRecord) -> bool:  # noqa: ARG001
    """A search has none."""
    return False


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """Proposes configurations for Ray's trials until as many as wanted have ended, and records each proposal.

    What trials report and how they end goes to the record by way of a callback (`search/engine/tuner.py`), because Ray
    shows callbacks every report, the one that stops a trial and the reason of a failure, and a searcher neither. A
    trial that is to go on, after an interruption or because its worker died, waits in the record and is proposed first.
    """

    def __init__(
        self,
        record: StudyRecord,
        space: SearchSpace,
        drawn_by: BaseSampler,
        *,
        seed: int,
        num_samples: int,
        ending: Ending,
        next_round: NextRound = no_next_round,
    ) -> None:
        super().__init__(
            space={name: distribution(dimension) for name, dimension in space.items()},
            metric=record.metric,
            mode=record.mode,
            sampler=StudySampler(space, drawn_by),
            study_name=record.study.study_name,
            storage=record.storage,
        )
        self._record = record
        self._first_seed = seed
        self._num_samples = num_samples
        self._space_searched = space
        self._num_points = num_points(space)
        self._ending = ending
        self._next_round = next_round

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Propose the next configuration.

        Returns:
            The hyperparameters, searched and fixed, and the seed, which are fields of the trial's configuration; the
            `number` of the trial; and
            what a worker needs to go on with it, `checkpoint` (a path) and `epochs_recorded`. None while the running
            trials decide whether more are needed; `FINISHED` when the study is over.
        """
        if self._ending.wants_no_more_trials():
            return str(Searcher.FINISHED)
        if self._nothing_left():
            if self._record.running_ids():
                return None
            if not self._next_round(self._record):
                return str(Searcher.FINISHED)
        return self._record.change(lambda: self._propose(trial_id))

    def _propose(self, trial_id: str) -> dict[str, Any]:
        proposal = self._ot_study.ask()
        point: Point = {}
        for name in self._space_searched.order:
            if name in (searched := self._space_searched.searched(point)):
                point[name] = proposal._suggest(name, distribution(searched[name]))
        trial = self._record.start(trial_id, proposal, self._first_seed + proposal.number)
        return {
            **self._space_searched.with_fixed(trial.hyperparameters),
            "seed": trial.seed,
            "number": trial.number,
            "checkpoint": str(self._record.checkpoint(trial)),
            "epochs_recorded": len(trial.epochs),
        }

    def _nothing_left(self) -> bool:
        """Whether the trials that have ended or run are all that are wanted, or all that the space holds."""
        trials = self._record.trials
        waiting = sum(trial.status == "interrupted" for trial in trials)
        planned = self._record.trainings_planned
        if planned is not None:  # configurations are repeated, from other seeds
            return len(trials) - waiting >= planned
        if waiting == 0 and len({tuple(trial.hyperparameters.values()) for trial in trials}) >= self._num_points:
            self._ending.exhausted = f"All {self._num_points} points of the search space have been tried."
            return True
        return len(trials) - waiting >= self._num_samples

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the callback records reports."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback records the end."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the record is the study's own, and Ray's snapshots are never read."""
        Path(checkpoint_path).touch()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles the searcher into its scratch folder
