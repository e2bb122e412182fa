"""Studies that a Python program or a notebook runs: functions passed by value, tables, resume, and what is shown."""

import functools
import importlib
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from notebook_cells import code_cells, run_cell
from serial_ray import run_command, serial_ray
from threadpoolctl import threadpool_info

from search.algorithms.stopping import StudyStopper
from search.api import StudyResult, load_study, run_search
from search.engine.passed_code import take_code
from training.config import PROJECT
from training.console.terminal import format_metric
from training.user_code import annotated_config

SPACE = {"slope": {"low": 0.5, "high": 2.0}, "width": {"ordered": (4, 8)}}
CELL = """
OFFSET = 0.25

def scaled(slope):
    return 2 * slope

def train(slope, width):
    for epoch in range(3):
        yield {"loss": scaled(slope) / (epoch + 1) + OFFSET, "width_seen": width}
"""


def function(source: str = CELL, name: str = "train") -> Any:
    """The function that a cell of a notebook defines."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    run_cell(hash(source), source, namespace)
    return namespace[name]


def searched(folder: Path, train: Any = None, **settings: Any) -> StudyResult:
    values: dict[str, Any] = {
        "metric": "loss",
        "num_samples": 3,
        "results_dir": folder,
        "name": "mine",
        "scheduler": "none",
    }
    return run_search(train or function(), SPACE, **(values | settings))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study."""
    with serial_ray():
        return searched(tmp_path_factory.mktemp("results")).folder


@pytest.fixture
def study(finished: Path, tmp_path: Path, without_ray: None) -> StudyResult:
    """A copy of that study."""
    return load_study(shutil.copytree(finished, tmp_path / "mine"))


def resumed(study: StudyResult, train: Any = None, **settings: Any) -> StudyResult:
    return run_search(train, resume=study.folder, **({"num_samples": 4} | settings))


# A study and its tables


def test_function_of_a_cell_gives_dataframes_with_the_columns_of_the_files(study: StudyResult) -> None:
    assert study.trials.columns.tolist() == pd.read_csv(study.folder / "trials.csv").columns.tolist()
    assert study.epochs.columns.tolist() == pd.read_csv(study.folder / "epochs.csv").columns.tolist()
    assert study.trials["status"].tolist() == ["completed"] * 3
    assert len(study.epochs) == 9
    assert study.best_value == study.trials["loss"][0] == study.epochs["loss"].min()
    assert study.best_hyperparameters == {name: study.trials[name][0] for name in SPACE}
    assert study.best_trial
    assert study.best_trial.number == study.trials["trial_number"][0]


def test_study_on_disk_is_the_same_object(study: StudyResult) -> None:
    for again in (load_study("mine", results_dir=study.folder.parent), load_study(str(study.folder))):
        pd.testing.assert_frame_equal(again.trials, study.trials)
        assert repr(again) == repr(study)


def test_same_call_begins_a_study_and_goes_on_with_it(tmp_path: Path, without_ray: None) -> None:
    settings: dict[str, Any] = {
        "name": "first",
        "dataset": "digits",
        "epochs": 1,
        "results_dir": tmp_path,
        "resume_existing": True,
    }
    for number in (1, 2):
        study = run_search(num_samples=number, **settings)
        assert study.trials["status"].tolist() == ["completed"] * number


def test_images_are_searched_from_python_too(tmp_path: Path, without_ray: None) -> None:
    study = run_search(dataset="digits", num_samples=1, epochs=1, results_dir=str(tmp_path))
    assert study.trials["optimizer"].tolist() == ["sgd"]


def test_study_shows_its_best_trials_and_charts_without_a_network(study: StudyResult) -> None:
    html = study._repr_html_()
    assert "3 trials (3 completed); best loss" in html
    assert html.count("<img") == html.count("data:image/png;base64,") == 2
    assert "http" not in html


def test_values_of_a_study_are_no_html(tmp_path: Path, without_ray: None) -> None:
    train = function("def train(text):\n    return 1.0\n")
    study = run_search(train, {"text": {"choices": ["<i>", "<b>"]}}, metric="loss", num_samples=1, results_dir=tmp_path)
    assert "<i>" not in study._repr_html_()
    assert "&lt;" in study._repr_html_()


def test_study_without_a_valid_trial_says_so(tmp_path: Path, without_ray: None) -> None:
    study = searched(tmp_path, function("def train(slope, width):\n    raise OSError('broken')\n"))
    assert study.best_trial is None
    assert repr(study) == "Study mine: 3 trials (3 failed); no trial has valid metrics"
    assert "no trial has valid metrics" in study._repr_html_()
    with pytest.raises(ValueError, match="no trial of study mine has valid metrics"):
        _ = study.best_value


