"""Checkpoints of training functions of the user's own, by hand and in whole studies that are killed."""

import random
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from serial_ray import StartedRun, run_command
from torch import nn

from search.engine.reporter import Reporter
from search.record.trial import Objective
from training.checkpoint import Checkpoint

TRAINING = """
import random, time
from pathlib import Path
import torch
from torch import nn

def train(config, checkpoint):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    start = checkpoint.load(model=model, optimizer=optimizer)
    with open("begun.txt", "a") as notes:
        notes.write(f"{config['seed']} {start}\\n")
    for epoch in range(start, 30):
        inputs = torch.randn(32, 4)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(0.02)
        metrics = {"loss": loss, "draw": random.random()}
        checkpoint.save(epoch + 1, model=model, optimizer=optimizer)
        yield metrics
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "checkpoints" / "trial-0003.pt", tmp_path / "0003")


def again(checkpoint: Checkpoint, epochs: int) -> Checkpoint:
    """The checkpoint in another process, when so many epochs are recorded."""
    return Checkpoint(checkpoint.file, checkpoint.folder, epochs)


def report(checkpoint: Checkpoint, epoch: int, cost: float) -> None:
    """An epoch that the record gets."""
    checkpoint.measured(epoch, cost)
    checkpoint.reported(epoch)


def names(checkpoint: Checkpoint) -> list[str]:
    return sorted(file.name for file in checkpoint.file.parent.iterdir())


def test_what_was_saved_is_loaded(checkpoint: Checkpoint) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    assert checkpoint.load(model=model, optimizer=optimizer) == 0
    checkpoint.save(1, model=model, optimizer=optimizer, best=0.25, history=[1, 2], weights=torch.ones(3))
    report(checkpoint, 1, 0.5)
    drawn = random.random(), np.random.rand(), float(torch.rand(()))
    other = nn.Linear(2, 1)
    loaded = again(checkpoint, 1)
    assert loaded.load(model=other, optimizer=torch.optim.SGD(other.parameters(), lr=0.1)) == 1
    assert torch.equal(other.weight, model.weight)
    assert (loaded.get("best"), loaded.get("history"), loaded.get("weights").sum()) == (0.25, [1, 2], 3)
    assert loaded.get("missing", 7) == 7
    assert drawn == (random.random(), np.random.rand(), float(torch.rand(())))


def test_epoch_that_was_saved_and_not_reported_is_trained_again(checkpoint: Checkpoint) -> None:
    for epoch in (1, 2):
        checkpoint.save(epoch, value=epoch)
        report(checkpoint, epoch, 1.0)
    checkpoint.save(3, value=3)
    loaded = again(checkpoint, 2)
    assert (loaded.load(), loaded.get("value")) == (2, 2)


def test_newest_and_best_epochs_are_kept(checkpoint: Checkpoint) -> None:
    for epoch, cost in enumerate([3.0, 1.0, 2.0, 2.5], start=1):
        checkpoint.save(epoch, value=epoch)
        report(checkpoint, epoch, cost)
    assert names(checkpoint) == ["trial-0003-epoch-0002.pt", "trial-0003-last-0004.pt"]
    resumed = Checkpoint(checkpoint.file, checkpoint.folder, 4, best=1.0)
    resumed.save(5, value=5)
    report(resumed, 5, 1.5)
    assert names(checkpoint) == ["trial-0003-epoch-0002.pt", "trial-0003-last-0005.pt"]


def test_best_epoch_is_kept_if_its_report_ends_the_trial(checkpoint: Checkpoint) -> None:
    def end_trial(*_: object, **__: object) -> None:
        for file in checkpoint.file.parent.glob("*-last-*"):  # the study clears what an ended trial has left
            file.unlink()
        raise SystemExit

    reporter = Reporter(Objective("loss", "min"), checkpoint, limit=None, report=end_trial)
    checkpoint.save(1, value=1)
    with pytest.raises(SystemExit):
        reporter({"loss": 1.0})
    assert names(checkpoint) == ["trial-0003-epoch-0001.pt"]


def test_best_epoch_that_is_saved_after_its_report_is_kept(checkpoint: Checkpoint) -> None:
    for epoch, cost in ((1, 1.0), (2, 3.0)):
        report(checkpoint, epoch, cost)
        checkpoint.save(epoch, value=epoch)
    assert names(checkpoint) == ["trial-0003-epoch-0001.pt", "trial-0003-last-0002.pt"]


def test_arrays_and_numbers_of_numpy_are_loaded_as_such(checkpoint: Checkpoint) -> None:
    scaler = SimpleNamespace(state_dict=lambda: {"mean": np.ones(2)})
    flipped = np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1]
    history = [{"loss": np.float64(0.5), "seen": np.int64(3)}]
    checkpoint.save(1, scaler=scaler, flipped=flipped, nested={"a": (np.array(True), [np.zeros(0)])}, history=history)
    report(checkpoint, 1, 0.5)
    loaded = again(checkpoint, 1)
    means: list[np.ndarray] = []
    assert loaded.load(scaler=SimpleNamespace(load_state_dict=lambda state: means.append(state["mean"]))) == 1
    assert (type(means[0]), means[0].tolist()) == (np.ndarray, [1.0, 1.0])
    array = loaded.get("flipped")
    assert (array.dtype, array.tolist()) == (np.int16, [[2, 1, 0], [5, 4, 3]])
    array += 1  # it is no view of something that cannot be written
    true, (empty,) = loaded.get("nested")["a"]
    assert (true.shape, bool(true), empty.size) == ((), True, 0)
    assert loaded.get("history") == [{"loss": 0.5, "seen": 3}]


@pytest.mark.parametrize("generator", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_generator_of_numpy_goes_on_from_its_saved_state(
    checkpoint: Checkpoint, generator: type[np.random.BitGenerator]
) -> None:
    rng, other = (np.random.Generator(generator(seed)) for seed in (3, 4))
    checkpoint.save(1, rng=rng.bit_generator.state)
    report(checkpoint, 1, 0.5)
    loaded = again(checkpoint, 1)
    loaded.load()
    other.bit_generator.state = loaded.get("rng")
    assert other.random(5).tolist() == rng.random(5).tolist()


class Fitted:
    """Stands for a model of scikit-learn."""


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Path("here"), "thing (of type PosixPath)"),
        (lambda: 1, "thing (of type function)"),
        ({"step": 1, "best": [Fitted()]}, "thing['best'][0] (of type Fitted)"),
        (SimpleNamespace(state_dict=lambda: {"names": np.array(["a", "b"])}), "thing['names'] (of type ndarray)"),
    ],
)
def test_what_would_run_code_is_refused_when_it_is_saved(checkpoint: Checkpoint, value: object, named: str) -> None:
    with pytest.raises(TypeError, match=rf"checkpoint.save saves .*; it cannot save {re.escape(named)}$"):
        checkpoint.save(1, epoch_of_best=1, thing=value)
    assert not checkpoint.file.parent.exists()


@pytest.mark.parametrize("epoch", [0, -1, 1.5, "last", {"model": nn.Linear(2, 1)}])
def test_epoch_that_is_no_whole_number_from_1_is_refused(checkpoint: Checkpoint, epoch: object) -> None:
    with pytest.raises(ValueError, match=r"checkpoint.save needs the number of epochs that are done, from 1, got"):
        checkpoint.save(epoch)  # type: ignore[arg-type]
    assert not checkpoint.file.parent.exists()


def test_epoch_that_cannot_be_loaded_is_told(checkpoint: Checkpoint) -> None:
    checkpoint.save(5, value=5)
    sentence = "checkpoint.save was called with epoch 5, but 0 are reported: such an epoch cannot be loaded"
    assert checkpoint.take_warning() == sentence


def test_folder_with_links_is_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "weights.txt").write_text("weights")
    (source / "link").symlink_to("inner/weights.txt")
    (source / "broken").symlink_to("missing")
    checkpoint.save_folder(1, source)
    assert checkpoint.take_warning() is None
    folder = again(checkpoint, 1).load_folder()
    assert folder is not None
    assert (folder / "link").read_text() == "weights"


def study(folder: Path, *more: str) -> list[str]:
    (folder / "own.py").write_text(TRAINING)
    (folder / "space.toml").write_text("[lr]\nlow = 0.001\nhigh = 0.1\nlog = true\n")
    function = ["--train-function", f"{folder}/own.py:train", "--space", f"{folder}/space.toml"]
    searched = ["--metric", "loss", "--mode", "min", "--scheduler", "none", "--num-samples", "2", "--epochs", "30"]
    return ["search/run.py", *function, *searched, "--results-dir", f"{folder}/results", *more]


def epochs_of(folder: Path) -> pd.DataFrame:
    epochs = pd.read_csv(folder / "epochs.csv").sort_values(["trial_number", "epoch"])
    return epochs[["trial_number", "epoch", "loss", "draw"]].reset_index(drop=True)


def test_killed_study_goes_on_from_the_last_epoch_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = run_command(*study(tmp_path, "--name", "whole"))
    assert whole.status == 0, whole.stderr
    with StartedRun(*study(tmp_path, "--name", "killed")) as run:
        saved = tmp_path / "results" / "killed" / "checkpoints"
        while not list(saved.glob("trial-0001-last-001*.pt")):
            time.sleep(0.01)
        run.send(signal.SIGKILL)
        run.end()
    resumed = run_command(
        *("search/run.py", "--resume", f"{tmp_path}/results/killed", "--train-function", f"{tmp_path}/own.py:train")
    )
    assert resumed.status == 0, resumed.stderr
    assert "1 of them continues after the last epoch" in resumed.stdout
    assert "cannot" not in resumed.stdout
    first, second, third = [int(line.split()[1]) for line in Path("begun.txt").read_text().splitlines()[2:]]
    assert (first, second) == (0, 0)
    assert third >= 9
    pd.testing.assert_frame_equal(epochs_of(tmp_path / "results/whole"), epochs_of(tmp_path / "results/killed"))
