"""Whole studies of code that other people wrote: files beside it, processes, exits, its own folder."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from serial_ray import CompletedRun, run_command
from studies import run_function

from search.engine.local_ray import StudyJobConfig
from training.config import PROJECT

SPACE = "[rate]\nlow = 0.0\nhigh = 1.0\n"
TRAINING = """
import os, sys
from dataclasses import dataclass
from multiprocessing import get_context
import numpy as np
import torch
from settings import target
from threadpoolctl import threadpool_info

@dataclass(frozen=True)
class Config:
    rate: float = 0.1

@dataclass
class Data:
    images: torch.Tensor
    labels: np.ndarray

def load():
    return {{"parts": [Data(torch.ones(1000, 1000, dtype=torch.bfloat16), np.arange(200_000))]}}

class Score:
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, epoch):
        print("printed by a child", flush=True)
        return abs(self.rate - target()) / epoch, os.getcwd(), sys.argv

def train(config: Config, data):
    assert sys.argv == [__file__], sys.argv
    assert {{library["num_threads"] for library in threadpool_info()}} == {{1}}, threadpool_info()
    (part,) = data["parts"]
    assert part.images.shape == (1000, 1000) and part.images.float().sum() == 1e6
    assert part.labels[-1] == 199_999 and not part.labels.flags.writeable  # read in place, not copied
    with open("seen.txt", "a") as seen, get_context("{method}").Pool(1) as pool:
        for epoch in (1, 2):
            loss, *world = pool.map(Score(config.rate), [epoch])[0]
            print(*world, file=seen)
            print("printed by the training")
            yield {{"loss": loss}}
    os.chdir("/")
    sys.exit("no GPU found" if config.rate > 0.5 else 0)
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "space.toml").write_text(SPACE)
    return folder


def options_of(file: str, results: Path, *more: str) -> list[str]:
    words = ["--train-function", f"{file}.py:train", "--space", "space.toml", "--metric", "loss", "--mode", "min"]
    return [*words, "--name", "s", "--results-dir", str(results), "--no-dashboard", *more]


def search(folder: Path, file: str, results: Path, *more: str) -> tuple[CompletedRun, pd.DataFrame]:
    run = run_command("search/run.py", *options_of(file, results, *more), cwd=folder)
    return run, pd.read_csv(results / "s" / "trials.csv").sort_values("trial_number")


def classify(folder: Path, *options: str) -> CompletedRun:
    words = ["--dataset", "digits", "--num-samples", "2", "--epochs", "1", "--name", "s", "--results-dir", "out"]
    return run_command("search/run.py", *words, *options, cwd=folder)


