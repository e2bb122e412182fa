"""Networks and images that a Python program or a notebook passes by value, and what is left of them in the study."""

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serial_ray import run_command, serial_ray
from test_from_python import function
from torch import nn
from torch.utils.data import TensorDataset

from search.api import StudyResult, StudySettings, load_best, load_study, run_search
from search.record.lookup import check_code_named, passed_paths
from training.images.image_data import ImageData
from training.model.model_folder import load_model
from training.networks.network_config import config_type

TUTORIAL = """
from torch import nn

class NeuralNetwork(nn.Module):
    def __init__(self, hidden=8, dropout=0.0, activation=nn.ReLU):
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(8 * 8, hidden), activation(), nn.Dropout(dropout), nn.Linear(hidden, 10)
        )

    def forward(self, x):
        return self.linear_relu_stack(self.flatten(x))
"""
SPACE = {"hidden": {"ordered": (4, 8)}, "learning_rate": {"low": 0.01, "high": 0.1}}
SMALL: dict[str, Any] = {"num_samples": 2, "epochs": 1, "val_fraction": 0.25, "scheduler": "none", "name": "mine"}
UNKNOWN: dict[str, Any] = {}
"""What a program has passed that has passed nothing."""


def few(digits: ImageData) -> tuple[torch.Tensor, torch.Tensor]:
    return digits.train.images[:200], digits.train.labels[:200]


def searched(folder: Path, digits: ImageData, source: str = TUTORIAL, **settings: Any) -> StudyResult:
    values = {"network": function(source, "NeuralNetwork"), "space": SPACE, "dataset": few(digits), **SMALL}
    return run_search(**(values | {"results_dir": folder} | settings))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: ImageData) -> StudyResult:
    with serial_ray():
        return searched(tmp_path_factory.mktemp("results"), digits)


@pytest.fixture
def study(finished: StudyResult, tmp_path: Path, without_ray: None) -> StudyResult:
    """A copy of that study, of which the program knows the code."""
    result = copy.copy(finished)
    result._record = load_study(shutil.copytree(finished.folder, tmp_path / "mine"))._record
    return result


def test_class_of_the_tutorial_is_searched_with_its_own_images(study: StudyResult, digits: ImageData) -> None:
    assert study.trials["status"].tolist() == ["completed"] * 2
    assert set(study.trials["hidden"]) <= {4, 8}
    dataset = study._record.metadata.images
    assert (dataset.name, dataset.image_shape, dataset.classes) == ("images", [1, 8, 8], [*"0123456789"])
    assert dataset.training_images + dataset.validation_images + dataset.test_images == 200
    assert study.trials["val_accuracy"].max() > 0.1
    assert {name for name in study._record.metadata.code if name.startswith("__main__")} == {"__main__:NeuralNetwork"}


def test_class_without_hyperparameters_is_trained_as_it_is(
    digits: ImageData, tmp_path: Path, without_ray: None
) -> None:
    source = TUTORIAL.replace("self, hidden=8, dropout=0.0, activation=nn.ReLU", "self").replace("hidden", "16")
    source = source.replace("activation()", "nn.ReLU()").replace("nn.Dropout(dropout)", "nn.Identity()")
    study = searched(tmp_path, digits, source, space={"learning_rate": {"low": 0.01, "high": 0.1}})
    assert study.trials["status"].tolist() == ["completed"] * 2


@pytest.mark.parametrize("form", ["function", "data sets", "arrays with names"])
def test_images_come_in_other_forms(form: str, digits: ImageData, tmp_path: Path, without_ray: None) -> None:
    images, labels = few(digits)
    floats = TensorDataset(images / 255, labels)
    dataset: Any = {
        "function": lambda: ((images, labels), (images, labels)),
        "data sets": (floats, floats),
        "arrays with names": (*2 * [(np.asarray(images), np.asarray(labels))], [f"digit {n}" for n in range(10)]),
    }[form]
    if form == "function":
        dataset.__name__ = "load_digits"
    study = run_search(dataset=dataset, results_dir=tmp_path, **SMALL | {"num_samples": 1})
    recorded = study._record.metadata.images
    assert recorded.test_images == 200
    assert recorded.classes[0] == ("digit 0" if "names" in form else "0")
    assert recorded.name == ("load_digits" if form == "function" else "images")


def test_builder_with_a_configuration_is_taken_too(digits: ImageData, tmp_path: Path, without_ray: None) -> None:
    source = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Config:
    hidden: int = 4

