"""Search spaces from files: what is read, what is refused and how, and what samplers make of conditions."""

import itertools
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.distributions import FloatDistribution

from search.algorithms.samplers import StudySampler, build_sampler
from search.settings import SamplerName
from search.space.encoding import SpaceEncoding
from search.space.search_space import (
    Point,
    SearchSpace,
    contains,
    describe,
    distance,
    num_points,
    parse,
    starting_points,
)
from search.space.toml_file import FOLDER, default_space, fix_values, read_space, to_toml
from training.networks.network_config import config_type

MLP = config_type("mlp")
ISSUE = """
[learning_rate]
low = 1e-4
high = 1e-1
log = true

[batch_size]
ordered = [32, 64, 128, 256]

[optimizer]
choices = ["sgd", "adam"]

[momentum]
low = 0.0
high = 0.99
when = { optimizer = "sgd" }

[weight_decay]
value = 5e-4
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "space.toml"
    file.write_text(text)
    return file


def read(folder: Path, text: str, kind: type[Any] | None = MLP) -> SearchSpace:
    return read_space(written(folder, text), kind)


def asked(space: SearchSpace, sampler: SamplerName, trials: int, name_of_best: str = "learning_rate") -> list[Point]:
    """Points as a study draws them, where larger values of one hyperparameter are better."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=StudySampler(space, build_sampler(sampler, 0, 0)), direction="maximize")
    points = []
    for _ in range(trials):
        trial = study.ask()
        point: Point = {}
        for name in space.order:
            if name in space.searched(point):
                point[name] = trial._suggest(name, space.optuna_distributions(point)[name])
        points.append(point)
        study.tell(trial, float(point[name_of_best]))
    return points


def test_fixed_values_and_conditions_are_in_force(tmp_path: Path) -> None:
    space = read(tmp_path, ISSUE)
    assert list(space) == ["learning_rate", "batch_size", "optimizer", "momentum"]
    with_sgd: Point = {"learning_rate": 0.01, "batch_size": 64, "optimizer": "sgd", "momentum": 0.9}
    with_adam: Point = {"learning_rate": 0.01, "batch_size": 64, "optimizer": "adam"}
    assert contains(space, with_sgd)
    assert contains(space, with_adam)
    assert not contains(space, {**with_adam, "momentum": 0.9})
    assert not contains(space, {name: value for name, value in with_sgd.items() if name != "momentum"})
    assert space.add_fixed(with_adam) == {**with_adam, "weight_decay": 5e-4}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda file: file.stem)
def test_shipped_spaces_can_be_read_written_and_described(file: Path, tmp_path: Path) -> None:
    kind = config_type("cnn" if file.stem == "cnn" else "mlp")
    space = read_space(file, kind)
    assert read(tmp_path, to_toml(space), kind) == space
    assert parse(describe(space)) == space
    assert all(contains(space, point) for point in starting_points(space, vars(kind())))


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_every_sampler_draws_from_conditional_spaces(sampler: SamplerName) -> None:
    space = read_space(FOLDER / "by-optimizer.toml", MLP)
    points = asked(space, sampler, 10 if sampler == "gp" else 16)  # 0.3 s each from the sixth on
    assert all(contains(space, point) for point in points)
    assert {point["optimizer"] for point in points} >= {"sgd"}
    assert all(("momentum" in point) == (point["optimizer"] == "sgd") for point in points)
    assert all((float(point["learning_rate"]) > 0.01) <= (point["optimizer"] == "sgd") for point in points)


def test_what_is_learned_in_one_range_holds_in_the_other() -> None:
    """Larger is better in both ranges: TPE moves up in the range of adam, though the best values are those of sgd."""
    space = read_space(FOLDER / "by-optimizer.toml", MLP)
    encoding = SpaceEncoding(space)
    sgd: Point = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "batch_size": 64}
    adam: Point = {"optimizer": "adam", "learning_rate": 1e-2, "batch_size": 64}
    assert encoding.encode(sgd, 0)["learning_rate"] == pytest.approx(encoding.encode(adam, 1)["learning_rate"]) == 1
    for point in (sgd, adam):
        back = encoding.decode(encoding.encode(point, 2))
        assert back.keys() == point.keys()
        assert back["learning_rate"] == pytest.approx(point["learning_rate"])


def test_what_was_not_drawn_looks_as_if_drawn_anywhere() -> None:
    encoding = SpaceEncoding(read_space(FOLDER / "by-optimizer.toml", MLP))
    adam: Point = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 64}
    momenta = [float(encoding.encode(adam, number)["momentum"]) for number in range(400)]
    assert [sum(low <= value < low + 0.33 for value in momenta) / 400 for low in (0, 0.33, 0.66)] == pytest.approx(
        [1 / 3] * 3, abs=0.08
    )
    assert encoding.encode(adam, 7) == encoding.encode(adam, 7)


