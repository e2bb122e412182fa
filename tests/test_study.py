"""Whole studies on digits."""

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from PIL import Image
from serial_ray import CompletedRun, StartedRun, run_command
from studies import NUMBERS, few_digits
from test_resume import wait_for_epochs

from search.engine import study as study_module
from search.engine import tuner
from search.record.lookup import resumed_settings
from search.record.study_record import StudyRecord
from search.run import run_study
from search.settings import StudySettings
from search.space.search_space import Point
from training.config import PROJECT

SIX_TRIALS = ["--dataset", "digits", "--num-samples", "6", "--epochs", "3", "--max-concurrent", "1"]
TIMES = ["trial_id", "seconds", "peak_memory_mb"]


@pytest.fixture
def _few_digits() -> Iterator[None]:
    with few_digits():
        yield


def read_trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv").set_index("trial_number")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def finished(results: Path) -> CompletedRun:
    """One study of six trials, one at a time."""
    return run_command("search/run.py", *SIX_TRIALS, "--name", "first", "--results-dir", str(results))


def test_study_without_ray_succeeds_and_says_as_much(finished: CompletedRun) -> None:
    assert finished.status == 0, finished.stderr
    assert finished.stderr == ""
    assert len(finished.stdout.splitlines()) < 45
    assert re.search(r"^Confirm: python .*search/confirm.py .*first$", finished.stdout, re.MULTILINE)


def test_every_trial_is_a_row_of_both_tables(finished: CompletedRun, results: Path) -> None:
    trials, epochs = read_trials(results / "first"), pd.read_csv(results / "first" / "epochs.csv")
    assert sorted(trials.index) == [0, 1, 2, 3, 4, 5]
    assert set(trials["status"]) <= {"completed", "stopped_early"}
    assert (trials.loc[trials["status"] == "completed", "epochs"] == 3).all()
    assert (trials.loc[trials["status"] == "stopped_early", "epochs"] < 3).all()
    assert epochs.groupby("trial_number").size().to_dict() == trials["epochs"].to_dict()
    assert trials["seed"].to_dict() == {number: number for number in range(6)}
    assert trials["error"].isna().all()


def test_baseline_is_never_stopped(finished: CompletedRun, results: Path) -> None:
    baseline = read_trials(results / "first").loc[0]
    assert (baseline["learning_rate"], baseline["batch_size"], baseline["optimizer"]) == (1e-3, 64, "sgd")
    assert baseline["status"] == "completed"


def test_table_lines_and_summary_agree_on_the_best(finished: CompletedRun, results: Path) -> None:
    trials, epochs = read_trials(results / "first"), pd.read_csv(results / "first" / "epochs.csv")
    best = trials.iloc[0]
    assert best["val_accuracy"] == epochs["val_accuracy"].max() == trials["val_accuracy"].max()
    at_best_epoch = epochs[(epochs["trial_number"] == best.name) & (epochs["epoch"] == best["best_epoch"])].iloc[0]
    for metric in ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_loss"):
        assert best[metric] == at_best_epoch[metric]
    assert (
        f"Best: trial {best.name}, epoch {best['best_epoch']}: "
        f"val_accuracy {best['val_accuracy']:.4f}, test_accuracy {best['test_accuracy']:.4f}\n"
    ) in finished.stdout
    *_, last_star = re.findall(r"^ *(\d+) .* (\d\.\d{4}) \* ", finished.stdout, re.MULTILINE)
    assert last_star == (str(best.name), f"{best['val_accuracy']:.4f}")
    gain = r"  gain over the best\s+starting\s+point, trial [012](, both after \d epochs?)?: \+\d+\.\d\s+points"
    assert re.search(gain, finished.stdout) or "No trial was better than the settings" in finished.stdout


def test_study_json_says_what_was_run(finished: CompletedRun, results: Path) -> None:
    summary = json.loads((results / "first" / "study.json").read_text())
    assert summary["dataset"]["name"] == "digits"
    assert len(summary["dataset"]["sha256"]) == 64
    assert summary["settings"]["metric"] == "val_accuracy"
    assert summary["settings"]["num_samples"] == 6
    assert summary["space"]["batch_size"] == {"ordered": [32, 64, 128, 256, 512]}
    (start,) = summary["sessions"]
    assert start["command"].startswith("python search/run.py --dataset digits")
    assert sum(summary["trials"].values()) == 6
    assert summary["best_trial"] == int(read_trials(results / "first").index[0])
    assert set(start["versions"]) >= {"python", "torch", "ray", "optuna", "pandas"}
    assert start["machine"]["cpus"] >= 1


def test_record_accounts_for_every_trial(finished: CompletedRun, results: Path) -> None:
    stored = optuna.load_study(study_name="first", storage=f"sqlite:///{results / 'first' / 'study.db'}").trials
    assert len(stored) == 6
    assert {trial.state for trial in stored} <= {TrialState.COMPLETE, TrialState.PRUNED}


