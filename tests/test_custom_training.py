"""Training functions and networks of the user's own: what they get, and what is refused how."""

import os
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from serial_ray import CompletedRun, run_command
from studies import run_function, search

from search.engine.custom_training import train_custom
from search.outputs.summary import show_summary
from search.outputs.tables import epoch_table, trial_table
from search.record.metadata import StudyMetadata
from search.record.study_record import StudyRecord
from search.record.trial import Objective
from search.settings import StudySettings
from search.space.search_space import SearchSpace
from search.space.toml_file import read_space
from search.task.custom_metrics import CustomMetrics
from training.checkpoint import Checkpoint
from training.loop import TrainingDivergedError
from training.networks.network_config import config_type
from training.networks.networks import build_network
from training.user_code import annotated_config, load_code

FUNCTIONS = """
import math, random
import numpy
from dataclasses import dataclass
import torch

@dataclass(frozen=True)
class Config:
    slope: float = 1.0
    epochs: int = 0
    seed: int = 0

def train(config: Config):
    for epoch in range(config.epochs):
        yield {"loss": torch.tensor(config.slope / (epoch + 1)), "draw": random.random(), "seen": config.seed}

def dictionary(config):
    yield {"loss": config["slope"] + config["seed"] + config["epochs"]}

def nothing(config):
    return iter(())

def short(config):
    yield {"loss": 1.0}

def number(config):
    yield 1.0

def returned(config):
    return {"loss": 2 * config["slope"]}

def returned_number(slope):
    return torch.tensor(2 * slope)

def other(config):
    yield {"error_rate": 1.0}

def unmeasured(config):
    yield {"loss": None}

def text(config):
    yield {"loss": "low"}

def nested(config):
    yield {"loss": [1.0]}

def kinds(config):
    values = {"acc": numpy.float32(0.5), "tensor": torch.ones(1, 1), "done": True, "val/Top 1": numpy.int64(3)}
    for _ in range(2):
        yield {"loss": 1, **values, "note": "text", "none": None, "matrix": [[1.0]], "a\\nb": 1.0}

def nan(config):
    yield {"loss": 1.0}
    yield {"loss": math.nan}

def stays_nan(config):
    yield {"loss": 1.0}
    yield {"loss": math.inf}
    yield {"train_loss": 1.0}
    while True:
        yield {"loss": math.nan}

def says_so(config):
    yield {"loss": 1.0}
    raise FloatingPointError("no way")

def no_default(config: "Bare"):
    yield {"loss": 1.0}

@dataclass(frozen=True)
class Bare:
    slope: float

@dataclass(frozen=True)
class Unknown:
    slope: "np.ndarray" = 1.0

def unknown(config: Unknown):
    yield {"loss": 1.0}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    file = tmp_path / "functions.py"
    file.write_text(FUNCTIONS)
    return file


def epochs_of(place: Path, name: str, epochs: int = 3, seed: int = 5) -> list[CustomMetrics]:
    return run_function(f"{place}:{name}", {"slope": 6.0}, epochs=epochs, seed=seed, folder=place.parent)


def metadata_of(function: str, space: SearchSpace) -> StudyMetadata:
    settings = StudySettings(
        metric="loss", mode="min", num_samples=2, epochs=3, train_function=function, resume="not a new study"
    )
    return StudyMetadata(settings=settings, space=space)


def value(metrics: CustomMetrics, name: str) -> float:
    number = metrics.values[name]
    assert number is not None
    return number


def test_function_gets_its_dataclass_and_yields_numbers(place: Path) -> None:
    measured = epochs_of(place, "train")
    assert [(metrics.epoch, value(metrics, "loss")) for metrics in measured] == [(1, 6.0), (2, 3.0), (3, 2.0)]
    assert list(measured[0].values) == ["loss", "draw", "seen"]
    assert all(metrics.seconds is not None and metrics.seconds >= 0 for metrics in measured)


def test_time_of_short_epochs_is_measured_and_shown(place: Path, tmp_path: Path) -> None:
    """An epoch takes some microseconds here, which are not shown as 0 %. The study has the name of the file."""
    options = ["--metric", "loss", "--mode", "min", "--num-samples", "3", "--epochs", "2"]
    (tmp_path / "space.toml").write_text("[slope]\nlow = 0.0\nhigh = 1.0\n")
    paths = ["--train-function", f"{place}:train", "--space", f"{tmp_path}/space.toml", "--results-dir", str(tmp_path)]
    ended = run_command("search/run.py", *options, *paths)
    assert ended.status == 0, ended.stderr
    assert re.search(r"^Time: training (<?0\.0*[1-9]|[1-9]\d?)%, ", ended.stdout, re.MULTILINE), ended.stdout
    (study,) = tmp_path.glob("functions-20*")
    for table in ("trials.csv", "epochs.csv"):
        assert (pd.read_csv(study / table)["seconds"] > 0).all()


def test_same_seed_gives_the_same_random_numbers(place: Path) -> None:
    one, again, other = (
        [[value(metrics, name) for name in ("loss", "draw")] for metrics in epochs_of(place, "train", seed=seed)]
        for seed in (5, 5, 6)
    )
    assert one == again
    assert one != other


def test_what_a_file_draws_while_it_is_imported_changes_no_number_and_is_always_the_same(tmp_path: Path) -> None:
    file = tmp_path / "drawing.py"
    file.write_text(
        "import random\nimport numpy as np\nimport torch\nDATA = np.random.rand() + random.random()\n\n"
        "def train(config):\n    while True:\n"
        "        yield {'loss': DATA, 'draw': np.random.rand() + random.random() + float(torch.rand(()))}\n"
    )
    measured = []
    for _ in range(2):
        load_code.cache_clear()  # another worker imports the file again
        sys.modules.pop(file.stem, None)
        for _ in range(2):
            epochs = epochs_of(file, "train", epochs=2)
            measured.append([(value(metrics, "loss"), value(metrics, "draw")) for metrics in epochs])
    assert measured == [measured[0]] * 4


def test_function_without_a_dataclass_gets_a_dictionary(place: Path) -> None:
    (measured,) = epochs_of(place, "dictionary", epochs=1)
    assert value(measured, "loss") == 6 + 5 + 1
    assert annotated_config("train_function", f"{place}:dictionary") is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing", "the training function ended without a metric"),
        ("number", "the training function must report a dictionary of metrics, got float"),
        ("other", "no epoch has the metric loss; they have error_rate"),
        ("unmeasured", "no epoch has the metric loss; they have none at all"),
        ("text", "metric loss must be a number, got 'low'"),
        ("nested", "metric loss must be a number, got [1.0]"),
        ("no_default", "hyperparameter slope needs a default"),
        ("unknown", "its annotations cannot be read: name 'np' is not defined"),
        ("missing", "has no function missing"),
    ],
)
def test_function_that_breaks_a_rule_fails_with_a_sentence(place: Path, name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        epochs_of(place, name)


def test_metrics_of_every_kind_of_number_are_recorded_and_others_left_out(place: Path) -> None:
    objective, checkpoint = Objective("loss", "min"), Checkpoint(place.parent / "trial.pt", place.parent)
    measured: list[CustomMetrics] = []
    train_custom(
        f"{place}:kinds",
        {},
        number=0,
        epochs=2,
        seed=0,
        objective=objective,
        checkpoint=checkpoint,
        report=lambda metrics, **_: measured.append(metrics),
    )
    numbers = {"loss": 1.0, "acc": 0.5, "tensor": 1.0, "done": 1.0, "val/Top 1": 3.0}
    assert [metrics.values for metrics in measured] == [numbers, numbers]
    warning = checkpoint.take_warning() or ""
    assert warning.startswith("the training also reports what is not recorded, because it is not a number")
    assert warning.endswith(": note, none, matrix, a\\nb")


@pytest.mark.parametrize("name", ["returned", "returned_number"])
def test_function_may_return_one_result(place: Path, name: str) -> None:
    (measured,) = epochs_of(place, name)
    assert (measured.epoch, measured.values["loss"]) == (1, 12.0)


def test_function_that_ends_early_has_stopped_by_itself(place: Path) -> None:
    """Its metrics are valid, so it can be the best trial."""
    assert [value(metrics, "loss") for metrics in epochs_of(place, "short")] == [1.0]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nan", "loss is nan in epoch 2"), ("stays_nan", "loss is inf and nan in epochs 2 to 5"), ("says_so", "no way")],
)
def test_metric_that_is_not_a_number_any_more_has_diverged(place: Path, name: str, sentence: str) -> None:
    with pytest.raises(TrainingDivergedError, match=sentence):
        epochs_of(place, name, epochs=10)


def test_metric_may_be_missing_or_not_finite_in_some_epochs(ends: Path) -> None:
    run = run_own(ends, "sometimes", "--scheduler", "none", epochs=None)
    assert run.status == 0, run.stderr
    assert "! epochs without loss are recorded, but cannot be the best; they have: train_loss" in run.stdout
    folder = ends / "out" / "sometimes"
    assert set(pd.read_csv(folder / "trials.csv")["best_epoch"]) == {6}
    epochs = pd.read_csv(folder / "epochs.csv")
    assert epochs["loss"].notna().tolist() == [False, True, False, False, False, True] * 8
    assert epochs["train_loss"].notna().all()
    assert run_command("search/report.py", str(folder)).status == 0
    assert StudyRecord.open(folder).study.best_value == epochs["loss"].min()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"metric": "two\nlines"}, "a metric's name must consist of letters, digits, spaces and _ . / : @ -"),
        ({"metric": None}, "train_function needs metric"),
        ({"metric": "reward", "mode": None}, "train_function needs mode: whether the highest reward is the best"),
        ({"mode": "least"}, "mode must be one of max, min, got least"),
        ({"metric": "test_loss", "confirm": "2x2"}, "confirm needs a metric of validation data, got test_loss"),
        ({"train_function": "functions.py"}, "train_function must be an import path like path/to/file.py:function"),
        ({"train_function": None, "metric": "val_loss", "space": None}, "mode is only for train_function"),
    ],
)
def test_settings_of_a_training_function_are_checked(
    place: Path, tmp_path: Path, options: dict[str, str | None], sentence: str
) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[slope]\nlow = 1\nhigh = 2\n")
    given = {"train_function": f"{place}:train", "space": space, "metric": "loss", "mode": "min", **options}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        StudySettings(**given)  # type: ignore[arg-type]


def test_search_space_must_be_given(place: Path, tmp_path: Path) -> None:
    run = run_command("search/run.py", "--train-function", f"{place}:train", "--metric", "loss", cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr.startswith("error: train_function needs space, a file with the search space")


def test_study_of_a_training_function_is_recorded_read_and_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file, folder = tmp_path / "space.toml", tmp_path / "own"
    file.write_text("[slope]\nlow = 1\nhigh = 20\n")
    folder.mkdir()
    function = f"{place}:train"
    space = read_space(file, annotated_config("train_function", function))
    record = StudyRecord.create(folder, metadata_of(function, space))
    record.enqueue_starting_points(most=1)
    searcher = search(record)
    for trial_id in "ab":
        proposal = searcher.suggest(trial_id)
        assert isinstance(proposal, dict)
        for metrics in run_function(function, proposal["hyperparameters"], epochs=3, folder=folder):
            record.add_epoch(trial_id, record.read_metrics({"metrics": asdict(metrics)}))
        record.finish(trial_id)
    again = StudyRecord.open(folder)
    for opened in (record, again):
        table = trial_table(opened)
        assert list(table.columns[3:10]) == ["slope", "epochs", "best_epoch", "loss", "draw", "seen", "seconds"]
        assert table["loss"].iloc[0] == pytest.approx(table["slope"].iloc[0] / 3)
        assert len(epoch_table(opened)) == 6
    assert again.trials == record.trials
    assert [trial.is_baseline for trial in again.trials] == [True, False]
    from search.analysis.findings import analyse  # sklearn takes a second

    show_summary(again, analyse(again))
    told = capsys.readouterr().out
    assert "functions.py:train: 2 of 2 trials" in told
    assert "test_accuracy" not in told


NETWORKS = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass(frozen=True)
class Hyperparameters:
    filters: int = 4

    def __post_init__(self):
        if self.filters < 1:
            raise ValueError(f"filters must be >= 1, got {self.filters}")

def build(config: Hyperparameters, input_shape, classes):
    channels, height, width = input_shape
    pixels = channels * height * width
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, config.filters), nn.Linear(config.filters, classes))

def wrong_outputs(config, input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], classes + 1))

def raising(config, input_shape, classes):
    return nn.Sequential(nn.Linear(5, classes))

def single(config, input_shape, classes):
    normalisation = nn.BatchNorm1d(4, track_running_stats=False)  # needs several images to classify one
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), normalisation, nn.Linear(4, classes))

class Logits(nn.Sequential):
    def forward(self, images):
        logits = super().forward(images)
        return logits + 1j if self[1].bias is None else logits.round().long()

def complex_logits(config, input_shape, classes):
    return Logits(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], classes, bias=False))

def whole_logits(config, input_shape, classes):
    return Logits(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], classes))

def no_module(config, input_shape, classes):
    return lambda images: images

def no_parameters(config, input_shape, classes):
    return nn.Flatten()

@dataclass
class Melting:
    filters: int = 4

def melting(config: Melting, input_shape, classes):
    return nn.Linear(1, 1)

@dataclass(frozen=True)
class Taken:
    learning_rate: float = 4

def taken(config: Taken, input_shape, classes):
    return nn.Linear(1, 1)

@dataclass(frozen=True)
class Listed:
    sizes: tuple = (1, 2)

def listed(config: Listed, input_shape, classes):
    return nn.Linear(1, 1)

@dataclass(frozen=True)
class Bare:
    filters: int

def bare(config: Bare, input_shape, classes):
    return nn.Linear(1, 1)
"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    return file


def test_network_from_a_file_has_hyperparameters_of_its_own(networks: Path) -> None:
    kind = config_type(f"{networks}:build")
    config = kind(network=f"{networks}:build", learning_rate=0.1, filters=3)  # type: ignore[call-arg]
    assert build_network(config, (1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(ValueError, match="filters must be >= 1, got 0"):
        kind(filters=0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="learning_rate must be > 0"):
        kind(learning_rate=-1.0)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wrong_outputs", "must return logits of shape (N, 10), got (2, 11) for 2 images"),
        ("raising", "cannot take images of 1 x 8 x 8: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("single", "cannot take a single image of 1 x 8 x 8: ValueError: Expected more than 1 value per channel"),
        ("complex_logits", "must return logits that are real numbers, got torch.complex64"),
        ("whole_logits", "must return logits that are real numbers, got torch.int64"),
        ("no_module", "returned function, which is not a torch.nn.Module"),
        ("no_parameters", "has no parameters to train"),
        ("melting", "Melting must be a frozen dataclass"),
        ("taken", "learning_rate is already an option of every training"),
        ("listed", "sizes must be an int, float, str, bool, Literal, Enum or Path"),
        ("bare", "hyperparameter filters needs a default"),
        ("missing", "has no function missing"),
    ],
)
def test_network_that_breaks_a_rule_is_refused_before_any_trial(networks: Path, name: str, sentence: str) -> None:
    place = f"{networks}:{name}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build_network(config_type(place)(network=place), (1, 8, 8), 10)


ENDS = """
import functools, os, sys
from typing import Annotated, Any, NamedTuple
import numpy as np

