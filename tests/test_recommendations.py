"""Recommendations say what was planted, and keep silent where nothing is wrong."""

import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from studies import DEFAULT_SPACE, planted_study

from search.analysis.findings import Findings, analyse
from search.analysis.fixing import Judgement, ValueCosts
from search.analysis.recommendations import _widened_table, describe_fixing, recommend
from search.space.distributions import OrderedChoice, Range, bounds
from search.space.search_space import ConditionalRange, SearchSpace, parse
from training.console.terminal import short_path

SPACE = DEFAULT_SPACE


def rises_to(height: float, epochs: int = 10) -> list[float]:
    """A curve that comes near its height early on and stands still at the end."""
    return [height * (1 - 0.5**epoch) if epoch < 6 else height for epoch in range(1, epochs + 1)]


def hill(point: dict[str, Any], peak: float = 1e-2) -> float:
    """An accuracy with an optimum at a learning rate, at batch size 128 and with Adam."""
    away = (math.log10(point["learning_rate"] / peak)) ** 2 * 0.06 + (math.log2(point["batch_size"] / 128)) ** 2 * 0.03
    return 0.9 - away - {"adam": 0.0, "rmsprop": 0.05, "sgd": 0.15}[point["optimizer"]]


def findings(tmp_path: Path, curve: Any, **options: Any) -> Findings:
    return analyse(planted_study(tmp_path, curve, **options))


def sentences(found: Findings) -> str:
    return "\n".join(recommendation.sentence for recommendation in found.recommendations)


@pytest.mark.parametrize("seed", range(5))
def test_harmless_space_gets_no_advice(tmp_path: Path, seed: int) -> None:
    found = findings(tmp_path, lambda point: rises_to(hill(point, peak=3e-3)), trials=60, seed=seed)
    assert "widen" not in sentences(found)
    assert "diverged" not in sentences(found)
    assert "epochs" not in sentences(found)
    assert "learning_rate can stay fixed: any value from 0.0001 to 0.1" not in sentences(found)


def test_optimum_above_the_range_is_reported_with_a_wider_one(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda point: rises_to(hill(point, peak=3.0)), trials=200)
    (recommendation,) = [
        recommendation
        for recommendation in found.recommendations
        if "learning_rate" in recommendation.sentence and "widen" in recommendation.sentence
    ]
    assert recommendation.sentence.startswith("learning_rate is best at the upper bound of its range, 0.1: ")
    assert recommendation.snippet == "[learning_rate]\nlow = 0.0001\nhigh = 1.0\nlog = true"


def test_optimum_below_the_range_is_reported(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda point: rises_to(hill(point, peak=1e-6)), trials=200)
    (recommendation,) = [
        recommendation for recommendation in found.recommendations if "lower bound" in recommendation.sentence
    ]
    assert recommendation.snippet == "[learning_rate]\nlow = 1e-05\nhigh = 0.1\nlog = true"


def test_range_that_ends_at_the_optimum_is_not_called_too_narrow(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda point: rises_to(hill(point, peak=0.1)), trials=200)
    assert "learning_rate is best" not in sentences(found)


@pytest.mark.parametrize(("costs", "said"), [([0.0, 0.012, 0.030], False), ([0.0, 0.020, 0.035], True)])
def test_bound_beyond_which_less_is_to_gain_than_is_worth_having_is_not_reported(
    tmp_path: Path, costs: list[float], *, said: bool
) -> None:
    """The parabolas gain 0.6 and 2.5 points with one more value; one point is worth having."""
    record = planted_study(tmp_path, lambda point: rises_to(hill(point)))
    values: list[Any] = [128, 256, 512]
    judged = ValueCosts("batch_size", values, np.array([costs[::-1]] * 10), np.zeros(3))
    recommended = recommend(record, record.space, Judgement(effect=0.01, costs=[judged]))
    assert any(one.kind == "widen" for one in recommended) == said