def test_latest_points_to_the_newest_study(finished: CompletedRun, results: Path) -> None:
    assert (results / "latest").resolve() == results / "first"
    assert not list(results.rglob("*.draft"))


def test_best_trial_can_be_trained_again_alone_with_the_same_numbers(finished: CompletedRun, results: Path) -> None:
    (line,) = re.findall("    python (training/run.py .*)", (results / "first" / "model" / "README.md").read_text())
    script, *options = line.split()
    run = run_command(script, *options)
    assert run.status == 0, run.stderr
    epochs = (
        pd.read_csv(results / "first" / "epochs.csv")
        .groupby("trial_number")
        .get_group(read_trials(results / "first").index[0])
    )
    printed = re.findall(r"Test Error: \n Accuracy: (.*)%, Avg loss: (.*) \n", run.stdout)
    assert printed == [
        (f"{100 * accuracy:.1f}", f"{loss:.6f}")
        for accuracy, loss in zip(epochs["test_accuracy"], epochs["test_loss"], strict=True)
    ]


def test_best_model_is_shipped_and_best_trial_reproduced_by_the_commands_of_the_summary(
    finished: CompletedRun, results: Path, tmp_path: Path
) -> None:
    best = read_trials(results / "first").iloc[0]
    words = dict(re.findall(r"^(Predict|Reproduce): python (.*)$", finished.stdout, re.MULTILINE))
    picture = tmp_path / "picture.png"
    Image.new("L", (8, 8), 40).save(picture)
    script, model, _ = words["Predict"].split()
    elsewhere = results / "elsewhere"  # the summary's paths are relative to where the study was started
    elsewhere.mkdir()
    predicted = run_command(script, str(results / "first" / Path(model).name), str(picture), cwd=elsewhere)
    assert predicted.status == 0, predicted.stderr
    assert re.fullmatch(rf"{re.escape(str(picture))}: \d [01]\.\d{{4}}\n", predicted.stdout)
    before = {file: file.read_bytes() for file in (results / "first").rglob("*") if file.is_file()}
    script, _, number = words["Reproduce"].split()
    assert int(number) == best.name
    reproduced = run_command(script, "first", number, "--results-dir", str(results), cwd=elsewhere)
    assert reproduced.status == 0, reproduced.stdout + reproduced.stderr
    assert re.search(
        rf"The trial agrees with its record: all metrics of {best['epochs']} epochs? are equal", reproduced.stdout
    )
    assert {file: file.read_bytes() for file in (results / "first").rglob("*") if file.is_file()} == before


@pytest.mark.usefixtures("_few_digits")
def test_same_seed_with_one_worker_gives_the_same_study(tmp_path: Path) -> None:
    """The default sampler looks at times, which differ."""
    words = ["--dataset", "digits", "--num-samples", "10", "--epochs", "2", "--max-concurrent", "1", "--sampler", "tpe"]
    for name in ("first", "second"):
        where = ["--name", name, "--no-dashboard", "--results-dir", str(tmp_path)]
        assert run_command("search/run.py", *words, *where).status == 0
    first, second = (read_trials(tmp_path / name).drop(columns=TIMES) for name in ("first", "second"))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.usefixtures("_few_digits")
def test_expected_values_are_tried_first_and_kept_when_the_study_is_resumed(tmp_path: Path) -> None:
    words = ["--dataset", "digits", "--epochs", "1", "--no-baseline", "--no-dashboard", "--results-dir", str(tmp_path)]
    prior = ["--prior", "learning_rate=0.05", "optimizer=adam"]
    assert run_command("search/run.py", *words, *prior, "--num-samples", "6", "--name", "mine").status == 0
    tried = read_trials(tmp_path / "mine").sort_index()
    assert (tried["optimizer"][1::2] == "adam").sum() >= 2
    assert tried["learning_rate"][1::2].between(0.005, 0.1).sum() >= 2
    resumed = run_command("search/run.py", "--resume", str(tmp_path / "mine"), "--num-samples", "+1", "--no-dashboard")
    assert resumed.status == 0, resumed.stdout + resumed.stderr
    assert StudyRecord.open(tmp_path / "mine").metadata.settings.prior == ("learning_rate=0.05", "optimizer=adam")


