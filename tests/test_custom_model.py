"""The model of a training function of the user's own: what is in its folder, and who can load it."""

import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from own_code import search_function, write_functions
from safetensors.torch import load_file
from serial_ray import CompletedRun, run_command
from torch import nn

from search.api import load_best
from training.model.custom_model import load_custom_model, read_custom_metadata, save_custom_model
from training.model.model_folder import read_metadata
from training.model.model_metadata import CustomModelMetadata
from training.model.saved_objects import OBJECTS, load_objects, save_objects

CONFIRM = ["--top", "2", "--seeds", "2", "--train-function"]
FUNCTIONS = """
import json
import tempfile
from pathlib import Path

import torch
from ray import tune
from torch import nn

def train(lr, seed, checkpoint):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
    history = []
    for epoch in range(checkpoint.load(model=model), 4):
        inputs = torch.randn(64, 2)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append((epoch, float(model.weight.detach().sum())))
        checkpoint.save(epoch + 1, model=model, optimizer=optimizer, schedule=schedule, history=history)
        yield {"val_loss": float(model.weight.detach().sum()) ** 2, "test_loss": loss}

def saves_nothing(lr):
    yield {"val_loss": lr}

def saves_others(lr, checkpoint):
    for epoch in range(2):
        yield {"val_loss": epoch + lr}
        if epoch == 1:
            checkpoint.save(2, value=1.0)

def with_tune(config):
    for epoch in range(3):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps({"epoch": epoch}))
            tune.report({"val_loss": abs(epoch - 1) + config["lr"]}, checkpoint=tune.Checkpoint(folder))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return write_functions(tmp_path, FUNCTIONS)


def search(place: Path, function: str, *options: str) -> CompletedRun:
    run = search_function(place, function, "--scheduler", "none", *options)
    assert run.status == 0, run.stdout + run.stderr
    return run


def metadata(**changes: object) -> CustomModelMetadata:
    values = {
        "train_function": "own.py:train",
        "study": "own",
        "trial": 1,
        "hyperparameters": {"lr": 0.1},
        "seed": 3,
        "epoch": 2,
        "metric": "val_loss",
        "mode": "min",
        "metrics": {"val_loss": 0.5},
        "selection": "It was chosen.",
    }
    return CustomModelMetadata(**values | changes)  # type: ignore[arg-type]


def test_best_epoch_is_shipped_with_its_configuration(place: Path) -> None:
    run = search(place, "train")
    trials = pd.read_csv(place / "out/train/trials.csv")
    number, lr, epoch, value = trials.iloc[0][["trial_number", "lr", "best_epoch", "val_loss"]]
    best = load_best("train", results_dir=place / "out")
    assert (best.hyperparameters, best.epoch, best.seed) == ({"lr": lr}, epoch, trials["seed"][0])
    assert best.metrics["val_loss"] == value
    model = nn.Linear(2, 1)
    model.load_state_dict(best.states["model"])
    assert float(model.weight.detach().sum()) ** 2 == pytest.approx(value)
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(best.states["optimizer"])
    assert optimizer.state_dict()["state"][0]["step"] == epoch
    torch.optim.lr_scheduler.StepLR(optimizer, step_size=1).load_state_dict(best.states["schedule"])
    assert best.states["history"][-1] == (epoch - 1, float(model.weight.detach().sum()))
    assert torch.equal(load_file(place / "out/train/model/model.safetensors")["weight"], model.weight)
    assert f"Load: from search.api import load_best; best = load_best('{place}/out/train')" in run.stdout
    assert "<h2>Exported model</h2>" in (place / "out/train/report.html").read_text()
    card = " ".join((place / "out/train/model/README.md").read_text().split())
    assert f"The model is epoch {epoch} of trial {number} of study train, with the lowest val_loss of" in card
    assert "Metrics of test data (test_loss) chose nothing." in card
    assert str(place) not in card + (place / "out/train/model/config.json").read_text()


def test_folder_of_a_study_and_of_a_model_can_be_named_and_moved(place: Path) -> None:
    search(place, "train")
    (place / "out/train/model").rename(place / "sent")
    assert load_best(place / "sent").states.keys() == {"model", "optimizer", "schedule", "history"}
    with pytest.raises(ValueError, match=r"study .*train has no model: there is no config.json in "):
        load_best(place / "out/train")
    again = run_command("search/report.py", f"{place}/out/train")
    assert again.status == 0, again.stderr
    assert load_best(place / "out/train").metrics == load_best(place / "sent").metrics


def test_winner_of_a_confirmation_is_shipped_from_its_best_training(place: Path) -> None:
    run = search(place, "train", "--confirm", "2x2")
    trainings = pd.read_csv(place / "out/train/confirm/trials.csv")
    winner = pd.read_csv(place / "out/train/confirm.csv").iloc[0]
    best = load_best(place / "out/train")
    of_winner = trainings[trainings["lr"] == winner["lr"]].sort_values("val_loss").iloc[0]
    assert (best.seed, best.epoch, best.metrics["val_loss"]) == tuple(of_winner[["seed", "best_epoch", "val_loss"]])
    assert float(best.states["model"]["weight"].sum()) ** 2 == pytest.approx(of_winner["val_loss"])
    config = json.loads((place / "out/train/model/config.json").read_text())
    assert config["trial"] == winner["trial_number"]
    assert config["selection"].startswith(
        f"The configuration is trial {config['trial']} of study train, confirmed from 2"
    )
    load = rf"^Load: .*load_best\('{place}/out/train'\)$"
    assert re.search(load, run.stdout[run.stdout.index("Confirmed:") :], re.MULTILINE)
    (place / "out/train/model").rename(place / "sent")
    save_custom_model(place / "out/train/model", metadata())  # of another training
    shown = run_command("search/confirm.py", f"{place}/out/train", *CONFIRM, f"{place}/own.py:train")
    assert re.search(load, shown.stdout, re.MULTILINE)
    assert read_custom_metadata(place / "out/train/model") == read_custom_metadata(place / "sent")


@pytest.mark.parametrize("function", ["saves_nothing", "saves_others"])
def test_model_that_was_not_saved_is_not_named(place: Path, function: str) -> None:
    run = search(place, function, "--confirm", "2x2")
    assert not (place / "out" / function / "model").exists()
    assert "Load:" not in run.stdout
    reason = "the function did not save its best epoch with checkpoint.save"
    assert run.stdout.count(f"\nModel: none, because {reason}\n") == 2  # of the study, and of its confirmation
    assert f"There is no model, because {reason}." in " ".join(run.stdout.split())
    assert "Reproduce:" in run.stdout
    assert "Exported model" not in (place / "out" / function / "report.html").read_text()


def test_folder_that_was_saved_is_shipped_as_it_is(place: Path) -> None:
    search(place, "with_tune")
    best = load_best(place / "out/with_tune")
    assert best.files is not None
    assert json.loads((best.files / "state.json").read_text()) == {"epoch": 1}
    assert (best.epoch, best.states) == (2, {})


def test_everything_that_can_be_saved_is_loaded_again(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    objects: dict[str, Any] = {
        "model": OrderedDict({"a.b": shared, "a": {"b": shared[:2]}}),
        "numbers": {1: float("nan"), "inf": -float("inf"), "none": None, "big": 10**30, "yes": True},
        "containers": [(1, "two"), {3, 4}, [], torch.tensor(5, dtype=torch.int8)],
        "tensor": torch.ones(2, dtype=torch.bfloat16),
    }
    save_custom_model(tmp_path / "model", metadata(), objects)
    loaded = load_custom_model(tmp_path / "model").objects
    assert torch.equal(loaded["model"]["a.b"], shared)
    assert torch.equal(loaded["model"]["a"]["b"], shared[:2])
    assert repr(loaded["numbers"]) == repr(objects["numbers"])
    assert loaded["containers"] == objects["containers"]
    assert torch.equal(loaded["tensor"], objects["tensor"])


@pytest.mark.parametrize(
    ("objects", "sentence"),
    [
        ({"../other": 1}, "an object cannot be exported under the name '../other'"),
        ({"model": {"dtype": torch.float32}}, "model holds a dtype, which cannot be exported"),
        ({"table": {(1, 2): 3}}, "table has a tuple as a key, which cannot be exported"),
    ],
)
def test_what_cannot_be_exported_leaves_the_older_model(
    tmp_path: Path, objects: dict[str, object], sentence: str
) -> None:
    save_custom_model(tmp_path / "model", metadata(seed=1))
    with pytest.raises(ValueError, match=re.escape(sentence)):
        save_custom_model(tmp_path / "model", metadata(seed=2), objects)
    assert read_custom_metadata(tmp_path / "model").seed == 1


@pytest.mark.parametrize(
    "content", ['{"../../other": {"tensor": "a"}}', '{"model": {"tensor": "missing"}}', '{"model": {"run": []}}', "["]
)
def test_damaged_model_is_refused(tmp_path: Path, content: str) -> None:
    save_custom_model(tmp_path / "model", metadata(), {"model": {"a": torch.ones(1)}})
    (tmp_path / "model" / OBJECTS).write_text(content)
    with pytest.raises(ValueError, match=r"objects.json cannot be read"):
        load_best(tmp_path / "model")


def test_model_of_a_function_classifies_no_images(tmp_path: Path) -> None:
    save_custom_model(tmp_path / "model", metadata())
    with pytest.raises(ValueError, match=r"it is of a training function or a program, and search"):
        read_metadata(tmp_path / "model")


def test_arrays_in_a_model_are_arrays_again(tmp_path: Path) -> None:
    objects = {"scaler": {"mean": np.arange(3.0), "steps": [np.array(2), torch.ones(1)]}}
    save_objects(objects, tmp_path)
    (scaler,) = load_objects(tmp_path).values()
    assert (type(scaler["mean"]), scaler["mean"].tolist()) == (np.ndarray, [0.0, 1.0, 2.0])
    assert (type(scaler["steps"][0]), int(scaler["steps"][0]), type(scaler["steps"][1])) == (
        np.ndarray,
        2,
        torch.Tensor,
    )
