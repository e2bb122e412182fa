"""Which configuration is tried next: Optuna's sampler draws, and what is known to be of no use is drawn again."""

import copy
import math
import warnings
from collections.abc import Container
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.settings import SamplerName
from search.space.distributions import HyperparameterValue, optuna_distribution, snap
from search.space.encoding import SpaceEncoding
from search.space.search_space import Point, SearchSpace, contains, distance, num_points, ranges_of

MAX_DRAWS = 20
"""How often one proposal is drawn before the last draw stands."""


def tpe(seed: int, startup_trials: int = 5) -> TPESampler:
    """Tree-structured Parzen estimator.

    Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4; multivariate as in Falkner et al.
    2018 (BOHB). Every option is explicit, because Optuna 5 changed the defaults.
    """
    return TPESampler(
        n_startup_trials=startup_trials,
        n_ei_candidates=24,
        multivariate=True,
        constant_liar=True,
        seed=seed,
    )


def gaussian_process(seed: int) -> GPSampler:
    """Gaussian process, Matern 5/2, with the expected improvement over the best trial.

    Snoek et al. 2012, "Practical Bayesian Optimization of Machine Learning Algorithms", section 2.
    """
    with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
        return GPSampler(n_startup_trials=5, deterministic_objective=False, seed=seed)


def sobol(seed: int) -> QMCSampler:
    """Scrambled Sobol sequence, which fills the space more evenly than chance (quasi-Monte Carlo).

    Bergstra and Bengio 2012, "Random Search for Hyper-Parameter Optimization", section 4.
    """
    with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
        return QMCSampler(qmc_type="sobol", scramble=True, seed=seed)


def build_sampler(name: SamplerName, seed: int, trials_so_far: int) -> BaseSampler:
    """Build a sampler of Optuna's for a study that has so many trials: it draws on, not the same again."""
    match name:
        case "tpe":
            return tpe(seed + trials_so_far)
        case "random":
            return RandomSampler(seed + trials_so_far)
        case "gp":
            return gaussian_process(seed + trials_so_far)
        case "qmc":
            return sobol(seed)  # the record knows how far the sequence has come