def run_with_trainable(trainable: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[int, Path]:
    monkeypatch.setattr(tuner, "trainable", trainable)
    study = study_module.prepare_study(StudySettings(**{"dataset": "digits", "dashboard": False, **options}))
    return run_study(study), study.record.folder


POINTS: tuple[Point, ...] = (
    {"learning_rate": 1e-3, "batch_size": 32, "optimizer": "adam"},
    {"learning_rate": 1e-1, "batch_size": 64, "optimizer": "rmsprop"},
    {"learning_rate": 1e-3, "batch_size": 512, "optimizer": "sgd"},
    {"learning_rate": 1e-3, "batch_size": 32, "optimizer": "adam"},
)
"""The configurations of the first trials of a study with the real Ray."""
EPOCHS = 6


def enqueue_points(record: StudyRecord, most: int) -> list[Point]:
    for point in POINTS:
        record.study.enqueue_trial(point)
    return [*POINTS]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A study with the real Ray that was interrupted in its last trial: its folder, exit status and output."""
    results = tmp_path_factory.mktemp("interrupted")
    words = ["--dataset=digits", "--num-samples=5", f"--epochs={EPOCHS}", "--max-concurrent=1", "--scheduler=none"]
    more = ["--no-dashboard", "--name=study", f"--results-dir={results}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyRecord, "enqueue_starting_points", enqueue_points)
        patch.setattr(tuner, "trainable", faulty.always_seed_0)
        run = StartedRun("search/run.py", *words, *more, real=True)
    with run:
        wait_for_epochs(results / "study", len(POINTS) * EPOCHS + 1)
        run.send(signal.SIGINT)
        return results / "study", *run.end()


@pytest.mark.ray
def test_reused_worker_keeps_nothing_of_earlier_trials(interrupted: tuple[Path, int, str]) -> None:
    """The same configuration as the first and the last trial of one process gives the same numbers.

    All trials read the same images in memory: nothing is copied for a trial.
    """
    folder, *_ = interrupted
    notes = Path(os.environ[faulty.NOTES]).read_text().splitlines()
    assert len(notes) == 5
    assert len(set(notes)) == 1
    epochs = pd.read_csv(folder / "epochs.csv")
    curves = [curve[NUMBERS].to_numpy() for _, curve in epochs.groupby("trial_number")]
    assert (curves[0] == curves[3]).all()
    assert (curves[0] != curves[2]).any()


@pytest.mark.ray
def test_interrupt_of_a_study_with_ray_keeps_everything(interrupted: tuple[Path, int, str]) -> None:
    folder, status, output = interrupted
    assert status == 130, output
    said, resumed = output.splitlines()[-1].split(" --resume ")
    assert said == "Interrupted. To continue: python search/run.py"
    assert (PROJECT / resumed).resolve() == folder
    trials = read_trials(folder).sort_index()
    assert trials["status"].tolist() == ["completed"] * 4 + ["interrupted"]
    assert trials["epochs"].to_dict() == pd.read_csv(folder / "epochs.csv").groupby("trial_number").size().to_dict()
    assert 1 <= trials["epochs"][4] < EPOCHS


def test_study_in_which_nothing_completes_fails_and_says_where_to_look(
    without_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, folder = run_with_trainable(
        faulty.always_raises, monkeypatch, num_samples=2, epochs=1, results_dir=tmp_path
    )
    output = capfd.readouterr().out
    assert status == 1
    assert read_trials(folder)["status"].tolist() == ["failed", "failed"]
    assert "No trial has valid metrics; the errors are in trials.csv and errors/." in output


def test_unwritable_results_folder_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)
    with pytest.raises(ValueError, match="the results folder cannot be written"):
        study_module.prepare_study(StudySettings(dataset="digits", results_dir=tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_study_is_resumed_from_python_with_its_own_settings(without_ray: None, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    values: dict[str, Any] = {"dataset": "digits", "results_dir": tmp_path}
    begun = StudySettings(**values, name="study", num_samples=1, epochs=3, scheduler="none")
    assert run_study(study_module.prepare_study(begun)) == 0
    with pytest.raises(ValueError, match=r"the study was started with epochs 3 \(now 10\), scheduler none"):
        study_module.prepare_study(StudySettings(**values, resume=str(folder), num_samples=2))
    with pytest.raises(ValueError, match=r"the study was started with epochs 3 \(now 4\)"):
        resumed_settings(folder, epochs=4)
    assert run_study(study_module.prepare_study(resumed_settings(folder, num_samples=2))) == 0
    assert read_trials(folder)["epochs"].tolist() == [3, 3]


@pytest.mark.usefixtures("_few_digits")
def test_printed_commands_can_be_typed_where_the_study_was_started(tmp_path: Path) -> None:
    """From another folder, with a results folder of its own whose name has a space."""
    words = ["--dataset=digits", "--num-samples=12", "--epochs=2", "--name=study"]
    run = run_command("search/run.py", *words, "--results-dir=my results", "--scheduler=none", cwd=tmp_path)
    assert run.status == 0, run.stderr
    Image.new("L", (8, 8), 40).save(tmp_path / "IMAGE", "png")
    scripts = set()
    for command in re.findall(r"^(?:\w+:)? +(python .*|optuna-dashboard .*)$", run.stdout, re.MULTILINE):
        program, script, *options = shlex.split(command)
        if program == "optuna-dashboard":
            assert len(optuna.load_study(study_name="study", storage=script).trials) == 12
        else:
            scripts.add(Path(script).name)
            done = run_command(str((tmp_path / script).resolve().relative_to(PROJECT)), *options, cwd=tmp_path)
            assert done.status == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert scripts >= {"predict.py", "reproduce.py"}


def test_studies_started_in_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    settings = StudySettings(dataset="digits", results_dir=tmp_path)
    folders = {study_module.prepare_study(settings).record.folder for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() and folder.name.startswith("digits-") for folder in folders)
