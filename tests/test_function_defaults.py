"""Defaults of a training function's parameters are the point with which a study begins, if it lies in the space."""

from pathlib import Path

import pandas as pd
import pytest
from serial_ray import run_command

from search.record.study_record import StudyRecord

TRAINING = """
from enum import Enum

class Kernel(Enum):
    RBF = "rbf"
    LINEAR = "linear"

def train(lr=1, momentum=0.5, kernel: Kernel = Kernel.LINEAR, hidden=4, other=None):
    yield {"loss": lr * momentum}

def without_one(lr, momentum=0.5, kernel="LINEAR", hidden=4):
    yield {"loss": lr * momentum}

def outside(lr=0.0, momentum=0.5, kernel="LINEAR", hidden=4):
    yield {"loss": lr * momentum}

def unset(lr=None, momentum=None, kernel=None, hidden=None):
    yield {"loss": lr * momentum}
"""
SPACE = """
[lr]
low = 0.1
high = 2.0
[momentum]
low = 0.0
high = 0.9
[kernel]
choices = ["RBF", "LINEAR"]
[hidden]
ordered = [2, 4, 8]
when = { kernel = "LINEAR" }
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(TRAINING)
    (tmp_path / "space.toml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(name: str, *options: str) -> StudyRecord:
    words = ["--train-function", f"own.py:{name}", "--space", "space.toml", "--metric", "loss", "--name", "study"]
    run = run_command("search/run.py", *words, "--results-dir", "out", "--num-samples", "2", *options)
    assert run.status == 0, run.stderr
    return StudyRecord.open(Path("out/study"))


def test_study_begins_with_the_defaults_of_a_function(place: Path) -> None:
    first, second = search("train").trials
    assert first.is_baseline
    assert first.hyperparameters == {"lr": 1.0, "momentum": 0.5, "kernel": "LINEAR", "hidden": 4}
    assert isinstance(first.hyperparameters["lr"], float)  # the range has such numbers, the parameter has not
    assert not second.is_baseline
    assert pd.read_csv("out/study/trials.csv").set_index("trial_number").loc[0, "loss"] == 0.5


def test_value_that_is_fixed_is_no_part_of_the_starting_point(place: Path) -> None:
    first, _ = search("train", "--set", "momentum=0.25").trials
    assert first.is_baseline
    assert first.hyperparameters == {"lr": 1.0, "kernel": "LINEAR", "hidden": 4}


@pytest.mark.parametrize(
    ("name", "options"), [("without_one", []), ("outside", []), ("unset", []), ("train", ["--no-baseline"])]
)
def test_study_begins_with_the_sampler_without_such_a_point(place: Path, name: str, options: list[str]) -> None:
    assert not any(trial.is_baseline for trial in search(name, *options).trials)