@pytest.mark.ray
def test_training_runs_in_workers_as_its_file_would(tmp_path: Path) -> None:
    """The folder of the command, the modules beside the file, shared data, processes started by spawn, and an exit."""
    write(tmp_path, mine=TRAINING.format(method="spawn"), settings="def target():\n    return 0.3\n")
    for ours in ("scheduler", "training", "search"):
        (tmp_path / f"{ours}.py").write_text("raise ImportError('of the user, who does not import it')")
    command = [sys.executable, str(PROJECT / "search" / "run.py")]
    more = ["--num-samples", "3", "--epochs", "3", "--max-concurrent", "1", "--scheduler", "none"]
    run = subprocess.run(
        [*command, *options_of("mine", tmp_path / "out", *more)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    table = pd.read_csv(tmp_path / "out" / "s" / "trials.csv")
    exited = table["rate"] > 0.5
    line = next(number for number, text in enumerate(TRAINING.splitlines(), 1) if "sys.exit" in text)
    assert set(exited) == {True, False}, run.stderr
    assert set(table["error"][exited]) == {f"RuntimeError: SystemExit: no GPU found (mine.py, line {line})"}
    assert not table["error"][~exited].astype(str).str.contains("SystemExit").any()
    for folder in (tmp_path / "out" / "s" / "trials").iterdir():
        printed = (folder / "log.txt").read_text().splitlines()
        assert [printed.count(f"printed by {who}") for who in ("a child", "the training")] == [2, 2]
    assert {*(tmp_path / "seen.txt").read_text().splitlines()} == {f"{tmp_path} ['{tmp_path}/mine.py']"}


@pytest.mark.parametrize("ours", [PROJECT, None])
def test_workers_import_our_code_and_what_lies_beside_the_script_but_nothing_of_the_current_folder(
    ours: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.syspath_prepend(str(PROJECT))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "study.py").touch()
    for script, beside in (("-c", []), (str(tmp_path / "study.py"), [str(tmp_path)])):
        monkeypatch.setattr(sys, "argv", [script])
        config = StudyJobConfig(ours)
        config._py_driver_sys_path.append(str(PROJECT))  # as ray.init does with the current folder
        config._serialize()
        assert config._py_driver_sys_path == [*beside, *([str(ours)] if ours else [])]


def test_training_that_exits_is_a_failed_row_with_its_text(tmp_path: Path) -> None:
    write(tmp_path, mine="import sys\ndef train(config):\n    yield {'loss': 1.0}\n    sys.exit('no GPU found')\n")
    run, table = search(tmp_path, "mine", tmp_path / "out", "--num-samples", "9", "--epochs", "2")
    assert list(table["error"]) == ["RuntimeError: SystemExit: no GPU found (mine.py, line 4)"] * 3
    assert "3 trials in a row raised the same error, so the study ended early" in run.stdout
    assert run.status == 1


@pytest.mark.parametrize("end", ["sys.exit(0)", "sys.exit()", "exit(False)"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_exit_with_status_0_ends_a_training_as_return_does(tmp_path: Path, end: str, epochs: int) -> None:
    text = "import sys\ndef train(config):\n    for _ in range({}):\n        yield {{'loss': 1.0}}\n    {}\n"
    write(tmp_path, exits=text.format(epochs, end), returns=text.format(epochs, "return"))

    def outcome(name: str) -> list[str]:
        seen = []
        try:
            for metrics in run_function(f"{tmp_path}/{name}.py:train", {}, epochs=2, folder=tmp_path):
                seen.append(str(replace(metrics, seconds=0)))
        except ValueError as error:
            seen.append(str(error))
        return seen

    assert outcome("exits") == outcome("returns")


def test_whatever_a_training_raises_is_a_failed_row(tmp_path: Path) -> None:
    text = """
import asyncio

class Mine(BaseException):
    pass

ends = iter([KeyboardInterrupt, asyncio.CancelledError, Mine, SystemExit(3), GeneratorExit])

def train(config):
    yield {"loss": 1.0}
    raise next(ends)
"""
    options = ["--num-samples", "5", "--epochs", "2", "--scheduler", "none"]
    _, table = search(write(tmp_path, mine=text), "mine", tmp_path / "out", *options)
    names = ["KeyboardInterrupt", "CancelledError", "Mine", "SystemExit", "GeneratorExit"]
    assert [re.split("[: (]+", error)[:2] for error in table["error"]] == [["RuntimeError", name] for name in names]


def test_error_without_a_text_is_its_type_in_the_table(tmp_path: Path) -> None:
    write(tmp_path, mine="def train(config):\n    yield {'loss': 1.0}\n    assert config['rate'] > 9\n")
    _, table = search(tmp_path, "mine", tmp_path / "out", "--num-samples", "1")
    assert list(table["error"]) == ["AssertionError (mine.py, line 3)"]


def test_relative_files_are_those_in_the_folder_of_the_command(tmp_path: Path) -> None:
    text = """
import os
def train(config):
    assert open("data.csv").read() == "1"
    os.chdir("..")
    yield {"loss": 1.0}
"""
    (write(tmp_path, mine=text) / "data.csv").write_text("1")
    options = options_of("mine", Path("out"), "--num-samples", "3", "--epochs", "1")
    run_command("search/run.py", *options, cwd=tmp_path)
    table = pd.read_csv(tmp_path / "out" / "s" / "trials.csv")
    assert list(table["status"]) == ["completed"] * 3


NETWORK = """
from layers import block
from torch import nn

class Outputs(tuple):
    pass

class Net(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.body, self.head, self.auxiliary = block(inputs), nn.Linear(8, classes), nn.Linear(8, classes)

    def train(self, mode=True):
        super().train(mode)  # returns None

    def forward(self, x):
        hidden = self.body(x)
        return Outputs((self.head(hidden), self.auxiliary(hidden), None, x)) if self.training else self.head(hidden)

def build(config, input_shape, classes):
    return Net(64, classes)
"""
LAYERS = """
from torch import nn

def block(inputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU())
"""


def test_network_of_several_files_is_trained_exported_and_used_elsewhere(tmp_path: Path) -> None:
    """Its `train` returns None, and it returns auxiliary logits while training."""
    folder, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    folder.mkdir()
    write(folder, net=NETWORK, layers=LAYERS)
    run = classify(folder, "--network", "net.py:build")
    assert run.status == 0, run.stdout + run.stderr
    (folder / "out" / "s" / "model").rename(elsewhere)
    assert {file.name for file in elsewhere.glob("*.py")} == {"network.py", "net.py", "layers.py"}
    assert "It imports `net.py`, `layers.py`. Read these files, too." in (elsewhere / "README.md").read_text()
    for file in folder.glob("*.py"):
        file.write_text("raise SystemExit('the model has its own')")
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    predict = ["training/predict.py", str(elsewhere), str(tmp_path / "black.png"), "--trust-network"]
    used = run_command(*predict, cwd=tmp_path)
    assert used.status == 0, used.stderr
    (elsewhere / "layers.py").write_text(LAYERS + "\n")
    assert "is not the code that the model was trained with" in run_command(*predict, cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("option", "text", "sentence"),
    [
        (
            "--network",
            "def f(config, shape, classes):\n    return {28: 1}[shape[1]]",
            "failed: KeyError: 8 (mine.py, line 2)",
        ),
        (
            "--network",
            "def f(config, shape):\n    pass",
            "or its hyperparameters by name, each with a default; shape has none",
        ),
        ("--network", "def f(*_):\n    raise SystemExit('width too large')", "failed: SystemExit: width too large"),
        (
            "--network",
            "from torch import nn\nclass f(nn.Module):\n    def __init__(self, *_):\n        pass",
            "failed: AttributeError",
        ),
        (
            "--network",
            "from torch import nn\nclass f(nn.Linear):\n    def __init__(self, *_):\n        super().__init__(8, 8)\n"
            "    def train(self):\n        pass",
            "cannot take images of 1 x 8 x 8: TypeError",
        ),
        (
            "--network",
            "from torch import nn\nclass f(nn.Module):\n    def __init__(self, *_):\n        super().__init__()\n"
            "        self.layer = nn.Linear(64, 10)\n    def forward(self, images):\n"
            "        logits = self.layer(images.flatten(1))\n        return logits.detach()",
            "cannot be trained on images of 1 x 8 x 8: RuntimeError: element 0 of tensors does not require grad",
        ),
        (
            "--network",
            "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass H:\n    a: int = 1\n"
            "    def __post_init__(self):\n        assert self.a > 1\ndef f(config: H, shape, classes):\n    pass",
            "H: AssertionError (mine.py, line 6)",
        ),
        ("--network", "def f(config: 'Nothing[', shape, classes):\n    pass", "its annotations cannot be read"),
        ("--dataset", "def f():\n    raise SystemExit('no disk')", "failed: SystemExit: no disk (mine.py, line 2)"),
        ("--dataset", "import os\nos.nothing", "cannot be imported: AttributeError"),
    ],
)
def test_code_that_fails_while_it_is_tried_is_refused_in_one_sentence(
    tmp_path: Path, option: str, text: str, sentence: str
) -> None:
    run = classify(write(tmp_path, mine=text), option, "mine.py:f")
    assert run.status == 2
    assert run.stderr.startswith(f"error: {option[2:]} ") or "search space" in run.stderr
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
