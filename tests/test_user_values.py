"""Values of the user's own kinds: fields read by their annotation, choices, ordered values, extreme numbers."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import pytest
from serial_ray import run_command
from test_space_file import asked

from search.monitoring.live_view import sparkline
from search.record.study_record import StudyRecord
from search.settings import SamplerName
from search.space.distributions import snap
from search.space.encoding import SpaceEncoding
from search.space.search_space import SearchSpace, parse
from search.space.toml_file import fix_values, read_space, to_toml
from training.config_fields import field_types, make_config, plain_fields, read_text
from training.console.terminal import format_metric

pytestmark = pytest.mark.usefixtures("drawn_charts")


class Kernel(Enum):
    LINEAR = "linear"
    RBF = "rbf"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Odd:
    pass


@dataclass(frozen=True)
class Inner:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    kernel: Kernel = Kernel.RBF


@dataclass(frozen=True)
class Config:
    depth: int | None = None
    part: float | None = 0.5
    size: Literal[16, 32, 64] = 32
    mode: Literal["a", "b"] | None = None
    text: str | None = None
    either: int | str = 1
    kernel: Kernel = Kernel.LINEAR
    level: Level = Level.LOW
    file: Path = Path("data.csv")
    flag: bool = False
    inner: Inner = field(default_factory=lambda: Inner(lr=0.3))
    sizes: tuple[int, ...] = (1, 2)
    odd: int | Odd | None = None
    seed: int = 0


def read(folder: Path, text: str) -> SearchSpace:
    file = folder / "space.toml"
    file.write_text(text)
    return read_space(file, Config)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("depth", "7", 7),
        ("depth", "None", None),
        ("depth", "none", None),
        ("odd", "3", 3),
        ("part", "1", 1.0),
        ("part", "None", None),
        ("size", "16", 16),
        ("mode", "b", "b"),
        ("mode", "None", None),
        ("text", "None", "None"),
        ("text", "7", "7"),
        ("either", "7", 7),
        ("either", "seven", "seven"),
        ("kernel", "RBF", Kernel.RBF),
        ("kernel", "rbf", Kernel.RBF),
        ("level", "HIGH", Level.HIGH),
        ("level", "2", Level.HIGH),
        ("file", "7", Path("7")),
        ("flag", "true", True),
        ("inner.lr", "1e-3", 1e-3),
        ("inner.kernel", "LINEAR", Kernel.LINEAR),
    ],
)
def test_field_is_read_by_its_annotation_on_the_command_line_and_from_a_file(
    name: str, text: str, value: Any, tmp_path: Path
) -> None:
    space = parse({"depth" if name != "depth" else "size": {"choices": [16, 32]}})
    fixed = fix_values(space, [f"{name}={text}"], Config)
    again = read(tmp_path, to_toml(fixed))
    assert again == fixed
    for one in (fixed, again):
        config: Any = make_config(Config, {name: one.add_fixed({})[name]})
        for part in name.split("."):
            config = getattr(config, part)
        assert config == value
        assert type(config) is type(value)


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("depth=1.5", 'must be a whole number or "None"'),
        ("depth=true", 'must be a whole number or "None"'),
        ("size=17", "must be one of 16, 32, 64"),
        ("kernel=poly", "must be one of LINEAR, RBF"),
        ("part=nan", 'must be a number or "None"'),
        ("part=inf", 'must be a number or "None"'),
        ("flag=None", "must be true or false"),
        ("sizes=3", "sizes cannot be searched: its type is tuple"),
        ("inner=3", "inner is not a hyperparameter"),
        ("inner.betas=3", "inner.betas cannot be searched: its type is tuple"),
    ],
)
def test_value_of_another_type_is_refused_with_the_rule(assignment: str, rule: str) -> None:
    with pytest.raises(ValueError, match=r"^set ") as refusal:
        fix_values(parse({"depth": {"low": 1, "high": 9}}), [assignment], Config)
    assert rule in str(refusal.value)


def test_nested_tables_search_the_fields_of_a_nested_dataclass(tmp_path: Path) -> None:
    space = read(tmp_path, "[inner.lr]\nlow = 1\nhigh = 2\n[kernel]\nchoices = ['rbf', 'LINEAR']\n")
    assert list(space) == ["inner.lr", "kernel"]
    assert read(tmp_path, to_toml(space)) == space
    config = make_config(Config, {"inner.lr": 2.0, "kernel": "RBF"})
    assert config.inner == Inner(lr=2.0)
    assert make_config(Config, {}).inner == Inner(lr=0.3)


def test_plain_fields_are_read_back_to_equal_ones() -> None:
    config = Config(depth=3, mode="a", kernel=Kernel.RBF, level=Level.HIGH, inner=Inner(lr=0.2))
    plain = plain_fields(config)
    assert plain["kernel"] == "RBF"
    assert plain["part"] == 0.5
    assert "sizes" not in plain
    assert plain_fields(Config())["depth"] == "None"
    assert make_config(Config, {name: value for name, value in plain.items() if name != "text"}) == config


@pytest.mark.parametrize("text", ["1", "true", "1.0", "None", "nan", "1e400", "'"])
def test_any_text_is_a_text_for_a_field_of_texts(text: str) -> None:
    assert read_text(str, text) == text
    assert list(field_types(Inner)) == ["lr", "betas", "kernel"]


TRAIN = """
from dataclasses import dataclass
from typing import Literal, Optional