def test_best_at_the_last_member_of_an_ordered_choice_is_reported(tmp_path: Path) -> None:
    def curve(point: dict[str, Any]) -> list[float]:
        return rises_to(
            0.5 + 0.05 * math.log2(point["batch_size"]) - 0.01 * abs(math.log10(point["learning_rate"]) + 2)
        )

    (recommendation,) = [
        recommendation for recommendation in findings(tmp_path, curve).recommendations if recommendation.snippet
    ]
    assert recommendation.sentence.startswith("batch_size is best at the upper bound of its range, 512: ")
    assert recommendation.snippet == "[batch_size]\nordered = [32, 64, 128, 256, 512, 1024, 2048]"


def test_hyperparameter_of_a_training_function_can_be_wider(tmp_path: Path) -> None:
    """What its dataclass takes only its file knows, and a report imports no code."""
    space = SearchSpace({"alpha": FloatDistribution(0.01, 1.0, log=True)})
    record = planted_study(tmp_path, lambda point: rises_to(0.5 + 0.4 * point["alpha"]), space=space)
    settings = replace(
        record.metadata.settings, train_function="somewhere/functions.py:train", mode="max", resume=str(tmp_path)
    )
    record.metadata = replace(record.metadata, settings=settings, dataset=None)
    (recommendation,) = [
        recommendation for recommendation in analyse(record).recommendations if "widen" in recommendation.sentence
    ]
    assert recommendation.snippet == "[alpha]\nlow = 0.01\nhigh = 10.0\nlog = true"


@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize(
    ("name", "distribution"),
    [("learning_rate", FloatDistribution(1e-4, 0.1, log=True)), ("batch_size", OrderedChoice((8, 32, 64)))],
)
def test_advised_space_can_be_read_as_one(name: str, distribution: Range, side: str) -> None:
    wider = _widened_table(SearchSpace({name: distribution}), "mlp", name, side)
    assert wider is not None
    low, high = bounds(parse(tomllib.loads(wider))[name])  # type: ignore[arg-type]
    old_low, old_high = bounds(distribution)
    assert (low < old_low, high > old_high) == (side == "lower", side == "upper")


@pytest.mark.parametrize("low", [0.0, 1e-3])
@pytest.mark.parametrize("kind", ["float", "int", "ordered"])
def test_no_range_is_advised_that_reaches_below_0_where_the_old_one_does_not(low: float, kind: str) -> None:
    """A dropout or a number of layers below 0 has no meaning; what a user's function takes only its file knows."""
    first = math.ceil(low)
    distributions: dict[str, Range] = {
        "float": FloatDistribution(low, 0.5),
        "int": IntDistribution(first, 8),
        "ordered": OrderedChoice((first, first + 2, first + 3)),
    }
    distribution = distributions[kind]
    wider = _widened_table(SearchSpace({"alpha": distribution}), None, "alpha", "lower")
    assert wider is None or 0 < bounds(parse(tomllib.loads(wider))["alpha"])[0] < low  # type: ignore[arg-type]
    assert low or wider is None


def test_range_below_0_can_be_wider() -> None:
    for distribution in (FloatDistribution(-4, -2), IntDistribution(-4, -2), OrderedChoice((-4, -2))):
        lower, upper = (
            bounds(parse(tomllib.loads(wider))["alpha"])  # type: ignore[arg-type]
            for side in ("lower", "upper")
            if (wider := _widened_table(SearchSpace({"alpha": distribution}), None, "alpha", side))
        )
        assert lower[0] < -4
        assert lower[1] == -2
        assert upper[0] == -4
        assert -2 < upper[1] < 3


def test_no_range_is_advised_that_the_hyperparameter_cannot_have() -> None:
    assert _widened_table(SearchSpace({"batch_size": OrderedChoice((1, 2, 4))}), "mlp", "batch_size", "lower") is None


