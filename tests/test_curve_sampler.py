"""The sampler that predicts where learning curves end, on formulas."""

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from search.algorithms import curve_sampler
from search.algorithms.curve_model import CurveModel, Observations, warp
from search.algorithms.curve_sampler import CurveSampler
from search.algorithms.samplers import StudySampler
from search.space.encoding import SpaceEncoding
from search.space.search_space import SearchSpace

SPACE = SearchSpace({"rate": FloatDistribution(1e-4, 1.0, log=True), "kind": CategoricalDistribution(["a", "b"])})
EPOCHS = 9
Curve = Callable[[float, str, int], float]
"""The cost for a rate as its unit value, a kind and an epoch."""


def test_end_of_a_curve_is_predicted_from_its_beginning_and_from_other_curves() -> None:
    random = np.random.default_rng(0)
    places, heights = random.random((24, 2)), random.normal(0.0, 0.3, 24)
    epochs = np.array([1, 3, 9])
    ends = (places[:, 0] - 0.4) ** 2 + 0.2 * heights
    rows = [(number, epoch) for number in range(24) for epoch in epochs if epoch == 1 or number < 12]
    costs = np.array([ends[number] + (0.2 + 0.5 * places[number, 0]) / epoch for number, epoch in rows])
    numbers = np.array([number for number, _ in rows])
    times = np.log1p([epoch for _, epoch in rows]) / math.log1p(9)
    model = CurveModel(2)
    model.fit(Observations(places[numbers], times, numbers), costs)
    begun = np.arange(12, 24)
    mean, deviation = model.predict(Observations(places[begun], np.ones(12), begun))
    truth = ends[begun] + (0.2 + 0.5 * places[begun, 0]) / 9
    assert np.abs(mean - truth).mean() < 0.5 * np.abs(truth - truth.mean()).mean()
    assert (np.abs(mean - truth) < 3 * deviation).mean() > 0.9
    known = model.predict(Observations(places[:12], np.ones(12), np.arange(12)))[1]
    assert known.max() < deviation.min()


def test_warped_costs_keep_their_order_and_are_finite() -> None:
    costs = np.array([3.0, math.inf, 1.0, 1e9, 2.0])
    assert np.argsort(warp(costs)).tolist() == [2, 4, 0, 3, 1]
    assert warp(costs)[2] == 0.0
    assert np.isfinite(warp(costs)).all()


def proposals(curve: Curve, *, number: int, epochs_of: Callable[[int], int], seconds: Curve | None = None) -> list[str]:
    """Run a study, each trial for some epochs; returns the later proposals: the kind, and tenths of the unit value."""

    def epoch_seconds(trial: FrozenTrial) -> float | None:
        return seconds(_unit(trial), str(trial.params["kind"]), 1) if seconds else None

    study = optuna.create_study(sampler=StudySampler(SPACE, CurveSampler(0, EPOCHS, epoch_seconds)))
    chosen = []
    for trial_number in range(number):
        trial = study.ask(SpaceEncoding(SPACE).optuna_distributions)
        unit, kind = _unit(trial), str(trial.params["kind"])
        chosen.append(f"{kind}{int(10 * unit)}")
        epochs = epochs_of(trial_number)
        for epoch in range(1, epochs + 1):
            trial.report(curve(unit, kind, epoch), epoch)
        if epochs == EPOCHS:
            study.tell(trial, curve(unit, kind, epochs))
        else:
            study.tell(trial, state=TrialState.PRUNED)
    return chosen[number // 2 :]


def _unit(trial: optuna.Trial | FrozenTrial) -> float:
    return math.log10(trial.params["rate"] / 1e-4) / 4


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_configurations_that_only_begin_well_are_left_alone() -> None:
    """High rates are the best after an epoch, low ones at the end; only every third trial is trained so far."""

    def crossing(unit: float, kind: str, epoch: int) -> float:
        progress = math.log(epoch) / math.log(EPOCHS)
        return (1 - progress) * (1 - unit) + progress * (unit - 0.2) ** 2 * 4 + 0.1 * (kind == "b")

    later = proposals(crossing, number=30, epochs_of=lambda number: EPOCHS if number % 3 == 0 else 1)
    assert sum(proposal in ("a1", "a2", "a3") for proposal in later) >= 10


@pytest.mark.parametrize(("factor", "cheap"), [(1.0, (3, 12)), (30.0, (11, 15))])
def test_cheap_configurations_are_tried_first_where_they_are_as_good(factor: float, cheap: tuple[int, int]) -> None:
    """The two kinds reach the same; with the same costs none is preferred."""

    def curve(unit: float, kind: str, epoch: int) -> float:
        return (unit - (0.3 if kind == "a" else 0.7)) ** 2 + 1 / epoch

    def seconds(unit: float, kind: str, epoch: int) -> float:
        return factor if kind == "b" else 1.0

    later = proposals(curve, number=30, epochs_of=lambda _: EPOCHS, seconds=seconds)
    assert cheap[0] <= sum(proposal.startswith("a") for proposal in later) <= cheap[1]


def with_prior(prior: dict[str, Any], *, number: int, seed: int) -> list[tuple[float, str]]:
    """Unit values and kinds of a study's trials; the best are a rate of 0.7 and kind b."""
    sampler = StudySampler(SPACE, CurveSampler(seed, EPOCHS, lambda _: None, prior))
    study = optuna.create_study(sampler=sampler)
    for _ in range(number):
        trial = study.ask(SpaceEncoding(SPACE).optuna_distributions)
        cost = (_unit(trial) - 0.7) ** 2 + 0.1 * (trial.params["kind"] == "a")
        trial.report(cost, EPOCHS)
        study.tell(trial, cost)
    return [(_unit(trial), trial.params["kind"]) for trial in study.trials]


def test_values_that_the_user_expects_to_be_good_are_tried_first() -> None:
    near = {}
    for rate in (10**-1.2, None):
        prior = {} if rate is None else {"rate": rate}
        units = [unit for seed in range(16) for unit, _ in with_prior(prior, number=6, seed=seed)[1::2]]
        near[rate] = sum(abs(unit - 0.7) < 0.2 for unit in units)  # of 48; the others are drawn from the whole space
    assert near[10**-1.2] > 1.3 * near[None]


@pytest.mark.parametrize("prior", [{"rate": 1e-4}, {"rate": 1e-4, "kind": "a"}, {"kind": "a"}], ids=str)
def test_wrong_expectation_is_given_up(prior: dict[str, Any]) -> None:
    for seed in range(4):
        later = with_prior(prior, number=24, seed=seed)[16:]
        assert sum(abs(unit - 0.7) < 0.1 and kind == "b" for unit, kind in later) >= 4


def test_model_learns_from_the_best_and_the_newest_trials_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    fit = CurveModel.fit

    def noted(model: CurveModel, observations: Observations, costs: "np.typing.NDArray[np.float64]") -> None:
        most.append(len(costs))
        fit(model, observations, costs)

    monkeypatch.setattr(CurveModel, "fit", noted)
    monkeypatch.setattr(curve_sampler, "MOST_MEASUREMENTS", 40)
    monkeypatch.setattr(curve_sampler, "BEST_TRIALS", 5)
    monkeypatch.setattr(curve_sampler, "CANDIDATES", 200)
    later = proposals(
        lambda unit, kind, epoch: (unit - 0.5) ** 2 + 0.1 * (kind == "b") + 1 / epoch,
        number=60,
        epochs_of=lambda number: 3 if number % 2 else 1,
    )
    assert 30 < max(most) <= 40
    assert median(int(proposal[1:]) for proposal in later) in (4, 5)