def stops_early(config):
    losses = [3.0, 2.0, 1.0, 2.0] if config["slope"] >= 1.5 else [5.0] * 10
    for loss in losses:
        yield {"loss": loss}

def saves_at_its_end(slope, epochs):
    for epoch in range(epochs):
        yield {"loss": 1.0}
    with open("saved.txt", "a") as notes:
        notes.write("saved\\n")

def long(slope):
    for epoch in range(25):
        yield {"loss": slope / (epoch + 1)}
    with open("saved.txt", "a") as notes:
        notes.write("saved\\n")

def sometimes(slope):
    for epoch in range(1, 7):
        loss = {"loss": float("nan") if epoch == 4 else slope / epoch} if epoch % 2 == 0 else {}
        yield {"train_loss": 1.0, **loss}

def by_name(slope, bias=2.0, *, seed, checkpoint=None):
    yield {"loss": slope * bias + 0 * seed}

def prints(slope, trial_folder):
    print("printed", slope, flush=True)
    print("to stderr", file=sys.stderr)
    assert os.environ["TUNESMITH_TRIAL_FOLDER"] == trial_folder
    with open(f"{trial_folder}/own.txt", "w") as stream:
        stream.write("own")
    yield {"loss": 1.0}
    print("after the yield")

def by_place(slope, checkpoint, /, *, seed):
    yield {"loss": 2 * slope + 0 * seed}

