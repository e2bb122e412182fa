"""Data that a training function loads once for all trials."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from serial_ray import CompletedRun, run_command

from search.engine.shared_data import SharedData

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


CHANGES = """
import torch

def load():
    return {"weights": torch.ones(3), "model": torch.nn.Linear(2, 1)}

def in_place(rate, data):
    yield {"loss": rate}
    data["weights"][:2] += rate
    yield {"loss": rate}

def at_its_end(rate, data):
    yield {"loss": rate}
    with torch.no_grad():
        data["model"].weight.add_(1)

def copies(rate, data):
    weights = data["weights"].clone()
    weights += rate
    yield {"loss": rate, "sum": data["weights"].sum()}
"""


@pytest.mark.parametrize("name", ["in_place", "at_its_end"])
def test_trial_that_changes_a_shared_tensor_fails_and_so_do_those_after_it(place: Path, name: str) -> None:
    Path("program.py").write_text(CHANGES)
    ended = run(name, "--scheduler", "none", "--num-samples", "5")
    assert ended.status == 1
    assert "3 trials in a row raised the same error" in ended.stdout
    assert set(trials(name)["epochs"]) <= {0, 1}
    sentence = "ValueError: the training has changed a tensor of load() in place, which all trials read: change a copy"
    assert {error.partition(" of it")[0] for error in trials(name)["error"]} == {sentence}


def test_trial_may_change_copies_of_shared_tensors(place: Path) -> None:
    Path("program.py").write_text(CHANGES)
    assert run("copies").status == 0
    assert set(trials("copies")["sum"]) == {3.0}


def test_worker_that_reads_shared_tensors_knows_that_another_one_has_changed_them(place: Path) -> None:
    """Ray gives both the same memory; here this is what they unpickle."""
    ours = SharedData("program.py:train", None, [torch.ones(3)])
    theirs = SharedData("program.py:train", None, [torch.ones(3)], ours.is_changed)
    theirs.check()
    ours.tensors[0].detach().add_(1)
    for data in (ours, theirs):
        with pytest.raises(ValueError, match=r"has changed a tensor of load\(\) in place"):
            data.check()