@dataclass(frozen=True)
class Config:
    max_depth: Optional[int] = None
    size: Literal[16, 32, 64] = 32
    network: str = "a"
    seed: int = 0

def train(config: Config):
    kinds = {type(None): 1.0, int: 2.0, str: 3.0}
    while True:
        yield {"loss": kinds[type(config.max_depth)], "size": config.size, "given_seed": config.seed}
"""


def test_study_trains_what_its_table_says(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "space.toml").write_text(
        '[max_depth]\nchoices = [3, "None"]\n[size]\nchoices = [16, 64]\n[network]\nchoices = ["a", "b"]\n'
    )
    options = "--metric loss --mode min --num-samples 4 --epochs 1 --set seed=41 --name own"
    where = ["--results-dir", str(tmp_path), "--train-function", f"{tmp_path}/train.py:train"]
    ended = run_command("search/run.py", *options.split(), *where, "--space", str(tmp_path / "space.toml"))
    assert ended.status == 0, ended.stderr
    table = pd.read_csv(tmp_path / "own" / "trials.csv", keep_default_na=False)
    assert len(table) == 4
    assert [{"3": 2.0, "None": 1.0}[str(depth)] for depth in table["max_depth"]] == list(table["loss"])
    assert list(table["hyperparameter_size"]) == list(table["size"])
    assert set(table["given_seed"]) == {41.0}
    first = StudyRecord.open(tmp_path / "own").trials[0]
    assert first.hyperparameters == {"max_depth": "None", "size": 16, "network": "a"}  # near the defaults


NETWORK = """
from dataclasses import dataclass
from enum import Enum
from typing import Literal
from torch import nn

class Kind(Enum):
    DEEP = 1
    FLAT = 2

@dataclass(frozen=True)
class Hyperparameters:
    hidden: int | None = None
    kind: Kind = Kind.FLAT
    width: Literal[8, 16] = 8
    rate: float | None = None
    lambda_: float = 1.0

