"""Reproducing trials of a training function of the user's own."""

import re
import signal
import sys
import time
from pathlib import Path

import pytest
from own_code import write_functions
from serial_ray import CompletedRun, StartedRun, run_command

from search.record.study_record import StudyRecord
from training.console.terminal import format_metric
from training.user_code import load_code

FUNCTIONS = """
import random
import time
import optuna

def train(lr, seed, checkpoint):
    print("printed by the function")
    start = checkpoint.load()
    for epoch in range(start, 4):
        loss = lr * random.random() + seed
        checkpoint.save(epoch + 1)
        yield {"val_loss": loss, "draw": random.random()}

def no_seed(lr):
    draws = random.Random()  # of the operating system
    for epoch in range(3):
        yield {"val_loss": lr, "draw": draws.random()}

def by_call(lr, report):
    for epoch in range(3):
        report({"val_loss": lr + random.random()})

def load():
    return [random.random() for _ in range(3)]

def with_data(lr, data):
    for value in data:
        yield {"train_loss": value}
        yield {"train_loss": value, "val_loss": lr * value}

def objective(trial):
    for epoch in range(3):
        trial.report(trial.suggest_float("lr", 0.01, 0.5, log=True) * random.random(), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return random.random()

def diverges(lr):
    yield {"val_loss": 1.0}
    yield {"val_loss": float("nan")}

def raises(lr):
    yield {"val_loss": 1.0}
    raise ValueError("boom")

def slow(lr):
    for epoch in range(8):
        time.sleep(0.05)
        yield {"val_loss": random.random()}
"""


def words(text: str) -> str:
    """A text whose lines may be broken anywhere."""
    return " ".join(text.split())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return write_functions(tmp_path, FUNCTIONS)


def study(place: Path, function: str, *options: str) -> list[str]:
    code = ["--train-function", f"{place}/own.py:{function}", "--space", f"{place}/space.toml"]
    searched = ["--metric", "val_loss", "--num-samples", "2", "--name", function, "--scheduler", "none"]
    return ["search/run.py", *code, *searched, "--results-dir", f"{place}/out", *options]


def reproduce(place: Path, function: str, trial: int = 1) -> CompletedRun:
    code = ["--train-function", f"{place}/own.py:{function}"]
    return run_command("search/reproduce.py", f"{place}/out/{function}", str(trial), *code)


@pytest.mark.parametrize("function", ["train", "by_call", "with_data", "objective"])
def test_trial_gives_the_same_numbers_again(place: Path, function: str) -> None:
    run_command(*study(place, function))
    before = {file: file.read_bytes() for file in (place / "out" / function).rglob("*") if file.is_file()}
    run = reproduce(place, function)
    assert run.status == 0, run.stdout + run.stderr
    epochs = StudyRecord.open(place / "out" / function).trials[1].epochs
    ended = f"The trial agrees with its record: all metrics of {len(epochs)} epochs are equal to the last digit."
    assert words(run.stdout).endswith(ended)
    assert f"  completed after {len(epochs)} epochs\n" in run.stdout
    for metrics in epochs:
        value = format_metric(metrics.values["val_loss"]) if "val_loss" in metrics.values else "-"
        assert re.search(rf"^ +{metrics.epoch} +{value} +{value} .* +equal$", run.stdout, re.MULTILINE)
    assert "printed by the function" not in run.stdout
    assert {file: file.read_bytes() for file in before} == before


def test_difference_is_told_with_what_may_be_its_reason(place: Path) -> None:
    run_command(*study(place, "no_seed"))
    run = reproduce(place, "no_seed")
    assert run.status == 1
    assert "3 of 3 epochs differ, the first is epoch 1; the largest differences are draw " in words(run.stdout)
    assert "val_loss is the same in all epochs." in words(run.stdout)
    assert "Versions, machine and code are the same, as far as they were recorded." in words(run.stdout)
    reason = "the function takes no seed, and only the generators of Python, NumPy and torch are seeded"
    assert f"This may be a reason: {reason}" in words(run.stdout)


def test_changed_function_is_named_and_may_end_elsewhere(place: Path) -> None:
    run_command(*study(place, "by_call"))
    (place / "own.py").write_text(FUNCTIONS.replace("range(3)", "range(5)"))
    load_code.cache_clear()  # another process imports the file again
    sys.modules.pop("own", None)
    run = reproduce(place, "by_call")
    assert run.status == 1
    ends = "the repeated training reached epoch 4, the recorded one ended by itself after epoch 3"
    assert f"The end differs: {ends}." in words(run.stdout)
    assert "code: own.py of " in words(run.stdout)


@pytest.mark.parametrize(
    ("function", "end"), [("diverges", "diverged as recorded: val_loss is nan"), ("raises", "failed as recorded: Val")]
)
def test_failed_training_fails_again(place: Path, function: str, end: str) -> None:
    run_command(*study(place, function))
    run = reproduce(place, function)
    assert run.status == 0, run.stdout
    assert end in run.stdout


def test_trial_that_started_again_without_a_checkpoint_agrees(place: Path) -> None:
    with StartedRun(*study(place, "slow", "--num-samples", "1")) as killed:
        database = place / "out/slow/study.db"
        deadline = time.monotonic() + 60
        while not (database.exists() and b"epoch 3" in database.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killed.send(signal.SIGKILL)
        killed.end()
    resumed = run_command("search/run.py", "--resume", f"{place}/out/slow", "--train-function", f"{place}/own.py:slow")
    assert resumed.status == 0, resumed.stderr
    assert {timing.session for timing in StudyRecord.open(place / "out/slow").trials[0].timings.values()} == {0, 1}
    run = reproduce(place, "slow", trial=0)
    assert run.status == 0, run.stdout
    assert "all metrics of 8 epochs are equal to the last digit" in words(run.stdout)


def test_code_runs_only_if_it_is_named(place: Path) -> None:
    run_command(*study(place, "train"))
    refused = run_command("search/reproduce.py", f"{place}/out/train", "0")
    assert (refused.status, refused.stdout) == (2, "")
    assert f"study train needs the code of {place}/own.py:train: add --train-function" in refused.stderr