def test_where_trials_diverge_is_told(tmp_path: Path) -> None:
    def curve(point: dict[str, Any]) -> list[float]:
        bad = point["optimizer"] == "sgd" and point["learning_rate"] > 0.002
        return [0.1, math.nan] if bad else rises_to(hill(point))

    record = planted_study(tmp_path, curve, trials=60)
    diverged = [trial for trial in record.trials if trial.status == "diverged"]
    lowest = min(float(trial.hyperparameters["learning_rate"]) for trial in diverged)
    told = sentences(analyse(record))
    assert f"{len(diverged)} of 60 trials diverged" in told
    assert f"all of them with optimizer sgd and learning_rate from {lowest:.4g} on" in told


def test_few_divergences_are_no_matter(tmp_path: Path) -> None:
    def curve(point: dict[str, Any]) -> list[float]:
        return [0.1, math.nan] if point["learning_rate"] > 0.09 else rises_to(hill(point))

    assert "diverged" not in sentences(findings(tmp_path, curve, trials=60))


def test_hyperparameter_without_effect_can_stay_fixed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def curve(point: dict[str, Any]) -> list[float]:
        return rises_to(0.8 - 0.03 * abs(math.log10(point["learning_rate"]) + 2) + random.normal(0, 0.001))

    told = sentences(findings(tmp_path, curve, trials=60))
    assert re.search(r"optimizer can stay fixed: .* costs at most 0\.\d points of val_accuracy", told)
    assert re.search(r"batch_size can stay fixed: any value from 32 to 512 costs at most 0\.\d points", told)
    assert "learning_rate can stay fixed: any value from 0.0001 to 0.1" not in told


def test_a_hyperparameter_is_fixed_only_at_values_with_which_a_trial_was_good(tmp_path: Path) -> None:
    """That a value would be as good is deduced from trials with other values; on a recorded table this was wrong."""
    record = planted_study(tmp_path, lambda point: rises_to(0.8 - 0.1 * abs(math.log10(point["learning_rate"]) + 2)))
    best = {size: [0.0] for size in (32, 64, 128, 256, 512)}
    for trial in record.trials:
        best[int(trial.hyperparameters["batch_size"])].append(trial.best_value)
    good = {size for size, values in best.items() if max(values) >= max(map(max, best.values())) - 0.01}
    found = {fixing.name: fixing for fixing in analyse(record).fixings}
    assert good < {*best}, "otherwise this tests nothing"
    assert {*found["batch_size"].values} <= good


