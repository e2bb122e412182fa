"""Training functions that report by a call: a parameter `report`, Ray Tune's functions, a loop of somebody else."""

import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from serial_ray import CompletedRun, run_command
from test_command import wait_for

from search.engine import trial_folder
from search.engine.custom_training import train_custom
from search.engine.reporter import LimitReachedError
from search.record.trial import Objective
from search.task.custom_metrics import CustomMetrics
from training.checkpoint import Checkpoint

PROGRAM = """
import json
import os
import tempfile

from ray import tune
from ray.tune import Checkpoint, report as report_to_tune

class Trainer:
    \"\"\"Owns the loop, as Lightning's does.\"\"\"

    def __init__(self, callback):
        self.callback = callback

    def fit(self, slope):
        try:
            for epoch in range(6):
                self.callback({"loss": slope / (epoch + 1), "epoch": epoch})
        finally:
            note("closed")

def note(text):
    with open("notes.txt", "a") as notes:
        notes.write(text + "\\n")

def by_call(slope, report):
    Trainer(report).fit(slope)
    note("returned")

def swallows(slope, report):
    for epoch in range(6):
        try:
            report({"loss": slope / (epoch + 1)})
        except BaseException:
            note("swallowed")

reports = []

def reports_later(slope, report):
    for earlier in reports:
        try:
            earlier({"loss": 0.0})
        except BaseException:
            note("refused")
    reports.append(report)
    report({"loss": slope})

def fails_at_its_limit(slope):
    try:
        while True:
            yield {"loss": slope}
    finally:
        raise OSError("the model cannot be saved")

def counts(slope):
    for epoch in range(6):
        yield {"loss": slope / (epoch + 1)}

def names_steps(slope):
    for epoch, metrics in enumerate(counts(slope)):
        yield metrics | {"step": [7000, 5, 5, 900, 2, 1e9][epoch], "epoch": 6 - epoch}

def forks(slope, report):
    child = os.fork() == 0
    note(f"process {os.getpid()}")
    if slope < 1.5:
        report({"loss": slope})
    if child:
        note("the copy returns")
    return {"loss": slope}

def with_tune(config):
    start, checkpoint = 0, tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            with open(os.path.join(folder, "state.json")) as stream:
                start = json.load(stream)["epoch"]
    note(f"from {start}")
    for epoch in range(start, 6):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "state.json"), "w") as stream:
                json.dump({"epoch": epoch + 1}, stream)
            metrics = {"loss": config["slope"] / (epoch + 1), "trial": tune.get_context().get_trial_id()}
            report_to_tune(metrics, checkpoint=Checkpoint.from_directory(folder))

def with_result(config):
    tune.report({"loss": 2.0})
    return {"loss": config["slope"] / 10}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "space.toml").write_text("[slope]\nlow = 1.0\nhigh = 2.0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, *options: str) -> CompletedRun:
    function = ["--train-function", f"program.py:{name}", "--space", "space.toml", "--name", name]
    searched = ["--metric", "loss", "--num-samples", "3", "--results-dir", "out"]
    ended = run_command("search/run.py", *function, *searched, *options)
    assert ended.status == 0, ended.stderr
    return ended


def trials(name: str) -> pd.DataFrame:
    return pd.read_csv(f"out/{name}/trials.csv").set_index("trial_number").sort_index()


def test_loop_of_somebody_else_reports_by_a_call(place: Path) -> None:
    run("by_call")
    table = trials("by_call")
    assert (table["loss"] == table["slope"] / table["epochs"]).all()
    assert table.loc[0, "status"] == "completed"
    notes = Path("notes.txt").read_text().split()
    assert notes.count("closed") == 3
    assert notes.count("returned") == (table["status"] == "completed").sum()


def test_call_ends_a_training_that_does_not_know_the_limit(place: Path) -> None:
    run("by_call", "--epochs", "2", "--scheduler", "none")
    assert trials("by_call")["epochs"].tolist() == [2, 2, 2]
    assert set(trials("by_call")["status"]) == {"completed"}
    assert Path("notes.txt").read_text().split() == ["closed"] * 3


def test_training_cannot_go_on_after_its_end(place: Path) -> None:
    run("swallows", "--epochs", "2", "--scheduler", "none")
    assert trials("swallows")["epochs"].tolist() == [2, 2, 2]
    assert Path("notes.txt").read_text().split() == ["swallowed"] * 5 * 3


def test_report_of_a_trial_that_has_ended_is_refused(place: Path) -> None:
    run("reports_later", "--scheduler", "none")
    assert (trials("reports_later")["loss"] == trials("reports_later")["slope"]).all()
    assert Path("notes.txt").read_text().split() == ["refused"] * 3


def test_error_after_the_last_epoch_is_in_the_log(place: Path) -> None:
    run("fails_at_its_limit", "--epochs", "2", "--scheduler", "none")
    assert set(trials("fails_at_its_limit")["status"]) == {"completed"}
    assert "OSError: the model cannot be saved" in Path("out/fails_at_its_limit/trials/0000/log.txt").read_text()


def test_step_that_a_report_names_is_a_metric_and_decides_nothing(place: Path) -> None:
    for name in ("counts", "names_steps"):
        run(name, "--num-samples", "8")
    named = trials("names_steps")
    columns = ["slope", "status", "epochs", "best_epoch", "loss"]
    pd.testing.assert_frame_equal(named[columns], trials("counts")[columns])
    assert set(named["status"]) == {"completed", "stopped_early"}
    epochs = pd.read_csv("out/names_steps/epochs.csv").query("trial_number == 0")
    assert epochs["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert epochs["step"].tolist() == [7000, 5, 5, 900, 2, 1e9]
    assert epochs["metric_epoch"].tolist() == [6, 5, 4, 3, 2, 1]


def test_copy_of_a_training_ends_where_it_would_report_or_return(place: Path) -> None:
    run("forks", "--scheduler", "none")
    assert (trials("forks")["loss"] == trials("forks")["slope"]).all()
    assert set(trials("forks")["epochs"]) == {1}
    notes = Path("notes.txt").read_text().splitlines()
    processes = {int(note.split()[1]) for note in notes if note.startswith("process")}
    assert len(processes) == 4  # this one, and a copy in each of three trials
    assert [pid for pid in processes if "State:\tS" in status(pid)] == []


def status(pid: int) -> str:
    file = Path(f"/proc/{pid}/status")
    return "" if pid == os.getpid() or not file.is_file() else file.read_text()


def test_log_stays_short_while_child_processes_print(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial_folder, "LONGEST_LOG", 500)
    monkeypatch.setattr(trial_folder, "CHECK_SECONDS", 0.01)
    folder = place / "0000"
    with capfd.disabled(), trial_folder.in_trial_folder(folder):
        for _ in range(2):
            subprocess.run(["printf", "%01000d", "0"], check=True)
            wait_for(lambda: (folder / "log.txt").stat().st_size < 600)
        print("y" * 1000)
    log = (folder / "log.txt").read_bytes()
    assert log == b"0" * 500 + trial_folder.LEFT_OUT


def test_log_of_a_worker_has_no_more_of_a_trial_than_its_own_log(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial_folder, "LONGEST_LOG", 500)
    with trial_folder.in_trial_folder(place / "0000"):
        for _ in range(10):
            print("y" * 99)
    assert capfd.readouterr().out == ("y" * 99 + "\n") * 5 + trial_folder.LEFT_OUT.decode()


def test_training_that_goes_on_after_its_end_is_noticed_once(place: Path) -> None:
    """A worker ends its process some seconds later."""
    refused: list[BaseException] = []
    train_custom(
        "program.py:swallows",
        {"slope": 1.0},
        number=0,
        epochs=2,
        seed=0,
        objective=Objective("loss", "min"),
        checkpoint=Checkpoint(place / "trial.pt", place / "0000"),
        report=lambda *_, **__: None,
        on_refused=refused.append,
    )
    assert [type(end) for end in refused] == [LimitReachedError]


def test_function_of_ray_tune_runs_unchanged(place: Path) -> None:
    ended = run("with_tune", "--scheduler", "none")
    table = trials("with_tune")
    assert table["epochs"].tolist() == [6, 6, 6]
    assert (table["loss"] == table["slope"] / 6).all()
    assert "the training also reports what is not recorded" in ended.stdout
    saved = Path("out/with_tune/checkpoints")
    best = table["loss"].idxmin()
    assert [folder.name for folder in saved.iterdir()] == [f"trial-{best:04}-epoch-0006"]
    run("with_result")
    assert (trials("with_result")["loss"] == trials("with_result")["slope"] / 10).all()
    assert trials("with_result")["epochs"].tolist() == [2, 2, 2]


class StoppedError(BaseException):
    """Ends a trial from its report, as Ray does."""


def test_function_of_ray_tune_goes_on_from_its_checkpoint(place: Path) -> None:
    measured: list[CustomMetrics] = []

    def report(metrics: CustomMetrics, *, is_last: bool) -> None:
        measured.append(metrics)
        if metrics.epoch == 3:
            raise StoppedError

    def train(epochs_reported: int) -> None:
        checkpoint = Checkpoint(place / "checkpoints" / "trial-0001.pt", place / "0001", epochs_reported)
        objective = Objective("loss", "min")
        hyperparameters = {"slope": 6.0}
        train_custom(
            "program.py:with_tune",
            hyperparameters,
            number=0,
            epochs=None,
            seed=0,
            objective=objective,
            checkpoint=checkpoint,
            report=report,
        )

    with pytest.raises(StoppedError):
        train(0)
    train(3)
    assert [(metrics.epoch, metrics.values["loss"]) for metrics in measured] == [
        (epoch, 6 / epoch) for epoch in range(1, 7)
    ]
    assert Path("notes.txt").read_text() == "from 0\nfrom 3\n"
