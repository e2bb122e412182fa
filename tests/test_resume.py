"""Studies on digits that are interrupted, moved, resumed and extended; `test_chaos.py` kills them with the real Ray."""

import itertools
import json
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import torch
from filelock import FileLock
from serial_ray import CompletedRun, StartedRun, run_command
from studies import NUMBERS

from search.record.lookup import add_stored_trials, find_study, stored_settings
from search.settings import StudySettings
from training.config import PROJECT, TrialConfig
from training.console.command_line import option_value
from training.images.image_data import ImageData
from training.loop import train

EPOCHS = 20
COMMAND = ["search/run.py", "--no-dashboard"]
TWO_TRIALS = ["--dataset", "digits", "--num-samples", "2", "--epochs", str(EPOCHS), "--max-concurrent", "1"]


def search(*options: str) -> CompletedRun:
    return run_command(*COMMAND, *options)


def epochs_recorded(folder: Path) -> int:
    """Epochs in the record, as another process sees them."""
    if not (folder / "study.db").exists():
        return 0
    with closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)) as database:
        query = "SELECT count(*) FROM trial_user_attributes WHERE key LIKE 'epoch %'"
        try:
            return int(database.execute(query).fetchone()[0])
        except sqlite3.OperationalError:  # not made yet, or being written
            return 0


