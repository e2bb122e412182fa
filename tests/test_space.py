import dataclasses
from collections import Counter
from collections.abc import Mapping

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from studies import DEFAULT_SPACE, DEFAULTS

from search.algorithms.samplers import StudySampler, tpe
from search.space.distributions import HyperparameterValue, OrderedChoice
from search.space.encoding import SpaceEncoding
from search.space.search_space import (
    ConditionalRange,
    Point,
    SearchSpace,
    contains,
    describe,
    similar_point,
    starting_points,
)
from search.space.toml_file import default_space
from training.config import TrialConfig

BATCH_SIZES = OrderedChoice((32, 64, 128, 256, 512))


def draw(space: SearchSpace, number: int, seed: int = 0) -> list[optuna.trial.Trial]:
    """Ask for trials without telling results: the random start goes on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=StudySampler(space, tpe(seed)), direction="maximize")
    return [study.ask(fixed_distributions=SpaceEncoding(space).optuna_distributions) for _ in range(number)]


def test_space_and_config_agree() -> None:
    fields = {field.name for field in dataclasses.fields(TrialConfig)}
    assert set(DEFAULT_SPACE) <= fields
    for trial in draw(DEFAULT_SPACE, 50):
        TrialConfig(**trial.params)


def test_baseline_is_the_tutorials_and_lies_in_the_space() -> None:
    baseline = DEFAULT_SPACE.point(DEFAULTS)
    assert baseline == {"learning_rate": 1e-3, "batch_size": 64, "optimizer": "sgd"}
    assert contains(DEFAULT_SPACE, baseline)


def test_study_starts_with_the_baseline_and_then_with_each_other_optimizer() -> None:
    points = starting_points(DEFAULT_SPACE, DEFAULTS)
    assert [point.pop("optimizer") for point in points] == ["sgd", "rmsprop", "adam"]
    assert points == [{"learning_rate": 1e-3, "batch_size": 64}] * 3
    assert starting_points(SearchSpace({"batch_size": BATCH_SIZES}), DEFAULTS) == [{"batch_size": 64}]


def test_point_is_similar_to_a_configuration_of_another_space_and_then_to_others() -> None:
    other: Point = {"learning_rate": 5, "batch_size": 100, "optimizer": "lion", "decay": 0.1}
    assert similar_point(DEFAULT_SPACE, other) == {"learning_rate": 0.1, "batch_size": 128}
    defaults: Point = {"optimizer": "sgd", "batch_size": 64}
    assert similar_point(DEFAULT_SPACE, {"batch_size": "auto"}, defaults) == defaults
    of_optimizer = ConditionalRange(FloatDistribution(0.0, 0.9), {"optimizer": ("sgd",)})
    space = SearchSpace({**DEFAULT_SPACE.ranges, "momentum": [of_optimizer]})
    assert similar_point(space, {"optimizer": "adam", "momentum": 0.5}) == {"optimizer": "adam"}
    assert similar_point(space, {"optimizer": "sgd", "momentum": 2.0}) == {"optimizer": "sgd", "momentum": 0.9}


def test_ordered_choice_draws_members_only_and_each_about_as_often() -> None:
    counts = Counter(trial.params["batch_size"] for trial in draw(SearchSpace({"batch_size": BATCH_SIZES}), 300))
    assert set(counts) == set(BATCH_SIZES.values)
    assert all(30 < count < 90 for count in counts.values())


@pytest.mark.parametrize(("draw", "member"), [(23, 32), (45, 32), (46, 64), (64, 64), (724, 512)])
def test_draw_goes_to_the_nearest_member_by_ratio(draw: int, member: int) -> None:
    assert BATCH_SIZES.snap(draw) == member


@pytest.mark.parametrize("values", [(32,), (64, 32), (32, 32)])
def test_ordered_choice_must_ascend(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two or more ascending numbers"):
        OrderedChoice(values)


def test_sampler_knows_the_order() -> None:
    """It often proposes a size that was never tried, because it lies between two good ones."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = SearchSpace({"batch_size": OrderedChoice((1, 2, 4, 8, 16, 32, 64, 128, 256, 512))})
    tried = [(size, 0.1) for size in (1, 1, 2, 2, 4, 128, 256, 256, 512, 512)] + [(8, 0.9), (32, 0.9)]
    proposals: Counter[int] = Counter()
    for seed in range(60):
        study = optuna.create_study(sampler=StudySampler(space, tpe(seed)), direction="maximize")
        for size, value in tried:
            params = {"batch_size": size}
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=SpaceEncoding(space).optuna_distributions, value=value
                )
            )
        proposals[study.ask(SpaceEncoding(space).optuna_distributions).params["batch_size"]] += 1
    assert proposals[16] >= 20, proposals


def test_same_seed_proposes_the_same() -> None:
    first, again, other = ([trial.params for trial in draw(DEFAULT_SPACE, 8, seed=seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_description_is_plain_data() -> None:
    space = SearchSpace(
        {
            "learning_rate": FloatDistribution(0.1, 1, log=True),
            "batch_size": OrderedChoice((8, 16)),
            "optimizer": CategoricalDistribution(("sgd", "adam")),
        }
    )
    assert describe(space) == {
        "learning_rate": {"low": 0.1, "high": 1, "log": True},
        "batch_size": {"ordered": [8, 16]},
        "optimizer": {"choices": ["sgd", "adam"]},
    }


def test_point_is_built_with_one_look_at_each_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space of 30 hyperparameters is checked at several hundred points before a study begins."""
    looks: Counter[str] = Counter()
    is_active = ConditionalRange.is_active

    def counted(one: ConditionalRange, values: Mapping[str, HyperparameterValue]) -> bool:
        looks["all"] += 1
        return is_active(one, values)

    space = SearchSpace({f"weight_{number}": FloatDistribution(0.0, 1.0) for number in range(30)})
    encoding = SpaceEncoding(space)
    monkeypatch.setattr(ConditionalRange, "is_active", counted)
    assert list(encoding.decode(encoding.random_sample(0))) == list(space)
    assert looks["all"] == 30


def test_own_space_is_read_once() -> None:
    assert default_space("mlp") is default_space("mlp")
    assert default_space("mlp") != default_space("cnn")