def test_interrupted_study_returns_what_there_is(tmp_path: Path, without_ray: None) -> None:
    def train(slope: float, width: int) -> Any:
        yield {"loss": slope}
        signal.raise_signal(signal.SIGINT)
        yield {"loss": slope}

    study = searched(tmp_path, train)
    assert study.trials["status"].tolist() == ["interrupted"]
    assert study.best_value == study.trials["loss"][0]


# Which functions


def test_importable_function_has_the_path_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_training.py").write_text("def train(slope):\n    yield {'loss': slope}\n")
    monkeypatch.syspath_prepend(tmp_path)
    train = importlib.import_module("their_training").train
    assert take_code("train_function", train) == f"{tmp_path}/their_training.py:train"


def test_dataclass_of_a_cell_with_postponed_annotations_reaches_the_workers(tmp_path: Path, without_ray: None) -> None:
    source = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal

Width = Literal[4, 8]

@dataclass(frozen=True)
class Config:
    slope: float = 1.0
    width: Width = 4

def train(config: Config):
    yield {"loss": config.slope * config.width}
"""
    train = function(source)
    study = searched(tmp_path, train)
    assert study.trials["status"].tolist() == ["completed"] * 3
    config = annotated_config("train_function", "__main__:train")
    assert config is not None
    assert config.__annotations__["slope"] is float
    assert train.__annotations__ == {"config": config}


def test_objective_of_optuna_in_a_cell_brings_its_space(tmp_path: Path, without_ray: None) -> None:
    objective = function(
        "def objective(trial):\n    return trial.suggest_float('slope', 0.5, 2.0) ** 2\n", name="objective"
    )
    study = run_search(objective, metric="loss", num_samples=3, results_dir=tmp_path)
    assert study.best_value == pytest.approx(float(study.best_hyperparameters["slope"]) ** 2)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (lambda **_: 1.0, "train_function must be a function with a name, defined by def, or the import path"),
        (
            functools.partial(print),
            "train_function must be a function with a name, defined by def, or the import path of one",
        ),
        (function("def train(slope):\n    yield 1\n"), "train_function __main__:train has no parameter for the hyperp"),
        (function("async def train(slope):\n    pass\n"), "train_function __main__:train is asynchronous; its definit"),
        ("__main__:train", "train_function __main__:train is a function that a Python program or a notebook passes to"),
    ],
)
def test_function_that_cannot_be_searched_is_refused(
    train: Any, sentence: str, tmp_path: Path, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.user_code._passed", {})
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared as a whole below
        searched(tmp_path, train)
    assert str(refusal.value).startswith(sentence)
    assert not any(tmp_path.iterdir())


def test_value_that_cannot_be_sent_is_named(tmp_path: Path, without_ray: None) -> None:
    lock = threading.Lock()

    def train(slope: float, width: int) -> Any:
        with lock:
            yield {"loss": slope}

    with pytest.raises(ValueError, match=r"train_function train cannot be sent to the workers: .*cannot pickle"):
        searched(tmp_path, train)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"slope": 0.1}, "slope must be a dictionary; {'value': 0.1} would fix it"),
        ({"slope": {"lo": 0.1, "high": 1.0}}, "slope has the unknown key lo; did you mean low?"),
        ({}, "there is no hyperparameter to search"),
        (None, "train_function needs space"),
        ("nothing.toml", "there is no file nothing.toml to read the search space from"),
    ],
)
def test_space_that_breaks_a_rule_is_refused(space: Any, sentence: str, tmp_path: Path, without_ray: None) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run_search(function(), space, metric="loss", results_dir=tmp_path)


def test_unknown_setting_is_refused_with_the_one_that_is_meant() -> None:
    with pytest.raises(TypeError, match="run_search has no setting num_sample; did you mean num_samples"):
        run_search(function(), SPACE, metric="loss", num_sample=3)
    with pytest.raises(TypeError, match="run_search has no setting data; did you mean dataset"):
        run_search(data=[])


# Resume


def test_study_goes_on_with_the_same_function(study: StudyResult) -> None:
    edited = CELL.replace("    return 2", "    # twice\n\n    return 2")
    assert len(resumed(study, function(edited)).trials) == 4


def test_changed_loader_of_a_cell_is_told(tmp_path: Path, without_ray: None) -> None:
    cell = "def load():\n    return 5\n\ndef train(slope, width, data):\n    return slope + data\n"
    study = searched(tmp_path, function(cell))
    assert study.best_value > 5
    with pytest.raises(ValueError, match="with other code: __main__:train changed"):
        resumed(study, function(cell.replace("5", "6")))


@pytest.mark.parametrize("change", [("range(3)", "range(4)"), ("2 * slope", "3 * slope"), ("0.25", "0.5")])
def test_changed_function_is_told(study: StudyResult, change: tuple[str, str]) -> None:
    changed = function(CELL.replace(*change))
    with pytest.raises(ValueError, match="study mine was run with other code: __main__:train changed since"):
        resumed(study, changed)
    forked = resumed(study, changed, fork=True, name="other", num_samples=1, results_dir=study.folder.parent)
    assert (forked.name, len(forked.trials)) == ("other", 1)


def test_changed_module_beside_the_notebook_is_told(
    tmp_path: Path, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    module = tmp_path / "beside_it.py"
    module.write_text("def twice(slope):\n    return 2 * slope\n")
    train = function("from beside_it import twice\n\ndef train(slope, width):\n    return twice(slope)\n")
    study = searched(tmp_path, train)
    assert len(resumed(study, train).trials) == 4
    module.write_text("def twice(slope):\n    return 3 * slope\n")
    with pytest.raises(ValueError, match=r"with other code: beside_it\.py changed"):
        resumed(study, train)


def test_function_is_never_read_from_the_folder_of_a_study(study: StudyResult, tmp_path: Path) -> None:
    call = "run_search(train, resume='"
    with pytest.raises(ValueError, match="its training function is not stored") as refusal:
        resumed(study)
    assert call in str(refusal.value)
    run = run_command("search/run.py", "--resume", str(study.folder), cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    assert "only a program that defines the function can continue it, with run_search(train, resume=" in run.stderr
    run = run_command("search/report.py", str(study.folder))
    assert (run.status, run.stderr) == (0, "")


SEEDED = """
import random