def wait_for_epochs(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 120
    while (recorded := epochs_recorded(folder)) < number:
        assert time.monotonic() < deadline, f"{recorded} of {number} epochs within two minutes"
        time.sleep(0.05)


def interrupt_in_first_trial(results: Path, number: signal.Signals) -> tuple[int, str]:
    """Start a study and send its driver a signal when five epochs are recorded; returns exit status and output.

    Args:
        results: Folder for the study, which is called `study`.
        number: The signal.
    """
    options = [*TWO_TRIALS, "--scheduler", "none", "--name", "study", "--results-dir", str(results)]
    with StartedRun(*COMMAND, *options) as run:
        wait_for_epochs(results / "study", 5)
        run.send(number)
        return run.end()


def curve(folder: Path, trial_number: int) -> pd.DataFrame:
    epochs = pd.read_csv(folder / "epochs.csv")
    return epochs.loc[epochs["trial_number"] == trial_number, NUMBERS]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study whose driver was killed in its first trial, moved elsewhere since."""
    results = tmp_path_factory.mktemp("killed")
    status, _ = interrupt_in_first_trial(results, signal.SIGKILL)
    assert status == -signal.SIGKILL
    moved = tmp_path_factory.mktemp("moved") / "my study (copy)"
    shutil.move(results / "study", moved)
    return moved


@pytest.fixture(scope="module")
def resumed(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same study, resumed as it was begun."""
    folder = Path(shutil.copytree(killed, tmp_path_factory.mktemp("resumed") / killed.name))
    run = search("--resume", str(folder))
    assert run.status == 0, run.stdout + run.stderr
    assert "0 ended trials; 2 to run, 1 of them continues after the last epoch" in run.stdout
    return folder


def test_killed_trial_goes_on_with_the_numbers_of_an_uninterrupted_one(resumed: Path, digits: ImageData) -> None:
    alone = pd.DataFrame([asdict(metrics) for metrics in train(TrialConfig(epochs=EPOCHS, seed=0), digits)])
    recorded = curve(resumed, trial_number=0).reset_index(drop=True)
    pd.testing.assert_frame_equal(recorded, alone[NUMBERS], rtol=1e-12)


def test_resumed_study_has_every_trial_once_and_keeps_the_best_epoch(resumed: Path) -> None:
    trials = pd.read_csv(resumed / "trials.csv").set_index("trial_number")
    assert sorted(trials.index) == [0, 1]
    assert (trials["status"] == "completed").all()
    assert (trials["epochs"] == EPOCHS).all()
    assert trials["optimizer"].to_dict() == {0: "sgd", 1: "rmsprop"}  # the starting points were queued once
    best = trials.iloc[0]
    (kept,) = (resumed / "checkpoints").iterdir()
    assert kept.name == f"trial-{best.name:04}-epoch-{best['best_epoch']:04}.pt"
    assert torch.load(kept, weights_only=True)["states"]["progress"]["epoch"] == best["best_epoch"]


def test_time_of_both_sessions_is_counted(resumed: Path) -> None:
    study = json.loads((resumed / "study.json").read_text())
    killed, finished = study["sessions"]
    assert killed["seconds"] is None
    assert study["seconds"] > finished["seconds"]
    whole = study["time"].pop("whole")
    assert whole == pytest.approx(study["seconds"] * finished["machine"]["cpus"], abs=1)
    assert sum(study["time"].values()) == pytest.approx(whole, rel=0.03)


def test_finished_study_is_extended_and_its_trials_are_kept(resumed: Path) -> None:
    before = pd.read_csv(resumed / "trials.csv").set_index("trial_number")
    assert "nothing to run" in search("--resume", str(resumed)).stdout
    run = search("--resume", str(resumed), "--num-samples", "+1")
    assert run.status == 0, run.stdout + run.stderr
    after = pd.read_csv(resumed / "trials.csv").set_index("trial_number")
    assert sorted(after.index) == [0, 1, 2]
    pd.testing.assert_frame_equal(after.loc[[0, 1]], before.loc[[0, 1]])
    assert after.loc[2, "seed"] == 2
    assert stored_settings(resumed).num_samples == 3


def test_trials_that_must_leave_within_their_epochs_have_the_same_numbers(tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--num-samples", "2", "--epochs", "2", "--results-dir", str(tmp_path)]
    assert search(*options, "--name", "whole").status == 0
    asked = itertools.count(1)
    with mock.patch("search.engine.trainable._asked_seldom", return_value=lambda: next(asked) % 7 == 0):
        run = search(*options, "--name", "moved")
    assert run.status == 0, run.stderr
    assert next(asked) > 2 * 2 * 7
    whole, moved = (pd.read_csv(tmp_path / name / "epochs.csv") for name in ("whole", "moved"))
    pd.testing.assert_frame_equal(moved[["trial_number", *NUMBERS]], whole[["trial_number", *NUMBERS]])


def test_same_command_line_begins_a_study_and_goes_on_with_it(tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--epochs", "1", "--results-dir", str(tmp_path), "--resume-existing"]
    named = [*options, "--name", "first", "--set", "batch_size=64"]
    assert search(*named, "--num-samples", "2").status == 0
    assert "2 ended trials; 1 to run" in search(*named, "--num-samples", "3").stdout
    assert "nothing to run" in search(*named, "--num-samples", "3").stdout
    assert "epochs 1 (now 2)" in search(*named, "--epochs", "2").stderr
    for others in ([], ["--name", "first", "--resume", "first"]):
        assert search(*options, *others).stderr == "error: resume_existing needs name, and not resume\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_keeps_everything_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals, status: int) -> None:
    returned, output = interrupt_in_first_trial(tmp_path, number)
    assert returned == status
    said, resumed = output.splitlines()[-1].split(" --resume ")
    assert said == "Interrupted. To continue: python search/run.py"
    assert (PROJECT / resumed).resolve() == tmp_path / "study"
    trials = pd.read_csv(tmp_path / "study" / "trials.csv")
    assert trials["status"].tolist() == ["interrupted"]
    assert trials["epochs"].tolist() == [len(curve(tmp_path / "study", trial_number=0))]
    assert trials["epochs"][0] >= 5


def test_files_of_a_killed_study_are_rebuilt_from_its_record_alone(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "study")
    for name in ("trials.csv", "epochs.csv", "study.json"):
        (tmp_path / "study" / name).unlink()
    run = run_command("search/report.py", "study", "--results-dir", str(tmp_path))
    assert run.status == 0, run.stderr
    assert "digits: 0 of 2 trials" in run.stdout
    assert "1 interrupted" in run.stdout
    assert len(curve(tmp_path / "study", trial_number=0)) == epochs_recorded(tmp_path / "study") >= 5
    assert json.loads((tmp_path / "study" / "study.json").read_text())["trials"] == {"interrupted": 1}


def test_report_of_a_missing_study_is_refused(tmp_path: Path) -> None:
    run = run_command("search/report.py", "missing", "--results-dir", str(tmp_path))
    assert run.status == 2
    assert run.stderr.startswith("error: there is no study missing")


def test_report_needs_a_study() -> None:
    run = run_command("search/report.py")
    assert (run.status, run.stderr) == (2, "error: a report needs either STUDY or --import SOURCE\n")


def test_what_would_make_trials_incomparable_is_refused(killed: Path) -> None:
    before = (killed / "study.db").read_bytes()
    for options, difference in (
        (["--epochs", "70"], "epochs 20 (now 70)"),
        (["--val-fraction", "0.5"], "val_fraction 0.16666666666666666 (now 0.5)"),
        (["--seed", "1"], "seed 0 (now 1)"),
    ):
        run = search("--resume", str(killed), *options)
        assert run.status == 2
        assert run.stderr.startswith(
            f"error: the study was started with {difference}, so new trials would not be compar"
        )
    assert (killed / "study.db").read_bytes() == before


def test_study_that_another_process_runs_is_refused(killed: Path) -> None:
    (killed / ".owner").write_text("process 1 on another-machine")
    with FileLock(killed / ".lock"):
        run = search("--resume", str(killed))
    assert run.status == 2
    assert run.stderr == f"error: study {killed.name} is being run by process 1 on another-machine\n"


def test_missing_and_damaged_studies_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.db").write_bytes(os.urandom(5000))
    for study, sentence in (("missing", "error: there is no study missing"), ("damaged", "error: ")):
        run = search("--results-dir", str(tmp_path), "--resume", study)
        assert run.status == 2
        assert run.stderr.startswith(sentence)
        assert run.stderr.count("\n") == 1


def test_study_is_found_by_name_path_and_latest(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.db").touch()
    (tmp_path / "latest").symlink_to("mine")
    for study in ("mine", "latest", str(tmp_path / "mine")):
        assert find_study(study, tmp_path) == tmp_path / "mine"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--num-samples", "+20"], ["--num-samples", "+20", "--num-samples=25"]),
        (["--num_samples=+20", "--name=a+20"], ["--num_samples=+20", "--name=a+20", "--num-samples=25"]),
        (["--num-samples", "20"], ["--num-samples", "20"]),
        ([], []),
    ],
)
def test_plus_means_so_many_more(words: list[str], meant: list[str]) -> None:
    assert add_stored_trials(words, trials_so_far=5) == meant


def test_option_without_a_value_is_left_to_the_parser() -> None:
    assert option_value(["--resume"], "--resume") is None
    assert StudySettings().resume is None
