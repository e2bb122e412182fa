"""Confirming a study of a training function of the user's own."""

import re
import shlex
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from own_code import search_function as search
from own_code import write_functions
from serial_ray import CompletedRun, StartedRun, run_command

from search.record.study_record import StudyRecord

FUNCTIONS = """
import random
import time
import torch
from torch import nn

def train(lr, seed, checkpoint):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for epoch in range(checkpoint.load(model=model, optimizer=optimizer), 4):
        inputs = torch.randn(64, 2)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        checkpoint.save(epoch + 1, model=model, optimizer=optimizer)
        yield {"val_loss": loss, "test_error": 2 * loss, "seed_seen": seed}

def slow(lr, checkpoint):
    for epoch in range(checkpoint.load(), 6):
        time.sleep(0.02)
        loss = random.random()
        checkpoint.save(epoch + 1)
        yield {"val_loss": loss}

def without_seed(lr):
    for epoch in range(4):
        yield {"val_loss": random.random() + lr}

def deterministic(lr):
    for epoch in range(4):
        yield {"val_loss": lr / (epoch + 1)}

def uneven(lr, seed):
    for epoch in range(2 + seed % 3):
        yield {"points": -1 + lr * (epoch + random.random())}

def every_second_epoch(lr, seed):
    for epoch in range(5):
        yield {"train_loss": random.random()} | ({"val_loss": random.random()} if epoch % 2 else {})

def test_only(lr, seed):
    yield {"test_loss": lr}

def as_hyperparameter(lr, seed):
    yield {"val_loss": lr * seed}

def fails(lr, seed):
    if seed > 2:
        raise ValueError("boom")
    yield {"val_loss": lr}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return write_functions(tmp_path, FUNCTIONS)


def confirm(place: Path, function: str, top: int = 2) -> CompletedRun:
    study = [f"{place}/out/{function}", "--train-function", f"{place}/own.py:{function}"]
    return run_command("search/confirm.py", *study, "--top", str(top), "--seeds", "2")


def words(text: str) -> str:
    return " ".join(text.split())


def test_seed_as_a_hyperparameter_is_refused_before_the_search(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def train(lr, seed):\n    yield {'loss': lr}\n")
    (tmp_path / "space.toml").write_text("[lr]\nlow = 0.1\nhigh = 1.0\n[seed]\nlow = 0\nhigh = 9\n")
    options = ["--train-function", "f.py:train", "--space", "space.toml", "--metric", "loss", "--confirm", "2x2"]
    ended = run_command("search/run.py", *options, "--results-dir", "out", cwd=tmp_path)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: confirm trains again from new seeds, so seed cannot be a hyperparameter")
    assert not (tmp_path / "out").exists()


def test_training_function_is_confirmed_from_fresh_seeds(place: Path) -> None:
    study = search(place, "train", "--confirm", "2x2")
    assert study.status == 0, study.stdout + study.stderr
    folder = place / "out" / "train"
    trainings = pd.read_csv(folder / "confirm" / "trials.csv")
    assert sorted(trainings["seed"]) == [3, 3, 4, 4, 5, 6]
    assert (trainings["seed_seen"] == trainings["seed"]).all()
    table = pd.read_csv(folder / "confirm.csv")
    winner, confirmed = table["trial_number"][0], trainings[trainings["seed"] > 4]
    record = StudyRecord.open(folder)
    confirmation = record.metadata.confirmation
    assert confirmation is not None
    assert (confirmation.winner.trial, confirmation.winner.epochs) == (winner, table["epochs"][0])
    epochs = pd.read_csv(folder / "confirm" / "epochs.csv")
    chosen = epochs[epochs["trial_number"].isin(confirmed["trial_number"])]
    values = chosen[chosen["epoch"] == table["epochs"][0]]["val_loss"]
    assert table["confirmed_mean"][0] == pytest.approx(values.mean())
    assert table["test_error_mean"][0] == pytest.approx(2 * table["mean"][0])
    printed = words(study.stdout)
    mean, low, high = (table[f"confirmed_{name}"][0] for name in ("mean", "low", "high"))
    assert f"Expect val_loss {mean:.4f} from this configuration (95 % interval {low:.4f} to {high:.4f})." in printed
    assert f"The same trainings measured test_error {2 * mean:.4f} (95 % interval" in printed
    assert f"Trial {winner} was chosen, because the upper bound of its interval is the lowest." in printed
    assert not re.search("images|accuracy|nats|points", study.stdout)
    best = confirmation.best
    assert best is not None
    of_winner = trainings[trainings["lr"] == table["lr"][0]]
    assert best.value == of_winner["val_loss"].min()
    assert (folder / f"confirm/checkpoints/trial-{best.training:04}-epoch-{best.epoch:04}.pt").is_file()
    assert f"<dt>expected val_loss</dt><dd>{mean:.4f}</dd>" in (folder / "report.html").read_text()


def test_same_command_tells_the_result_again_and_trains_nothing(place: Path) -> None:
    assert search(place, "train").status == 0
    first = confirm(place, "train")
    assert first.status == 0, first.stdout + first.stderr
    record = (place / "out/train/confirm/study.db").read_bytes()
    again = confirm(place, "train")
    assert again.status == 0, again.stderr
    assert again.stdout.strip() == first.stdout[first.stdout.index("Confirmed: ") :].strip()
    assert (place / "out/train/confirm/study.db").read_bytes() == record


def test_killed_confirmation_continues_with_the_same_numbers(place: Path) -> None:
    for name in ("whole", "killed"):
        study = search(place, "slow", "--name", name, "--num-samples", "2")
        assert study.status == 0, study.stderr
    command = ["search/confirm.py", "--train-function", f"{place}/own.py:slow", "--top", "2", "--seeds", "2"]
    confirmed = []
    with StartedRun(*command, f"{place}/out/killed") as killed:
        saved, deadline = place / "out/killed/confirm/checkpoints", time.monotonic() + 60
        while not list(saved.glob("trial-0003-last-000[3-5]*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed.send(signal.SIGKILL)
        killed.end()
    for name in ("whole", "killed"):
        run = run_command(*command, f"{place}/out/{name}")
        assert run.status == 0, run.stdout + run.stderr
        confirmed.append(pd.read_csv(place / "out" / name / "confirm.csv"))
    assert "3 ended trials; 3 to run, 1 of them continues after the last epoch" in run.stdout
    whole, continued = confirmed
    pd.testing.assert_frame_equal(continued, whole)


def test_printed_commands_name_the_code_and_work(place: Path) -> None:
    study = search(place, "train")
    for name, options in (("Confirm", ["--top", "2", "--seeds", "2"]), ("Reproduce", [])):
        command = shlex.split(re.findall(f"^{name}: python (.*)", study.stdout, re.MULTILINE)[0])
        run = run_command(*command, *options)
        assert run.status == 0, run.stdout + run.stderr


def test_code_runs_only_if_it_is_named(place: Path) -> None:
    assert search(place, "train").status == 0
    refused = run_command("search/confirm.py", f"{place}/out/train")
    assert (refused.status, refused.stdout) == (2, "")
    assert f"study train needs the code of {place}/own.py:train: add --train-function" in refused.stderr


def test_function_without_a_seed_is_seeded_through_the_generators(place: Path) -> None:
    assert search(place, "without_seed").status == 0
    run = confirm(place, "without_seed")
    assert run.status == 0, run.stdout + run.stderr
    assert "takes no seed: the generators of Python, NumPy and torch were seeded before it ran" in words(run.stdout)
    assert pd.read_csv(place / "out/without_seed/confirm.csv")["confirmed_standard_deviation"][0] > 0


def test_function_that_does_not_depend_on_its_seed_gets_no_false_certainty(place: Path) -> None:
    assert search(place, "deterministic").status == 0
    run = confirm(place, "deterministic")
    assert "measured val_loss" in run.stdout
    assert "which is optimistic" not in run.stdout
    assert run.status == 0, run.stdout + run.stderr
    assert "the training does not depend on its seed, or sets a seed of its own" in words(run.stdout)


def test_training_that_ended_before_the_others_counts_with_its_last_value(place: Path) -> None:
    study = search(place, "uneven", "--metric", "points", "--mode", "max", "--scheduler", "none", "--confirm", "1x3")
    assert study.status == 0, study.stdout + study.stderr
    table = pd.read_csv(place / "out/uneven/confirm.csv")
    epochs = pd.read_csv(place / "out/uneven/confirm/epochs.csv")
    chosen = epochs[(epochs["trial_number"] < 3) & (epochs["epoch"] <= table["epochs"][0])]
    assert table["mean"][0] == pytest.approx(chosen.groupby("trial_number")["points"].last().mean())
    assert table["low"][0] < table["mean"][0] < 0  # these points are not those of an accuracy


def test_metric_may_be_missing_in_some_epochs(place: Path) -> None:
    study = search(place, "every_second_epoch", "--confirm", "1x3")
    assert study.status == 0, study.stdout + study.stderr
    table = pd.read_csv(place / "out/every_second_epoch/confirm.csv")
    epochs = pd.read_csv(place / "out/every_second_epoch/confirm/epochs.csv")
    means = epochs[epochs["trial_number"] < 3].groupby("epoch")["val_loss"].mean()
    assert (table["epochs"][0], table["mean"][0]) == (means.idxmin(), pytest.approx(means.min()))


@pytest.mark.parametrize(
    ("function", "options", "sentence"),
    [
        ("test_only", ["--metric", "test_loss"], "study test_only was searched by test_loss: the test data would"),
        ("as_hyperparameter", ["--set", "seed=3"], "study as_hyperparameter has seed among its hyperparameters"),
    ],
)
def test_what_cannot_be_confirmed_is_refused(place: Path, function: str, options: list[str], sentence: str) -> None:
    assert search(place, function, *options).status == 0
    run = confirm(place, function)
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr.startswith(f"error: {sentence}")
    assert run.stderr.count("\n") == 1


def test_confirmation_without_enough_trainings_has_no_result(place: Path) -> None:
    assert search(place, "fails").status == 0
    for _ in range(2):
        run = confirm(place, "fails", top=1)
        assert run.status == 1
        assert "There is no result: no configuration completed its training from at least 2 seeds" in run.stdout