def train(slope, width):
    for epoch in range(2):
        yield {"loss": slope + random.random() / width}
"""


def test_function_of_a_cell_is_confirmed_and_reproduced(
    tmp_path: Path, without_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    study = searched(tmp_path, function(SEEDED))
    function("def train(slope, width):\n    raise OSError('another cell')\n")
    assert study.confirmation is None
    assert study.reproduce(1)
    confirmed = study.confirm(top=2, seeds=2)
    assert confirmed.confirmation is not None
    assert confirmed.confirmation["seeds"].tolist() == [2, 2]
    assert confirmed.confirmation["confirmed_seeds"][0] == 2
    assert "\nConfirmed: trial " in capsys.readouterr().out
    assert "Confirmed: " in confirmed._repr_html_()
    again = load_study(study.folder).confirmation
    assert again is not None
    pd.testing.assert_frame_equal(confirmed.confirmation, again)


def test_program_keeps_its_random_numbers_and_threads_when_it_reproduces(study: StudyResult) -> None:
    import torch

    def threads() -> dict[str, int]:
        return {library["user_api"]: library["num_threads"] for library in threadpool_info()}

    before, threads_before = torch.get_rng_state(), threads()
    assert study.reproduce(0, train_function=function())
    assert torch.equal(torch.get_rng_state(), before)
    assert threads() == threads_before


def test_study_is_confirmed_at_once(tmp_path: Path, without_ray: None) -> None:
    study = searched(tmp_path, function(SEEDED), confirm="1x2")
    assert study.confirmation is not None
    assert study.confirmation["seeds"].tolist() == [2]


def test_loaded_study_needs_its_function_again(study: StudyResult, capsys: pytest.CaptureFixture[str]) -> None:
    """The fixture has it from its folder."""
    with pytest.raises(ValueError, match=r"not stored: .* load_study.*\.confirm\(top=3, seeds=5, train_function=train"):
        study.confirm()
    with pytest.raises(ValueError, match=r"not stored: .* load_study.*\.reproduce\(0, train_function=train"):
        study.reproduce(0)
    assert study.reproduce(0, train_function=function())
    assert not study.reproduce(0, train_function=function(CELL.replace("0.25", "0.5")))
    assert "These have changed since the study was run: code: __main__:train" in capsys.readouterr().out


def test_file_that_was_named_for_a_study_is_not_named_again_to_confirm_it(tmp_path: Path, without_ray: None) -> None:
    file = tmp_path / "train_this.py"
    file.write_text(SEEDED)
    study = searched(tmp_path / "results", f"{file}:train")
    assert study.confirm(top=1, seeds=2).confirmation is not None
    with pytest.raises(ValueError, match="because code runs only if you name it"):
        load_study(study.folder).reproduce(0)


def test_interrupted_confirmation_names_the_call_that_continues_it(
    study: StudyResult, capsys: pytest.CaptureFixture[str]
) -> None:
    train = function()
    assert study.confirm(top=1, seeds=2, train_function=train, time_budget="0.001s").confirmation is None
    assert ".confirm(top=1, seeds=2, train_function=train)" in capsys.readouterr().out
    assert study.confirm(top=1, seeds=2, train_function=train).confirmation is not None


def test_file_of_a_study_runs_from_python_only_if_it_is_named(tmp_path: Path, without_ray: None) -> None:
    file = tmp_path / "train_it.py"
    file.write_text(CELL)
    study = searched(tmp_path / "results", f"{file}:train")
    with pytest.raises(ValueError, match="because code runs only if you name it"):
        resumed(study)
    assert len(resumed(study, f"{file}:train").trials) == 4


def test_interrupted_study_names_the_call_that_resumes_it(
    tmp_path: Path, without_ray: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    searched(tmp_path, time_budget="0.001s")
    assert "To continue: run_search(train, resume='mine')" in capsys.readouterr().out


# In a notebook


class Display:
    """What IPython displays: lines with an identifier, whose text is replaced."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = []

    def display(self, data: dict[str, str], **_: object) -> SimpleNamespace:
        texts = [data["text/plain"]]
        self.lines.append(texts)
        return SimpleNamespace(update=lambda data, **_: texts.append(data["text/plain"]))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    """This process is the kernel of a notebook."""
    display = Display()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display.display))
    return display