def test_finite_conditional_space_is_counted_and_listed(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        '[optimizer]\nchoices = ["sgd", "adam"]\n[batch_size]\nordered = [32, 64]\n'
        '[depth]\nlow = 1\nhigh = 3\nwhen = { optimizer = "sgd" }\n',
    )
    points = list(space.points())
    assert num_points(space) == len(points) == 2 * 3 + 2
    assert all(contains(space, point) for point in points)
    assert len({tuple(point.items()) for point in points}) == 8
    for one, other in itertools.combinations(points, 2):
        assert distance(space, one, other) > 0


def test_start_is_as_near_to_the_defaults_as_the_space_allows() -> None:
    points = starting_points(read_space(FOLDER / "by-optimizer.toml", MLP), vars(MLP()))
    assert points == [
        {"optimizer": "sgd", "learning_rate": 1e-2, "momentum": 0.0, "batch_size": 64},
        {"optimizer": "rmsprop", "learning_rate": 1e-3, "batch_size": 64},
        {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 64},
    ]


def test_fixing_takes_along_what_depends_on_it(tmp_path: Path) -> None:
    space = read(tmp_path, ISSUE)
    with_adam = fix_values(space, ["optimizer=adam", "learning_rate=0.05"], MLP)
    assert list(with_adam) == ["batch_size", "momentum"]
    assert with_adam.searched({"batch_size": 64}) == {"batch_size": space["batch_size"]}
    assert with_adam.add_fixed({"batch_size": 64})["learning_rate"] == 0.05
    chain = (
        ISSUE.replace("low = 0.0\nhigh = 0.99", "ordered = [0.1, 0.9]")
        + "[decay]\nvalue = 1\nwhen = {momentum = 0.9}\n"
    )
    with_adam = fix_values(read(tmp_path, chain, None), ["optimizer=adam"], None)
    assert list(read(tmp_path, to_toml(with_adam), None).ranges) == [
        *("learning_rate", "batch_size", "optimizer", "weight_decay")
    ]
    with_sgd = fix_values(space, ["optimizer=sgd"], MLP)
    assert "momentum" in with_sgd.searched({"batch_size": 64, "learning_rate": 0.1})


def test_numbers_are_of_the_type_of_their_field(tmp_path: Path) -> None:
    space = read(tmp_path, "[dropout]\nlow = 0\nhigh = 1\nstep = 0.25\n".replace("high = 1", "high = 0.75"))
    assert space["dropout"] == FloatDistribution(0.0, 0.75, step=0.25)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[learning_rat]\nvalue = 0.1\n", "learning_rat is not a hyperparameter; did you mean learning_rate?"),
        ("[learning_rate]\nlow = 0.1\nhih = 1\n", "learning_rate has the unknown key hih; did you mean high?"),
        ("[learning_rate]\nlow = 1.0\nhigh = 0.1\n", "learning_rate: low must be less than high, got 1.0 and 0.1"),
        ("[learning_rate]\nlow = 0\nhigh = 0.1\nlog = true\n", "learning_rate: a log range must lie above 0"),
        ("[width]\nlow = 8\nhigh = 64\nlog = true\nstep = 8\n", "width: step and log cannot be combined"),
        ("[width]\nlow = 8\nhigh = 64\nstep = 100\n", "width: step must be > 0 and at most high - low, 56, got 100"),
        ("[width]\nlow = 8.5\nhigh = 64\n", "width: low must be a whole number, got 8.5"),
        ("[width]\nlow = 8\n", "width: must have low and high"),
        ("[optimizer]\nchoices = []\n", "optimizer: choices must be one or more different values, got []"),
        ('[optimizer]\nchoices = ["sgd", "sgd"]\n', "optimizer: choices must be one or more different values"),
        (
            '[optimizer]\nchoices = ["sgd", "lion"]\n',
            "choices must be one of sgd, adam, adamw, rmsprop, got lion",
        ),
        ("[optimizer]\nchoices = [1, 2]\n", "optimizer: choices must be one of sgd, adam, adamw, rmsprop, got 1"),
        ("[shuffle]\nchoices = [0, 1]\n", "shuffle: choices must be true or false, got 0"),
        ("[batch_size]\nordered = [64, 32]\n", "batch_size: ordered must be two or more ascending numbers"),
        ("[batch_size]\nordered = [0, 32]\n", "batch_size must be >= 1, got 0"),
        ("learning_rate = 0.1\n", "learning_rate must be a table: write [learning_rate], and value = 0.1"),
        ("[epochs]\nlow = 1\nhigh = 9\n", "epochs cannot be searched: --epochs sets it"),
        ('[momentum]\nlow = 0.1\nhigh = 0.9\nwhen = { optimizer = "sgd" }\n', "optimizer, which is not in the space"),
        (ISSUE.replace('when = { optimizer = "sgd" }', 'when = { optimizer = "rmsprop" }'), "requires a value that"),
        (
            ISSUE.replace('choices = ["sgd", "adam"]', 'value = "adam"'),
            'momentum: its condition never holds, because optimizer is fixed and never "sgd"',
        ),
        (ISSUE.replace('when = { optimizer = "sgd" }', "when = { learning_rate = 0.1 }"), "which has a range of numb"),
        (ISSUE.replace('when = { optimizer = "sgd" }', ""), "momentum is for sgd and rmsprop, got momentum"),
        (ISSUE + "[learning_rate]\nvalue = 1\n", 'Cannot declare ("learning_rate",) twice'.replace('"', "'")),
        ("[[width]]\nvalue = 3\n[[width]]\nvalue = 4\n", "only its last range can be without a condition"),
        ("[weight_decay]\nvalue = 0.1\n", "there is no hyperparameter to search"),
        ("", "there is no hyperparameter to search"),
        ("x" * 1_000_001, "it is larger than 1,000,000 bytes"),
        ("[learning_rate]\nlow = nan\nhigh = 1\n", "low cannot be nan"),
        ("[a" * 50_000, "search space"),
        (f"[batch_size]\nchoices = {list(range(1, 1002))}\n", "choices must be at most 1000 values, got 1001"),
        (
            "[depth]\nordered = [1, 2]\nwhen = { width = 8 }\n[width]\nordered = [8, 16]\nwhen = { depth = 1 }\n",
            "the conditions form a cycle",
        ),
    ],
)
def test_mistake_names_file_hyperparameter_and_rule(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="search space") as refusal:
        read(tmp_path, text)
    told = str(refusal.value)
    assert told.startswith(f"search space {tmp_path / 'space.toml'}: ")
    assert sentence in told
    assert len(told) < 500