def from_ray(config: Any, folder="data"):
    yield {"loss": 2 * config["slope"]}

def scaled(slope, scale):
    yield {"loss": slope * scale}

part = functools.partial(scaled, scale=2)

class Callable:
    def __call__(self, slope: Annotated[float, "steep"]):
        yield {"loss": 2 * slope}

called = Callable()

def odd_programs(slope, report):
    sys.stdout.reconfigure(line_buffering=True)
    sys.stdout.buffer.write(b"bytes\\xff\\n")
    print(sys.stdout.encoding, sys.stderr.isatty())
    sys.stdout.close()
    os.environ.clear()
    report({"loss": np.array([2 * slope])})
    return Callable()

def no_words(slope):
    raise Wordless

class Wordless(Exception):
    def __str__(self):
        raise RuntimeError

def no_text(slope):
    raise AssertionError

async def asynchronous(config):
    yield {"loss": 1.0}

def forwards(*args, **options):
    return from_ray(*args, **options)

class Config(NamedTuple):
    slope: float

def named_tuple(config: Config):
    yield {"loss": 1.0}

def whole(slope: int):
    yield {"loss": 1.0}

def conditional(slope, kind, other):
    yield {"loss": 1.0}

def needs_epochs(slope, epochs):
    yield {"loss": 1.0}