class _AsSeen:
    """A study as a sampler of Optuna's is to see it: failed trials are the worst there are.

    They look like trials that were pruned before their first report. A Gaussian process learns from completed trials
    alone, and to it all that have ended look like those: with the best value that they reached, or the worst of all.
    Where hyperparameters have conditions, they look as `SpaceEncoding` says.
    """

    def __init__(self, study: Study, encoding: SpaceEncoding | None, completed: bool) -> None:
        self._study = study
        self._encoding = encoding
        self._completed = completed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What Optuna's samplers ask a study for.

        A study in memory with such trials would be the public way: it takes 12 ms to make at 300 trials, 68 at 1,000.
        """
        trials = self._study._get_trials(deepcopy=deepcopy, use_cache=use_cache)
        seen = [_pruned(trial) if trial.state == TrialState.FAIL and trial.params else trial for trial in trials]
        if self._completed:
            seen = _completed(seen, self._study.direction)
        if self._encoding:
            seen = [_with_draws(trial, self._encoding) if trial.params else trial for trial in seen]
        return seen if states is None else [trial for trial in seen if trial.state in states]


def _pruned(trial: FrozenTrial) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.state, seen.intermediate_values = TrialState.PRUNED, {}
    return seen


def _completed(trials: list[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    best, worst = (max, min) if direction == StudyDirection.MAXIMIZE else (min, max)
    measured = {trial.number: [*trial.intermediate_values.values(), *(trial.values or [])] for trial in trials}
    reached = {number: best(values) for number, values in measured.items() if values}
    return [
        _with_value(trial, reached.get(trial.number, worst(reached.values())))
        if trial.state == TrialState.PRUNED and reached
        else trial
        for trial in trials
    ]


def _with_draws(trial: FrozenTrial, encoding: SpaceEncoding) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.params, seen.distributions = encoding.draws(trial.params, trial.number), encoding.optuna_distributions
    return seen


def _with_value(trial: FrozenTrial, value: float) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.state, seen.value = TrialState.COMPLETE, value
    return seen


class StudySampler(BaseSampler):
    """Draws whole points from a sampler of Optuna's; no point is proposed twice, and where trials fail few are.

    Optuna's samplers know nothing of trials that failed, and have no memory of points in a finite space. Here they see
    failed trials as the worst there are, and a draw is repeated while it is a known point, or while the trial nearest
    to it failed. They draw from a `SpaceEncoding`, which knows what their draws stand for.
    """

    def __init__(self, space: SearchSpace, drawn_by: BaseSampler) -> None:
        self._space = space
        self._encoding = SpaceEncoding(space)
        self._drawn_by = drawn_by
        self._knows_failures = isinstance(drawn_by, GPSampler)
        """It takes failures for bad values, keeps away by itself, and would give the same when asked again."""
        self._inside: dict[int, bool] = {}
        """By number of a trial that has ended, whether the space holds its point; all are looked at for each draw."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """The whole space: points are drawn as wholes, from the first trial on."""
        if trial.params or "fixed_params" in trial.system_attrs:  # it is queued
            return {}
        return {name: optuna_distribution(ranges_of(self._space, name)[0]) for name in self._space}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Point:
        """Draw a point."""
        if not search_space:
            return {}
        trials = [earlier for earlier in study.get_trials(deepcopy=False) if self._is_inside(earlier)]
        proposed = {self._key(earlier.params) for earlier in trials if "warm_start" not in earlier.user_attrs}
        for _ in range(1 if self._knows_failures else MAX_DRAWS):
            point = self._draw(study, trial)
            useless = not self._knows_failures and self._fails_nearby(point, trials)
            if self._key(point) not in proposed and not useless:
                return point
        return point if self._key(point) not in proposed else self._another(point, proposed)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one hyperparameter by itself: what a queued point leaves open."""
        draw = self._drawn_by.sample_independent(study, trial, param_name, param_distribution)
        return snap(self._space.searched(trial.params)[param_name], draw)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on what Optuna tells its samplers."""
        self._drawn_by.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Pass on what Optuna tells its samplers."""
        self._drawn_by.after_trial(study, trial, state, values)

    def _draw(self, study: Study, trial: FrozenTrial) -> Point:
        encoding = self._encoding.optuna_distributions
        seen: Any = _AsSeen(
            study, self._encoding if self._space.is_conditional else None, completed=self._knows_failures
        )
        draws = self._drawn_by.sample_relative(seen, trial, encoding)  # none of them, while it knows too little
        for name, drawn_from in encoding.items():
            if name not in draws:
                draws[name] = self._drawn_by.sample_independent(seen, trial, name, drawn_from)
        return self._encoding.point(draws)

    def _is_inside(self, trial: FrozenTrial) -> bool:
        if trial.number not in self._inside:
            inside = contains(self._space, trial.params)
            if not trial.state.is_finished():
                return inside
            self._inside[trial.number] = inside
        return self._inside[trial.number]

    def _fails_nearby(self, point: Point, trials: list[FrozenTrial]) -> bool:
        """Whether the nearest of the trials that have ended failed."""
        ended = [trial for trial in trials if trial.state.is_finished()]
        if not any(trial.state == TrialState.FAIL for trial in ended):
            return False
        nearest = min(ended, key=lambda trial: distance(self._space, point, trial.params))
        return nearest.state == TrialState.FAIL

    def _another(self, point: Point, proposed: set[tuple[HyperparameterValue | None, ...]]) -> Point:
        """The nearest point that was not proposed yet; the given one if there is none, or no end of them."""
        if num_points(self._space) == math.inf:
            return point
        left = [candidate for candidate in self._space.points() if self._key(candidate) not in proposed]
        return min(left, key=lambda candidate: distance(self._space, point, candidate), default=point)

    def _key(self, point: Point) -> tuple[HyperparameterValue | None, ...]:
        return tuple(point.get(name) for name in self._space)