def build(config: Hyperparameters, input_shape, classes):
    assert isinstance(config.kind, Kind) and config.hidden in (None, 3)
    pixels, width = input_shape[0] * input_shape[1] * input_shape[2], config.hidden or config.width
    if config.kind == Kind.FLAT:
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.Linear(width, classes))
"""


def test_network_has_such_fields_in_training_and_in_the_shipped_model(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "space.toml").write_text(
        '[kind]\nchoices = ["DEEP"]\n[width]\nvalue = 16\n[rate]\nlow = 0\nhigh = 1\n[lambda_]\nvalue = 1\n'
    )
    options = [
        "--dataset",
        "digits",
        "--num-samples",
        "1",
        "--epochs",
        "1",
        "--no-baseline",
        "--name",
        "own",
        "--set",
        "hidden=None",
    ]
    where = ["--results-dir", str(tmp_path), "--network", f"{tmp_path}/net.py:build"]
    ended = run_command("search/run.py", *options, *where, "--space", str(tmp_path / "space.toml"))
    assert ended.status == 0, ended.stderr
    from training.model.model_folder import load_model  # torch

    model = load_model(tmp_path / "own" / "model", trust_network=True)
    assert sum(weights.numel() for weights in model.network.parameters()) == 64 * 16 + 16 + 16 * 10 + 10
    assert model.metadata.network_hyperparameters["hidden"] == "None"
    assert "--kind=DEEP" in str(model.metadata.command)
    assert "--lambda_=1.0" in str(model.metadata.command)
    words = str(model.metadata.command).split()[2:]
    again = run_command("training/run.py", *words)
    assert again.status == 0, again.stderr


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        (
            {"choices": [1, 1.0, "sqrt"]},
            "choices must differ in value and as text, but 1 and 1.0",
        ),
        ({"choices": [True, 0, 1]}, "but true and 1 do not"),
        ({"choices": [0.0, -0.0]}, "but 0.0 and -0.0 do not"),
        ({"choices": [False, "x", 0.0]}, "but false and 0.0 do not"),
        ({"choices": [1, "1"]}, 'but 1 and "1" do not'),
        ({"choices": ["True", True]}, 'but "True" and true do not'),
        ({"choices": [1.0, float("nan")]}, "choices cannot be nan"),
        ({"low": 0.0, "high": 1.0, "step": 1e-300}, "step 1e-300 is too small for a range from 0.0 to 1.0"),
        ({"low": 0.0, "high": 1e300, "step": 1e-10}, "step 1e-10 is too small"),
        ({"low": -1e308, "high": 1e308}, "low and high lie too far apart: -1e+308 and 1e+308"),
        ({"low": 1e-300, "high": 1e300, "log": True}, "low and high lie too far apart"),
        ({"low": 0, "high": 2**53 + 1}, "a whole number must lie between -2**53 and 2**53"),
        ({"ordered": [1, 2**60]}, "a whole number must lie between -2**53 and 2**53"),
        ({"ordered": [-1e308, 0.0, 1e308]}, "the numbers of ordered lie too far apart"),
        ({"ordered": [1e-300, 1e300]}, "the numbers of ordered lie too far apart"),
    ],
)
def test_values_that_cannot_be_kept_apart_are_refused(described: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^x: ") as refusal:
        parse({"x": described})
    assert sentence in str(refusal.value)


ORDERED = [
    [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2],
    [0, 1, 10, 100],
    [-100.0, -1.0, 0.0, 0.01],
    [-8, -4, -2],
    [0.0, 1e-300],
]


def drawn(space: SearchSpace, sampler: SamplerName, number: int) -> list[Any]:
    """Values as a study draws them, where larger ones are better."""
    return [point["x"] for point in asked(space, sampler, number, "x")]


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_steps_have_the_decimals_that_one_writes(sampler: SamplerName) -> None:
    """With one range, and with several of them, which a sampler sees as positions."""
    tenths = {"low": 0.0, "high": 0.9, "step": 0.1}
    conditional = [tenths | {"when": {"way": "a"}}, tenths | {"low": 0.3}]
    for x in (tenths, conditional):
        values = drawn(parse({"way": {"choices": ["a", "b"]}, "x": x}), sampler, 15)
        assert set(values) <= {tenth / 10 for tenth in range(10)}
        assert {0.3, 0.6, 0.7} & {*values}
    numbers = parse({"x": {"low": 8, "high": 64, "step": 8}})["x"]
    assert [repr(snap(numbers, sample)) for sample in (8, 13.0, 64)] == ["8", "16", "64"]


@pytest.mark.parametrize("values", ORDERED, ids=str)
def test_each_ordered_value_is_about_as_likely_also_with_zero(values: list[float]) -> None:
    space = SpaceEncoding(parse({"x": {"ordered": values}}))
    counts = Counter(space.decode(space.random_sample(number))["x"] for number in range(1200))
    assert set(counts) == set(values)
    assert all(count / 1200 == pytest.approx(1 / len(values), rel=0.25) for count in counts.values())


@pytest.mark.parametrize("values", ORDERED, ids=str)
def test_ordered_value_is_found_again_and_its_order_is_known(values: list[float]) -> None:
    encoding = SpaceEncoding(parse({"x": {"ordered": values}}))
    samples = [float(encoding.encode({"x": value}, 0)["x"]) for value in values]
    assert samples == sorted(samples)
    assert [encoding.decode({"x": sample})["x"] for sample in samples] == values


def test_types_of_numbers_are_the_same_in_training_and_record() -> None:
    space = parse({"x": {"ordered": [0, 0.5, 2]}})
    assert {type(value) for value in drawn(space, "random", 3)} == {float}
    assert {type(value) for value in drawn(parse({"x": {"ordered": [0, 1, 4]}}), "random", 3)} == {int}


def test_default_spaces_are_drawn_as_before() -> None:
    space = parse({"x": {"ordered": [32, 64, 128, 256, 512]}})
    assert not SpaceEncoding(space).is_needed
    assert drawn(space, "random", 5) == [128, 256, 512, 64, 32]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5000"),
        (0.0, "0.0000"),
        (1e-8, "1e-08"),
        (-1.2345678e-8, "-1.235e-08"),
        (1e300, "1e+300"),
        (1e-300, "1e-300"),
        (97.78, "97.78"),  # as it was reported
        (-12.0, "-12"),
        (59.42664, "59.4266"),
        (1.0, "1.0000"),
    ],
)
def test_no_metric_is_shown_as_zero_or_in_three_hundred_digits(value: float, text: str) -> None:
    assert format_metric(value) == text


@pytest.mark.parametrize("values", [[-1.7e308, 1.7e308], [1e-8, 2e-8], [0.0, 1e-300], [1e300, 1e300]])
def test_sparkline_of_any_numbers(values: list[float]) -> None:
    assert sparkline(values) == ("▁█" if values[0] < values[1] else "▅▅")


WIDE = """
def train(config):
    for epoch in (1, 2):
        yield {"score": 2 * (config["x"] - 0.5) * 1.7e308 / epoch}
"""


def test_study_of_extreme_metrics_loses_none(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(WIDE)
    (tmp_path / "space.toml").write_text("[x]\nlow = 0.0\nhigh = 1.0\n")
    options = "--metric score --mode min --num-samples 12 --epochs 2 --scheduler none --sampler random --name own"
    where = ["--results-dir", str(tmp_path), "--train-function", f"{tmp_path}/train.py:train"]
    ended = run_command("search/run.py", *options.split(), *where, "--space", str(tmp_path / "space.toml"))
    assert ended.status == 0
    assert ended.stderr == ""
    table = pd.read_csv(tmp_path / "own" / "trials.csv")
    expected = [min(2 * (x - 0.5) * 1.7e308 / epoch for epoch in (1, 2)) for x in table["x"]]
    assert list(table["score"]) == expected == sorted(expected)
    assert f"score {format_metric(expected[0])}" in ended.stdout