def build(config: Config, input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, config.hidden), nn.Linear(config.hidden, classes))
"""
    study = searched(tmp_path, digits, network=function(source, "build"))
    assert study.trials["status"].tolist() == ["completed"] * 2


def test_another_network_of_the_same_name_has_its_own_hyperparameters(digits: ImageData, tmp_path: Path) -> None:
    with serial_ray():
        searched(tmp_path, digits)
        assert "units" not in config_type("__main__:NeuralNetwork").__dataclass_fields__
        searched(
            tmp_path, digits, TUTORIAL.replace("hidden", "units"), name="other", space={"units": {"ordered": (4, 8)}}
        )
    assert "hidden" not in config_type("__main__:NeuralNetwork").__dataclass_fields__


# What is left in the study


def test_model_has_the_weights_and_is_built_where_the_class_is(
    study: StudyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = load_best(study.folder)
    network = function(TUTORIAL, "NeuralNetwork")(hidden=best.hyperparameters["hidden"])
    network.load_state_dict(best.states["model"])
    study._take_code({}, "")
    assert isinstance(load_model(study.folder / "model").network, nn.Module)
    card = (study.folder / "model" / "README.md").read_text()
    assert "The network is NeuralNetwork (" in card
    assert "a Python program or a\nnotebook defined it" in card
    assert "predict.py" not in card
    assert "python training/predict.py" not in (study.folder / "report.html").read_text()
    monkeypatch.setattr("training.user_code._passed", UNKNOWN)
    with pytest.raises(ValueError, match="network __main__:NeuralNetwork is a function that a Python program"):
        load_model(study.folder / "model")


def test_study_goes_on_only_with_the_same_network_and_images(study: StudyResult, digits: ImageData) -> None:
    code: dict[str, Any] = {"network": function(TUTORIAL, "NeuralNetwork"), "dataset": few(digits)}
    more: dict[str, Any] = {"resume": study.folder, "num_samples": 3}
    assert len(run_search(**code, **more).trials) == 3
    with pytest.raises(ValueError, match="with other code: __main__:NeuralNetwork changed since"):
        run_search(**code | {"network": function(TUTORIAL.replace("ReLU", "Tanh"), "NeuralNetwork")}, **more)
    with pytest.raises(ValueError, match="was run on other data than those of images"):
        run_search(**code | {"dataset": (digits.train.images[:199], digits.train.labels[:199])}, **more)
    for missing, why in (("network", "its network is not stored"), ("dataset", "its images are not stored")):
        with pytest.raises(ValueError, match=f"{why}: .*run_search.network=NeuralNetwork, dataset=images, resume="):
            run_search(**code | {missing: None}, **more)


def test_study_is_confirmed_and_reproduced_by_the_program(
    study: StudyResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.reproduce(1)
    assert "The trial agrees with its record: all metrics of 1 epoch" in capsys.readouterr().out
    confirmed = study.confirm(top=1, seeds=2)
    assert confirmed.confirmation is not None
    assert confirmed.confirmation["trial_number"].tolist() == [study.trials["trial_number"][0]]
    assert confirmed.confirmation["final_test_accuracy"].notna().all()
    assert "<p>Confirmed: " in confirmed._repr_html_()
    assert confirmed.reproduce(0)  # of the same code


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["search/run.py", "--resume", "FOLDER"], "run_search(network=NeuralNetwork, dataset=images, resume="),
        (
            ["search/confirm.py", "FOLDER", "--top", "2"],
            ".confirm(top=2, seeds=5, network=NeuralNetwork, dataset=images)",
        ),
        (["search/reproduce.py", "FOLDER", "1"], ".reproduce(1, network=NeuralNetwork, dataset=images)"),
    ],
)
def test_commands_name_the_call_by_which_a_program_goes_on(study: StudyResult, words: list[str], call: str) -> None:
    run = run_command(*[str(study.folder) if word == "FOLDER" else word for word in words])
    assert (run.status, run.stdout) == (2, "")
    assert "was run from Python, and its network is not stored: only a program that defines the network" in run.stderr
    assert call in run.stderr


def test_command_is_never_taken_for_something_that_was_passed() -> None:
    """A record that somebody sends may have any command."""
    settings = StudySettings(command="__main__:train", metric="loss", space=Path(__file__), resume="mine")
    assert passed_paths(settings) == {}
    with pytest.raises(ValueError, match="add --command with this text, because code runs only if you name it"):
        check_code_named("mine", settings, {})


def test_report_is_written_without_the_network(study: StudyResult) -> None:
    run = run_command("search/report.py", str(study.folder))
    assert (run.status, run.stderr) == (0, "")
    assert "the model is not exported: study mine was run from Python" in run.stdout
    assert "Load: from search.api import load_best" in run.stdout


# Bad input


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"network": nn.Linear(64, 10)}, "network must be a function or class with a name"),
        (
            {"network": function("def build(depth): pass", "build")},
            "__main__:build must take (config, input_shape, c",
        ),
        ({"network": function("def build(lr=1, epochs=3): pass", "build")}, "epochs is already an option of every"),
        ({"dataset": 7}, "dataset images must give (images, labels), (test_images, test_labels), class_names, got int"),
        (
            {"dataset": (torch.arange(9.0).view(-1, 1, 1), [0, 1, 1] * 3)},
            "dataset images must give training images of type uint8, from",
        ),
        ({"dataset": np.float32}, "dataset must be a function, images with labels, or a name or an import path, got"),
        (
            {"dataset": function("def load(): raise OSError('no disk')", "load")},
            "dataset load failed: OSError: no dis",
        ),
    ],
)
def test_what_is_no_network_and_no_image_is_refused(
    settings: dict[str, Any], sentence: str, tmp_path: Path, without_ray: None
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run_search(**{"dataset": "digits", **SMALL, "results_dir": tmp_path} | settings)
    assert not any(tmp_path.iterdir())