class Class:
    pass

def other_name(rate):
    yield {"loss": 1.0}

def two_names(slope, rate):
    yield {"loss": 1.0}

def no_place(bias=1.0, rate=1.0):
    yield {"loss": 1.0}
"""


@pytest.fixture
def ends(tmp_path: Path) -> Path:
    (tmp_path / "ends.py").write_text(ENDS)
    (tmp_path / "space.toml").write_text("[slope]\nlow = 1.0\nhigh = 2.0\n")
    return tmp_path


def run_own(folder: Path, name: str, *options: str, epochs: int | None = 10) -> CompletedRun:
    function = ["--train-function", f"{folder}/ends.py:{name}", "--space", f"{folder}/space.toml", "--name", name]
    searched = ["--metric", "loss", "--num-samples", "8", *(["--epochs", str(epochs)] if epochs else [])]
    return run_command("search/run.py", *function, *searched, "--results-dir", f"{folder}/out", *options, cwd=folder)


def test_training_that_ends_by_itself_is_complete_and_its_best_value_counts(ends: Path) -> None:
    run = run_own(ends, "stops_early", "--sampler", "random", "--grace-period", "5")
    assert run.status == 0, run.stderr
    trials = pd.read_csv(ends / "out" / "stops_early" / "trials.csv").set_index("trial_number")
    short = trials["slope"] >= 1.5
    assert 0 < short.sum() < 8
    assert (trials["status"][short] == "completed").all()
    assert (trials["epochs"][short] == 4).all()
    assert (trials["loss"][short] == 1.0).all()
    assert short.iloc[: short.sum()].all()  # they are the best
    assert "stopped_early" in set(trials["status"][~short])  # by comparison with one that ended before
    record = StudyRecord.open(ends / "out" / "stops_early")
    assert [trial.ended_by_itself for trial in record.trials] == [bool(short[number]) for number in range(8)]
    assert record.study.best_value == 1.0


def test_training_without_a_limit_runs_to_its_own_end(ends: Path) -> None:
    run = run_own(ends, "long", "--num-samples", "3", "--scheduler", "asha", epochs=None)
    assert run.status == 0, run.stderr
    assert re.search("search +3 trials for the lowest loss", run.stdout)
    trials = pd.read_csv(ends / "out" / "long" / "trials.csv").set_index("trial_number")
    assert (trials["status"][0], trials["epochs"][0]) == ("completed", 25)
    assert (ends / "saved.txt").read_text().startswith("saved")
    assert StudyRecord.open(ends / "out" / "long").epochs == 25


@pytest.mark.parametrize("scheduler", ["asha", "median", "hyperband"])
def test_trainings_of_one_epoch_are_complete_whatever_the_scheduler(ends: Path, scheduler: str) -> None:
    run = run_own(ends, "scaled", "--set", "scale=2", "--scheduler", scheduler, epochs=None)
    assert run.status == 0, run.stderr
    trials = pd.read_csv(ends / "out" / "scaled" / "trials.csv")
    assert list(trials["status"]) == ["completed"] * 8


def test_printed_command_names_the_function_without_which_the_study_does_not_continue(ends: Path) -> None:
    run = run_own(ends, "long", "--time-budget", "1s", "--num-samples", "10000")
    command = shlex.split(re.findall("To continue: python (.*)", run.stdout)[0])
    resumed = run_command(*command, "--num-samples", "1", cwd=ends)
    assert resumed.status == 0, resumed.stderr


def test_what_stands_behind_the_loop_is_run(ends: Path) -> None:
    run = run_own(ends, "saves_at_its_end", "--num-samples", "2")
    assert run.status == 0, run.stderr
    assert (ends / "saved.txt").read_text() == "saved\n" * 2


def test_function_takes_its_hyperparameters_by_name(ends: Path) -> None:
    run = run_own(ends, "by_name", "--num-samples", "2")
    assert run.status == 0, run.stderr
    trials = pd.read_csv(ends / "out" / "by_name" / "trials.csv")
    assert trials["loss"].tolist() == pytest.approx((2 * trials["slope"]).tolist())


def test_trial_has_a_folder_with_what_it_prints(ends: Path) -> None:
    run = run_own(ends, "prints", "--num-samples", "2")
    assert run.status == 0, run.stderr
    assert "printed" not in run.stdout
    slopes = pd.read_csv(ends / "out" / "prints" / "trials.csv").set_index("trial_number")["slope"]
    for number in (0, 1):
        folder = ends / "out" / "prints" / "trials" / f"{number:04}"
        assert (folder / "own.txt").read_text() == "own"
        printed = (folder / "log.txt").read_text().splitlines()
        assert printed[:2] == [f"printed {slopes[number]}", "to stderr"]
        assert printed[-1] == "after the yield"


@pytest.mark.parametrize("name", ["by_place", "from_ray", "part", "called", "odd_programs"])
def test_function_of_another_kind_runs(ends: Path, name: str) -> None:
    run = run_own(ends, name, "--num-samples", "2")
    assert run.status == 0, run.stderr
    trials = pd.read_csv(ends / "out" / name / "trials.csv")
    assert (trials["loss"] == 2 * trials["slope"]).all()
    if name == "odd_programs":
        printed = (ends / "out" / name / "trials" / "0000" / "log.txt").read_bytes()
        assert printed.startswith(b"bytes\xff\nutf-8 False\n")
        assert os.environ["PATH"]  # for the next trial of the process


@pytest.mark.parametrize(("name", "text"), [("no_words", "Wordless"), ("no_text", "AssertionError (ends.py, line ")])
def test_error_without_a_text_is_named(ends: Path, name: str, text: str) -> None:
    run_own(ends, name, "--num-samples", "1")
    (error,) = pd.read_csv(ends / "out" / name / "trials.csv")["error"]
    assert error.startswith(text)


def test_function_is_tried_with_the_whole_space_before_any_trial(ends: Path) -> None:
    (ends / "space.toml").write_text(
        "[slope]\nlow = 1.0\nhigh = 2.0\n[kind]\nchoices = [1, 2]\n[other]\nlow = 1.0\nhigh = 2.0\nwhen = {kind = 1}\n"
    )
    run = run_own(ends, "conditional")
    assert run.status == 2
    assert run.stderr.endswith("conditional: other needs a default, for the search space does not always have it\n")
    (ends / "space.toml").write_text("[slope]\nlow = 1.0\nhigh = 2.0\n")
    run = run_own(ends, "needs_epochs", epochs=None)
    assert run.stderr.endswith("needs_epochs needs epochs, which only --epochs sets\n")
    run = run_own(ends, "whole")
    assert re.search(r"whole: slope must be a whole number, got 1\.\d+\n$", run.stderr)
    run = run_own(ends, "named_tuple")
    assert "a dictionary of all, but its type is Config; only a dataclass in the first place is made" in run.stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("forwards", "does not name its parameters, but takes *args; a decorator keeps the names with functools.wraps"),
        ("asynchronous", "is asynchronous; its definition must begin with def, not async def"),
        ("Class", "is a class; name a function that yields metrics"),
        ("two_names", "needs rate, which is no hyperparameter of the search space"),
        ("no_place", "has no parameter for the hyperparameter slope"),
    ],
)
def test_function_that_cannot_be_called_is_refused_before_any_trial(ends: Path, name: str, sentence: str) -> None:
    run = run_own(ends, name)
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr == f"error: train_function {ends}/ends.py:{name} {sentence}\n"
    assert not (ends / "out" / name).exists()
