"""A study goes on with the same code, wherever it lies and however it is commented, and says what has changed."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from serial_ray import CompletedRun, run_command

TRAINING = '''"""Trains."""
from helper import loss

def train(rate):
    """Yield a loss."""
    for epoch in (1, 2):
        yield {"loss": loss(rate, epoch)}  # the validation
'''
HELPER = "def loss(rate, epoch):\n    return rate / epoch\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, TRAINING, HELPER)
    (tmp_path / "space.toml").write_text("[rate]\nlow = 0.0\nhigh = 1.0\n")
    options = ["--space", "space.toml", "--metric", "loss", "--num-samples", "2", "--name", "s", "--results-dir", "out"]
    assert run_command("search/run.py", "--train-function", "mine.py:train", *options).status == 0
    return tmp_path


def write(folder: Path, training: str, helper: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(training)
    (folder / "helper.py").write_text(helper)


def resume(file: str, *options: str) -> CompletedRun:
    words = ["--resume", "out/s", "--num-samples", "3", "--train-function", f"{file}:train", *options]
    return run_command("search/run.py", *words)


def test_comments_docstrings_layout_and_the_folder_change_nothing(place: Path) -> None:
    moved = place / "moved"
    edited = TRAINING.replace("# the validation", "").replace('"""Yield a loss."""', '"""Do."""')
    write(moved, edited, f"# new\n\n{HELPER}")
    (place / "mine.py").unlink()
    ended = resume("moved/mine.py")
    assert ended.status == 0, ended.stderr
    assert "changed code" not in ended.stdout
    assert len(pd.read_csv("out/s/trials.csv")) == 3
    again = run_command("search/run.py", "--resume", "out/s")  # the record names the new place
    assert f"needs the code of {moved}/mine.py:train" in again.stderr


def test_changed_code_is_named_and_goes_on_only_when_asked(place: Path) -> None:
    write(place, TRAINING, HELPER.replace("rate / epoch", "rate / epoch + 0"))
    refused = resume("mine.py")
    assert refused.status == 2
    assert refused.stderr.startswith(
        "error: study s was run with other code: helper.py changed since then, so new trials"
    )
    assert refused.stderr.endswith("if the change of code alters no number, add --accept-changes\n")
    accepted = resume("mine.py", "--accept-changes")
    assert accepted.status == 0, accepted.stderr
    assert "the study continues with changed code: helper.py" in accepted.stdout
    assert resume("mine.py", "--num-samples", "4").status == 0  # what was accepted is the study's code now
    assert len(pd.read_csv("out/s/trials.csv")) == 4


FRAGILE = """from pathlib import Path

def train(rate):
    if Path("broken").exists():
        raise ValueError("boom")
    yield {"loss": rate}
"""
CORRECTED = FRAGILE.replace("rate}", "rate + 1}")


def search_fragile(place: Path, num_samples: int) -> CompletedRun:
    (place / "fragile.py").write_text(FRAGILE)
    words = ["--space", "space.toml", "--metric", "loss", "--name", "f", "--results-dir", "out", "--scheduler", "none"]
    run = ["search/run.py", "--train-function", "fragile.py:train", "--num-samples", str(num_samples)]
    return run_command(*run, *words)


def correct(place: Path) -> None:
    (place / "broken").unlink()
    (place / "fragile.py").write_text(CORRECTED)


def printed_command(ended: CompletedRun) -> list[str]:
    return shlex.split(re.findall("To continue: python (.*)", ended.stdout)[0])


def test_study_without_any_number_goes_on_with_corrected_code(place: Path) -> None:
    (place / "broken").touch()
    failed = search_fragile(place, 6)
    assert failed.status == 1
    assert "Correct the cause of this error first. To continue: python " in failed.stdout
    assert "--accept-changes" not in failed.stdout
    correct(place)
    corrected = run_command(*printed_command(failed))
    assert corrected.status == 0, corrected.stderr
    assert "the study continues with changed code: fragile.py" in corrected.stdout
    assert pd.read_csv("out/f/trials.csv")["status"].tolist() == ["completed"] * 3 + ["failed"] * 3
    (place / "fragile.py").write_text(FRAGILE)  # now there are numbers
    assert "add --accept-changes" in run_command(*printed_command(failed), "--num-samples", "7").stderr


def test_study_with_numbers_names_the_option_that_accepts_corrected_code(place: Path) -> None:
    assert search_fragile(place, 2).status == 0
    (place / "broken").touch()
    more = ["--resume", "out/f", "--num-samples", "8", "--train-function", "fragile.py:train"]
    failed = run_command("search/run.py", *more)
    told = " ".join(failed.stdout.split())
    assert "If the correction changes your code, add --accept-changes, if it changes none of the numbers" in told
    correct(place)
    assert run_command(*printed_command(failed)).status == 2
    assert run_command(*printed_command(failed), "--accept-changes").status == 0