def test_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, f"\N{ZERO WIDTH NO-BREAK SPACE}{ISSUE}") == read(tmp_path, ISSUE)


@pytest.mark.parametrize("log", ["true", "false"])
def test_whole_numbers_of_a_wide_range_are_whole(log: str, tmp_path: Path) -> None:
    space = read(tmp_path, f"[width]\nlow = 16\nhigh = 4096\nlog = {log}\n")
    encoding = SpaceEncoding(space)
    widths = [encoding.decode(encoding.random_sample(number))["width"] for number in range(50)]
    assert all(isinstance(width, int) and contains(space, {"width": width}) for width in widths)
    assert len(set(widths)) > 40


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("text", "default", "nearest", "last"),
    [
        ("[width]\nlow = 100\nhigh = 1050\nstep = 100\n", {"width": 512}, {"width": 500}, 1000),
        ("[width]\nlow = 16\nhigh = 90000\nstep = 16\n", {"width": 511}, {"width": 512}, 90000),
        ("[dropout]\nlow = 0.0\nhigh = 0.55\nstep = 0.1\n", {"dropout": 0.27}, {"dropout": 0.3}, 0.5),
        ("[dropout]\nlow = 0.1\nhigh = 0.7\nstep = 0.3\n", {"dropout": 0.9}, {"dropout": 0.7}, 0.7),
    ],
)
def test_values_of_a_range_in_steps_are_steps(
    text: str, default: Point, nearest: Point, last: float, tmp_path: Path
) -> None:
    space = read(tmp_path, text)
    (name,) = space
    (start,) = starting_points(space, default)
    assert start == pytest.approx(nearest)
    assert contains(space, start)
    assert not contains(space, {**default, name: float(start[name]) + 1e-3})
    assert describe(space)[name]["high"] == last
    study = optuna.create_study()
    study.enqueue_trial(start)
    assert study.ask(space.optuna_distributions(start)).params == start
    encoding = SpaceEncoding(space)
    assert all(contains(space, encoding.decode(encoding.random_sample(number))) for number in range(50))


def test_name_that_is_set_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="set width=9: width is set twice"):
        fix_values(default_space("mlp"), ["width=8", "width=9"], MLP)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("learning_rate", "set learning_rate: must be NAME=VALUE"),
        ("learning_rate=fast", "set learning_rate=fast: must be a number"),
        ("batch_size=1.5", "set batch_size=1.5: must be a whole number"),
        ("shuffle=1", "set shuffle=1: must be true or false"),
        ("momentun=0.9", "set momentun=0.9: momentun is not a hyperparameter; did you mean momentum?"),
        ("learning_rate=-1", "set learning_rate=-1: learning_rate must be > 0, got -1.0"),
    ],
)
def test_mistaken_assignment_is_refused(assignment: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="set ") as refusal:
        fix_values(default_space("mlp"), [assignment], MLP)
    assert str(refusal.value) == sentence


def test_fixing_all_leaves_nothing_to_search() -> None:
    with pytest.raises(ValueError, match="nothing is left to search"):
        fix_values(default_space("mlp"), ["learning_rate=0.1", "batch_size=64", "optimizer=sgd"], MLP)


def test_without_a_dataclass_any_name_can_be_searched(tmp_path: Path) -> None:
    space = read(tmp_path, "[trees]\nlow = 1\nhigh = 9\n[alpha]\nlow = 0.5\nhigh = 2\n", kind=None)
    assert fix_values(space, ["alpha=1e-3"], None).add_fixed({"trees": 3}) == {"trees": 3, "alpha": 1e-3}
