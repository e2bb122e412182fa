"""Samples the next configuration with Optuna's samplers, and again if that one is known or likely to fail."""

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

from search.record.reading import is_paused
from search.settings import SamplerName
from search.space.distributions import HyperparameterValue, optuna_distribution, snap
from search.space.encoding import SpaceEncoding
from search.space.search_space import Point, SearchSpace, contains, distance, distributions_of, num_points

MAX_SAMPLES = 20
"""A configuration is sampled again at most this number of times; then the last sample is proposed."""


def tpe(seed: int, startup_trials: int = 5) -> TPESampler:
    """Tree-structured Parzen estimator.

    Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4; multivariate as in Falkner et al.
    2018 (BOHB). Every option is explicit, because Optuna 5 changed the defaults.
    """
    return TPESampler(
        n_startup_trials=startup_trials, n_ei_candidates=24, multivariate=True, constant_liar=True, seed=seed
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
    """Build a sampler of Optuna's; a resumed study with `trials_so_far` trials gets other samples than before."""
    match name:
        case "tpe":
            return tpe(seed + trials_so_far)
        case "random":
            return RandomSampler(seed + trials_so_far)
        case "gp":
            return gaussian_process(seed + trials_so_far)
        case "qmc":
            return sobol(seed)  # the record knows how far the sequence has come


class _SampledStudy:
    """A study as a sampler of Optuna's sees it: paused trials are pruned, and failed trials are the worst trials.

    These look like trials that were pruned before their first report. A Gaussian process learns from completed trials
    only; for it, every pruned trial looks completed, with the best value that it reached, or else with the worst value
    of the study. With conditional hyperparameters, the trials look as `SpaceEncoding` says.
    """

    def __init__(self, study: Study, encoding: SpaceEncoding | None, *, completed: bool) -> None:
        self._study = study
        self._encoding = encoding
        self._completed = completed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Overrides the private method by which Optuna's samplers read the trials.

        The public way, a study in memory with the changed trials, takes 12 ms a proposal at 300 trials, 68 at 1,000.
        """
        trials = list(map(_as_pruned, self._study._get_trials(deepcopy=deepcopy, use_cache=use_cache)))
        if self._completed:
            trials = _complete_pruned(trials, self._study.direction)
        if encoding := self._encoding:
            trials = [
                _changed(
                    trial,
                    params=encoding.encode(trial.params, trial.number),
                    distributions=encoding.optuna_distributions,
                )
                if trial.params
                else trial
                for trial in trials
            ]
        return trials if states is None else [trial for trial in trials if trial.state in states]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """A paused trial, or one that failed, as if it were pruned; others as they are."""
    if is_paused(trial):
        return _changed(trial, state=TrialState.PRUNED)
    if trial.state == TrialState.FAIL and trial.params:
        return _changed(trial, state=TrialState.PRUNED, intermediate_values={})
    return trial


def _complete_pruned(trials: list[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    best, worst = (max, min) if direction == StudyDirection.MAXIMIZE else (min, max)
    measured = {trial.number: [*trial.intermediate_values.values(), *(trial.values or [])] for trial in trials}
    reached = {number: best(values) for number, values in measured.items() if values}
    return [
        _changed(trial, state=TrialState.COMPLETE, value=reached.get(trial.number, worst(reached.values())))
        if trial.state == TrialState.PRUNED and reached
        else trial
        for trial in trials
    ]


def _changed(trial: FrozenTrial, **attributes: Any) -> FrozenTrial:
    """A copy of a trial with other attributes."""
    changed = copy.copy(trial)
    for name, value in attributes.items():
        setattr(changed, name, value)
    return changed


class StudySampler(BaseSampler):
    """Samples whole points with a sampler of Optuna's; no point is proposed twice, and few where trials fail.

    Optuna's samplers ignore failed trials, and do not remember the points of a finite space. Here they see failed
    trials as the worst trials, and a point is sampled again if it was proposed before, or if the trial nearest to it
    failed. They sample from a `SpaceEncoding`, which decodes their samples.
    """

    def __init__(self, space: SearchSpace, sampler: BaseSampler) -> None:
        self._space = space
        self._encoding = SpaceEncoding(space)
        self._sampler = sampler
        self._learns_failures = isinstance(sampler, GPSampler)
        """Whether the sampler keeps away from failed trials by itself; it would repeat its sample when asked again."""
        self._inside: dict[int, bool] = {}
        """By number of an ended trial, whether the space contains its point; a cache, because each sample needs it."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """The whole space: points are sampled as wholes, from the first trial on."""
        if trial.params or "fixed_params" in trial.system_attrs:  # it is queued
            return {}
        return {name: optuna_distribution(distributions_of(self._space, name)[0]) for name in self._space}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Point:
        """Sample a point."""
        if not search_space:
            return {}
        trials = [earlier for earlier in study.get_trials(deepcopy=False) if self._is_inside(earlier)]
        proposed = {self._key(earlier.params) for earlier in trials if "warm_start" not in earlier.user_attrs}
        for _ in range(1 if self._learns_failures else MAX_SAMPLES):
            point = self._sample_point(study, trial)
            is_known = self._key(point) in proposed
            if not is_known and (self._learns_failures or not self._nearest_failed(point, trials)):
                return point
        return self._nearest_new_point(point, proposed) if is_known else point

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one hyperparameter by itself, which a queued point does not contain."""
        sample = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return snap(self._space.searched(trial.params)[param_name], sample)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Call the same method of Optuna's sampler."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Call the same method of Optuna's sampler."""
        self._sampler.after_trial(study, trial, state, values)

    def _sample_point(self, study: Study, trial: FrozenTrial) -> Point:
        distributions = self._encoding.optuna_distributions
        sampled_study: Any = _SampledStudy(
            study, self._encoding if self._encoding.is_needed else None, completed=self._learns_failures
        )
        # an empty dictionary while the sampler knows too few trials
        sample = self._sampler.sample_relative(sampled_study, trial, distributions)
        for name, distribution in distributions.items():
            if name not in sample:
                sample[name] = self._sampler.sample_independent(sampled_study, trial, name, distribution)
        return self._encoding.decode(sample)

    def _is_inside(self, trial: FrozenTrial) -> bool:
        if trial.number not in self._inside:
            inside = contains(self._space, trial.params)
            if not trial.state.is_finished():
                return inside
            self._inside[trial.number] = inside
        return self._inside[trial.number]

    def _nearest_failed(self, point: Point, trials: list[FrozenTrial]) -> bool:
        """Whether the nearest of the trials that have ended, or are paused, failed."""
        ended = [trial for trial in trials if trial.state.is_finished() or is_paused(trial)]
        if not any(trial.state == TrialState.FAIL for trial in ended):
            return False
        nearest = min(ended, key=lambda trial: distance(self._space, point, trial.params))
        return nearest.state == TrialState.FAIL

    def _nearest_new_point(self, point: Point, proposed: set[tuple[HyperparameterValue | None, ...]]) -> Point:
        """The nearest point that was not proposed yet; `point` itself if there is none, or if the space is infinite."""
        if num_points(self._space) == math.inf:
            return point
        new_points = [candidate for candidate in self._space.points() if self._key(candidate) not in proposed]
        return min(new_points, key=lambda candidate: distance(self._space, point, candidate), default=point)

    def _key(self, point: Point) -> tuple[HyperparameterValue | None, ...]:
        return tuple(point.get(name) for name in self._space)