def test_nothing_is_said_to_stay_fixed_where_equal_trainings_differ_much(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    found = findings(tmp_path, lambda _: rises_to(0.8 + random.normal(0, 0.006)), trials=150)
    assert "can stay fixed" not in sentences(found)


@pytest.mark.parametrize("trials", [12, 20, 30])
def test_nothing_is_said_to_stay_fixed_where_it_may_matter(tmp_path: Path, trials: int) -> None:
    """The noise of three points hides effects of one; an effect that was not seen is no reason to fix anything."""
    random = np.random.default_rng(trials)
    found = findings(tmp_path, lambda _: rises_to(0.8 + random.normal(0, 0.03)), trials=trials)
    assert "can stay fixed" not in sentences(found)
    assert [fixing.verdict for fixing in found.fixings] == ["unclear"] * (3 if trials >= 20 else 0)


def test_costs_of_values_are_those_that_were_planted(tmp_path: Path) -> None:
    """Two choices may be equal while a third one is 15 points worse, and some of a range may be as good as the best."""

    def curve(point: dict[str, Any]) -> list[float]:
        return rises_to(0.9 - 0.15 * (point["optimizer"] == "sgd") - 0.05 * (point["batch_size"] > 128))

    record = planted_study(tmp_path, curve, trials=60)
    found = {fixing.name: fixing for fixing in analyse(record).fixings}
    assert found["optimizer"].values == ("rmsprop", "adam")
    assert found["batch_size"].values == (32, 64, 128)
    assert "optimizer can stay fixed: rmsprop or adam costs at most" in describe_fixing(record, found["optimizer"])


def test_hyperparameter_that_matters_is_told_with_its_cost(tmp_path: Path) -> None:
    record = planted_study(tmp_path, lambda point: rises_to(0.7 + 0.05 * math.log10(point["learning_rate"])), trials=40)
    (fixing,) = (fixing for fixing in analyse(record).fixings if fixing.verdict == "matters")
    assert fixing.name == "learning_rate"
    assert 0.02 < fixing.cost <= 0.15


def test_loss_is_judged_in_its_own_unit(tmp_path: Path) -> None:
    record = planted_study(tmp_path, lambda point: rises_to(0.3 + 0.2 * math.log10(point["learning_rate"])), trials=40)
    record.metadata = replace(record.metadata, settings=replace(record.metadata.settings, metric="val_loss"))
    record.objective = record.metadata.objective
    for trial in record.trials:
        trial.objective = record.objective
        trial.best_epoch = trial.epochs[-1]
    (fixing,) = (fixing for fixing in analyse(record).fixings if fixing.verdict == "matters")
    assert re.search(r"its worst value costs at least 0\.\d+ val_loss", describe_fixing(record, fixing))


def test_stopped_trials_support_no_fixing(tmp_path: Path) -> None:
    numbers = iter(range(40))

    def curve(_: dict[str, Any]) -> list[float]:
        number = next(numbers)
        return rises_to(0.5 + 0.001 * number)[: 10 if number % 3 else 2]

    found = findings(tmp_path, curve)
    assert found.fixings == []


@pytest.mark.parametrize(
    ("effect", "trials", "verdict"), [(0.0, 80, "can stay fixed"), (0.0, 40, "unclear"), (0.1, 40, "matters")]
)
def test_conditional_hyperparameter_is_judged_where_it_is_used(
    tmp_path: Path, effect: float, trials: int, verdict: str
) -> None:
    """Only trials that had it count. A choice on which others depend is judged with the best values of these."""
    momentum = ConditionalRange(OrderedChoice((0.0, 0.5, 0.9)), {"optimizer": ("sgd",)})
    space = SearchSpace({"optimizer": CategoricalDistribution(("sgd", "adam")), "momentum": [momentum]})

    def curve(point: dict[str, Any]) -> list[float]:
        return rises_to(0.9 - effect * (0.9 - point.get("momentum", 0.9)) - 0.2 * (point["optimizer"] == "adam"))

    found = {fixing.name: fixing for fixing in findings(tmp_path, curve, space=space, trials=trials).fixings}
    assert found["momentum"].verdict == verdict
    assert found["optimizer"].verdict == "matters"
    assert 0.15 < found["optimizer"].cost <= 0.2
    assert found["momentum"].cost <= 0.1
    assert found["momentum"].values == ((0.0, 0.5, 0.9) if verdict == "can stay fixed" else ())


def test_conditional_range_is_not_advised_to_be_wider(tmp_path: Path) -> None:
    """The table that is printed would say nothing of its condition."""
    momentum = ConditionalRange(FloatDistribution(0.1, 0.5), {"optimizer": ("sgd",)})
    space = SearchSpace({"optimizer": CategoricalDistribution(("sgd", "adam")), "momentum": [momentum]})
    found = findings(tmp_path, lambda point: rises_to(0.5 + 0.5 * point.get("momentum", 0)), space=space, trials=60)
    assert "widen" not in sentences(found)


def test_importances_and_their_intervals_are_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.analysis.importance.RESAMPLES", 100)  # as in a study
    random = np.random.default_rng(0)
    for trials in (10, 20, 60):
        shares = findings(tmp_path, lambda _: rises_to(0.8 + random.normal(0, 0.02)), trials=trials).importances
        assert sum(importance.share for importance in shares) == pytest.approx(1)
        assert all(0 <= one.low <= one.share <= one.high <= 1 for one in shares)


def test_what_leads_to_the_best_trials_is_important(tmp_path: Path) -> None:
    """Far from the best trials only the optimizer matters, near them only the learning rate."""

    def curve(point: dict[str, Any]) -> list[float]:
        if point["optimizer"] == "sgd":
            return rises_to(0.1)
        return rises_to(0.9 - 0.02 * abs(math.log10(point["learning_rate"]) + 2))

    first, *_ = findings(tmp_path, curve, trials=100).importances
    assert first.name == "learning_rate"


@pytest.mark.parametrize(("epochs", "last"), [(3, "last epoch was"), (10, "last 2 epochs were")])
def test_still_improving_curves_ask_for_more_epochs(tmp_path: Path, epochs: int, last: str) -> None:
    found = findings(
        tmp_path, lambda point: [hill(point) * (0.5 + 0.05 * epoch) for epoch in range(1, epochs + 1)], epochs=epochs
    )
    (recommendation,) = [one for one in found.recommendations if one.kind == "epochs"]
    assert f"full trials were still improving at the end: their {last} better" in recommendation.sentence
    assert (
        recommendation.snippet == f"python search/run.py --resume {short_path(tmp_path)} --fork --epochs {2 * epochs}"
    )


@pytest.mark.parametrize(("epochs", "kept"), [(2, 0.3), (3, 0.1), (10, 0.5)])
def test_curves_that_are_nearly_at_their_end_ask_for_no_more_epochs(tmp_path: Path, epochs: int, kept: float) -> None:
    """They rose by more than 0.2 points in the last fifth, and less is to come. 2 epochs show nothing of that."""
    curve = [1 - kept**epoch for epoch in range(1, epochs + 1)]
    found = findings(tmp_path, lambda point: [value * hill(point) for value in curve], epochs=epochs)
    assert "epochs" not in [one.kind for one in found.recommendations]


@pytest.mark.parametrize("epochs", [1, 2, 3, 10])
def test_curves_that_only_vary_ask_for_no_more_epochs(tmp_path: Path, epochs: int) -> None:
    random = np.random.default_rng(epochs)
    found = findings(tmp_path, lambda _: [0.8 + random.normal(0, 0.01) for _ in range(epochs)], epochs=epochs)
    assert "epochs" not in [one.kind for one in found.recommendations]


def test_no_gain_for_long_is_told(tmp_path: Path) -> None:
    record = planted_study(tmp_path, lambda _: rises_to(0.5), trials=30)
    assert "The last 29 of 30 trials found nothing better" in sentences(analyse(record))


def test_too_few_trials_support_nothing(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda point: rises_to(hill(point, peak=3.0)), trials=5)
    assert (found.compared, found.importances, found.fixings, found.recommendations) == (None, [], [], [])


def test_trials_are_compared_after_as_many_epochs_as_enough_of_them_ran(tmp_path: Path) -> None:
    numbers = iter(range(30))

    def curve(_: dict[str, Any]) -> list[float]:
        number = next(numbers)
        return rises_to(0.5 + 0.001 * number)[: 10 if number < 9 else 3 if number < 28 else 1]

    record = planted_study(tmp_path, curve, trials=30)
    compared = analyse(record).compared
    assert compared is not None
    assert (compared.epochs, compared.is_full, len(compared.trials)) == (3, False, 28)
    assert compared.values[0] == pytest.approx(0.5 * (1 - 0.5**3))
    assert compared.phrase == "after 3 epochs, which 28 trials reached"


def test_space_of_one_choice_explains_all(tmp_path: Path) -> None:
    space = SearchSpace({"optimizer": CategoricalDistribution(("sgd", "adam"))})
    found = findings(tmp_path, lambda point: rises_to({"sgd": 0.5, "adam": 0.6}[point["optimizer"]]), space=space)
    (importance,) = found.importances
    assert importance.share == 1


def test_equal_values_have_no_importance(tmp_path: Path) -> None:
    assert findings(tmp_path, lambda _: rises_to(0.5)).importances == []