def test_notebook_shows_the_header_and_one_line_that_changes(
    notebook: Display, tmp_path: Path, without_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    study = searched(tmp_path)
    assert study.best_trial
    (line,) = notebook.lines
    assert line[0].startswith("0 of 3 trials ended, 0 epochs, 0:0")
    assert line[-1].startswith("3 of 3 trials ended, 9 epochs, 0:0")
    assert f"; best loss {format_metric(study.best_value)} of trial " in line[-1]
    printed = capsys.readouterr().out
    assert printed.startswith("Study mine\n  training   train, a function of this program\n")
    assert "train: 3 of 3 trials in" in printed
    call = f"load_study('{study.folder}')"
    assert f"\nReproduce: {call}.reproduce({study.best_trial.number}, train_function=train)\n" in printed
    assert f"\nConfirm: {call}.confirm(train_function=train)\n" in printed
    assert "run_search in a notebook" in (study.folder / "report.html").read_text()


def test_second_interrupt_in_a_notebook_spares_its_kernel(
    notebook: Display, capsys: pytest.CaptureFixture[str]
) -> None:
    with StudyStopper().signal_handlers():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "Stopping the study; interrupt again to stop immediately." in capsys.readouterr().out


# The documents


def test_program_of_the_guide_runs(tmp_path: Path, without_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in re.findall(
        r"```python\n(# (\w+\.py)\n.*?)```", (PROJECT / "docs" / "guide.md").read_text(), re.DOTALL
    ):
        (tmp_path / block[1]).write_text(block[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("search.settings.base_folder", lambda: tmp_path)
    run = run_command(str(tmp_path / "my_search.py"), cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    assert "\n{'lr': 0.0" in run.stdout
    network = run_command(str(tmp_path / "my_network_search.py"), cwd=tmp_path)
    assert network.status == 0, network.stdout + network.stderr
    assert "\nConfirmed: trial " in network.stdout
    assert "final_test_accuracy" in network.stdout
    again = run_command("search/run.py", "--resume", str(tmp_path / "results" / "from-python"), cwd=tmp_path)
    assert "add --train-function with this import path" in again.stderr


@pytest.mark.ray
def test_notebook_of_the_examples_runs(tmp_path: Path) -> None:
    notebook = PROJECT / "examples" / "notebook.ipynb"
    program = [
        sys.executable,
        str(Path(__file__).with_name("notebook_cells.py")),
        str(notebook),
        str(tmp_path / "results"),
    ]
    run = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "cell 1:\nStudy train-" in run.stdout
    assert run.stdout.count("data:image/png;base64,") == 4
    study = load_study("latest", results_dir=tmp_path / "results")
    assert len(study.trials) == 12
    assert study.best_value > 0.85


def test_notebook_of_the_examples_has_ten_lines_from_import_to_dataframe() -> None:
    first, *_ = code_cells(PROJECT / "examples" / "notebook.ipynb")
    *lines, table = filter(None, first.splitlines())
    assert len(lines) <= 10
    assert table == "study.trials"
