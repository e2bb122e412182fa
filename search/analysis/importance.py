"""The importance of each hyperparameter for reaching the best values, with an interval."""

import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.analysis.equal_budget import EqualBudget
from search.space.search_space import Point, SearchSpace
from training.metrics import CONFIDENCE

TARGET_QUANTILE = 0.1
"""The evaluator explains how trials get into this best part of all trials; the value is its default."""
FEWEST_TARGETS = 5
"""The best part has at least this number of trials, as the documentation of the evaluator recommends."""
EVALUATOR = (
    f"PED-ANOVA of Optuna (Watanabe et al. 2023), target quantile {TARGET_QUANTILE}, "
    f"but at least {FEWEST_TARGETS} trials"
)
RESAMPLES = 100
"""Number of resampled studies, which give the intervals."""
MOST_TRIALS = 200
"""At most this number of random trials is evaluated: more make the resamples slow and the intervals little shorter."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """How much a hyperparameter decides whether a trial is among the best, as a share of all hyperparameters."""

    name: str
    share: float
    """In [0, 1]; the shares of all hyperparameters add up to 1."""
    low: float
    """Lower bound of the bootstrap interval over trials, in [0, 1]."""
    high: float


def importances(compared: EqualBudget, space: SearchSpace, seed: int = 0) -> list[Importance]:
    """Evaluate the hyperparameters of a space, most important first; an empty list says that all values are equal.

    PED-ANOVA compares where the best trials lie with where all trials lie (Watanabe, Bansal, Hutter 2023, "PED-ANOVA:
    Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", IJCAI): a hyperparameter is important if
    only some of its values are found among the best trials.
    """
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(compared.trials))[:MOST_TRIALS]
    costs = np.array([compared.costs[index] for index in chosen])
    if costs.min() == costs.max():
        return []
    points = [compared.trials[index].hyperparameters for index in chosen]
    trials = _optuna_trials(space, points, costs)
    divergences = _divergences(space, trials)
    resamples = random.integers(len(costs), size=(RESAMPLES, len(costs)))
    resampled = [_divergences(space, [trials[index] for index in sample]) for sample in resamples]
    tail = (100 - CONFIDENCE) / 2
    lows, highs = np.percentile(list(map(_shares, resampled)), [tail, 100 - tail], axis=0)
    rows = zip(space, _shares(divergences), lows, highs, strict=True)
    found = [
        Importance(name, float(share), float(min(low, share)), float(max(high, share)))
        for name, share, low, high in rows
    ]
    return sorted(found, key=lambda importance: -importance.share)


def _divergences(space: SearchSpace, trials: list[FrozenTrial]) -> Numbers:
    """How differently the best trials and all trials are distributed, for each hyperparameter; shape (names,)."""
    quantile = max(TARGET_QUANTILE, min(FEWEST_TARGETS / len(trials), 0.5))
    with warnings.catch_warnings(action="ignore"):  # a resample may have only one value
        found = PedAnovaImportanceEvaluator(target_quantile=quantile).evaluate(_Trials(trials), [*space])
    return np.array([found[name] for name in space])


def _shares(divergences: Numbers) -> Numbers:
    total = divergences.sum()
    return divergences / total if total > 0 else np.full(len(divergences), 1 / len(divergences))


def _optuna_trials(space: SearchSpace, points: Sequence[Point], costs: Numbers) -> list[FrozenTrial]:
    """Trials in the form that Optuna's evaluators read; they are made once for all resamples."""
    return [
        FrozenTrial(
            number=number,
            state=TrialState.COMPLETE,
            value=float(cost),
            datetime_start=None,
            datetime_complete=None,
            params=dict(point),
            # a trial that was imported may lack a hyperparameter that is active
            distributions={name: one for name, one in space.optuna_distributions(point).items() if name in point},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=number,
        )
        for number, (point, cost) in enumerate(zip(points, costs, strict=True))
    ]


class _Trials(optuna.Study):
    """A study with these trials, which is nowhere stored."""

    directions = (StudyDirection.MINIMIZE,)  # type: ignore[assignment]

    def __init__(self, trials: list[FrozenTrial]) -> None:
        self._trials = trials

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:  # noqa: ARG002
        """All of the trials, which have ended."""
        return self._trials
