"""Data that a training function loads once for all trials."""

from pathlib import Path

import pandas as pd
import pytest
from serial_ray import CompletedRun, run_command

PROGRAM = """
import random
from dataclasses import dataclass
import numpy as np

@dataclass
class Data:
    labels: np.ndarray
    split: float

def load():
    with open("loaded.txt", "a") as notes:
        notes.write("loaded\\n")
    return {"parts": [Data(np.arange(10), random.random())]}

def train(rate, data):
    (part,) = data["parts"]
    yield {"loss": rate, "labels": part.labels.sum(), "split": part.split}

def no_loader_needed(rate, data=None):
    yield {"loss": rate}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "space.toml").write_text("[rate]\nlow = 1.0\nhigh = 2.0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str = "train", *options: str, file: str = "program.py") -> CompletedRun:
    function = ["--train-function", f"{file}:{name}", "--space", "space.toml", "--name", name]
    searched = ["--metric", "loss", "--num-samples", "3", "--results-dir", "out"]
    return run_command("search/run.py", *function, *searched, *options)


def trials(name: str = "train") -> pd.DataFrame:
    return pd.read_csv(f"out/{name}/trials.csv")


def test_data_are_loaded_once_and_reach_every_trial(place: Path) -> None:
    assert run().status == 0
    (split,) = set(trials()["split"])
    assert set(trials()["labels"]) == {45.0}
    assert Path("loaded.txt").read_text() == "loaded\n"
    resume = ["--resume", "out/train", "--train-function", "program.py:train", "--num-samples", "4"]
    again = run_command("search/run.py", *resume)
    assert again.status == 0, again.stderr
    assert set(trials()["split"]) == {split}  # a split that is drawn is the same when the study is resumed


def test_function_without_a_loader_has_its_default(place: Path) -> None:
    assert run("no_loader_needed").status == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "needs data, which is no hyperparameter of the search space: define a function load() beside it"),
        ("def load():\n    open('missing.csv')", "the function load beside it fails: FileNotFoundError"),
        ("def load(path):\n    return 1", "the function load beside it fails: TypeError"),
        ("def load():\n    yield 1", "trials cannot receive what the function load returns: TypeError: cannot pickle"),
    ],
)
def test_data_that_cannot_be_loaded_are_one_sentence(place: Path, text: str, sentence: str) -> None:
    (place / "other.py").write_text(f"{text}\ndef train(rate, data):\n    yield {{'loss': rate}}\n")
    ended = run(file="other.py")
    assert ended.status == 2
    assert sentence in ended.stderr
    assert not (place / "out" / "train").exists()
