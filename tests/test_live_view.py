"""The live view, in a terminal that is emulated: what is on the screen, whatever else is printed or happens."""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import faulty
import pandas as pd
import pytest
from serial_ray import become_command
from terminal_emulator import Terminal
from test_model_folder import model_metadata

from search.engine import tuner
from search.engine.header import header_lines
from search.engine.study import prepare_study
from search.engine.study_run import build_view
from search.monitoring.live_view import LiveView, clock, sparkline
from search.monitoring.terminal import PlainView
from search.record import lookup
from search.record.trial import TrialRecord
from search.settings import StudySettings
from training.config import PROJECT
from training.console.terminal import counted
from training.images.image_data import ImageData


def chatter(self: LiveView, trial: TrialRecord) -> None:
    """All kinds of output."""
    print("chatter printed")
    print("chatter to stderr", file=sys.stderr, flush=True)
    os.write(2, b"chatter past Python\n")
    print("chatter \x1b[2J spelled out", flush=True)


def study(columns: int, folder: Path, *options: str, real: bool = False) -> Terminal:
    """A study, by default without Ray, with slow epochs and with output at the end of each trial."""
    words = ["--dataset", "digits", "--no-dashboard", "--results-dir", str(folder), "--name", "live", *options]
    if real:
        command = [sys.executable, str(PROJECT / "search" / "run.py"), *words]
        return Terminal(columns, lambda: os.execv(command[0], command))

    def run() -> None:
        LiveView.show_ended = chatter  # type: ignore[method-assign]
        tuner.__dict__["trainable"] = faulty.slow
        become_command("search/run.py", *words)

    return Terminal(columns, run)


def test_view_stands_whatever_is_printed_and_however_wide_the_terminal_is(tmp_path: Path) -> None:
    """Printed from Python and past it, to both outputs, with what would command a terminal."""
    terminal = study(200, tmp_path, "--num-samples", "4", "--epochs", "8", "--scheduler", "none")
    terminal.wait_for(lambda: "/8" in terminal.text)
    for columns in (200, 80, 60):
        terminal.resize(columns)
        terminal.wait_for(lambda: shows_one_view(terminal.lines))
        time.sleep(0.5)  # at least one more picture
        terminal.wait_for(lambda: shows_one_view(terminal.lines))
    assert terminal.wait() == 0
    assert "━" not in terminal.text  # the view is gone
    assert "digits: 4 of 4 trials" in terminal.text
    for said in ("printed", "to stderr", "past Python", "\\x1b[2J spelled out"):
        assert terminal.text.count(f"chatter {said}") == 4, terminal.text
    assert terminal.text.replace("chatter \\x1b[2J", "").count("\\x1b") == 0  # nothing else was spelled out


def shows_one_view(lines: list[str]) -> bool:
    """Whether each of its parts is there, and once."""
    parts = [" elapsed", "Study live", "━", "best     ", "epochs   ", "epoch    last"]
    return [sum(part in line for line in lines) for part in parts] == [1] * len(parts)


def test_interrupted_study_gives_the_terminal_back(tmp_path: Path) -> None:
    terminal = study(80, tmp_path, "--num-samples", "50", "--epochs", "200")
    terminal.wait_for(lambda: "/200" in terminal.text)
    terminal.send(signal.SIGINT)
    assert terminal.wait() == 130
    assert "Stopping the study; press Ctrl-C again to stop immediately." in terminal.text
    assert "To continue: python search/run.py --resume" in terminal.text
    assert "━" not in terminal.text


@pytest.mark.ray
def test_second_interrupt_says_so_before_it_ends_at_once(tmp_path: Path) -> None:
    terminal = study(80, tmp_path, "--num-samples", "50", "--epochs", "200", real=True)
    terminal.wait_for(lambda: "/200" in terminal.text)
    terminal.send(signal.SIGINT)
    terminal.send(signal.SIGINT)
    terminal.send(signal.SIGTERM)
    assert terminal.wait() in (130, 143)
    assert "Stopped immediately" in terminal.text


@pytest.mark.parametrize(
    ("quiet", "is_terminal", "kind", "view"),
    [
        (False, True, "xterm", LiveView),
        (True, True, "xterm", PlainView),
        (False, False, "xterm", PlainView),
        (False, True, "dumb", PlainView),
    ],
)
def test_view_is_live_where_somebody_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool, is_terminal: bool, kind: str, view: type
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    monkeypatch.setenv("TERM", kind)
    settings = StudySettings(dataset="digits", results_dir=tmp_path, quiet=quiet)
    assert type(build_view(prepare_study(settings))) is view


def test_sentences_are_right_for_one_too(tmp_path: Path) -> None:
    settings = StudySettings(dataset="digits", results_dir=tmp_path, num_samples=1, epochs=1, max_concurrent=1)
    header = "\n".join(header_lines(prepare_study(settings)))
    assert "  search     1 trial of 1 epoch for the highest val_accuracy" in header
    assert "; 1 trial at a time, 1 core each" in header
    assert (counted(0, "image"), counted(1, "image"), counted(1000, "image")) == ("0 images", "1 image", "1,000 images")


def test_output_of_twenty_trials_fits_on_one_screen(tmp_path: Path, digits: ImageData) -> None:
    """The study that was kept, as if its model had been too, in 24 lines of 80 columns, the next prompt included."""
    folder = tmp_path / "results" / "fashion-mnist-reference"
    shutil.copytree(PROJECT / "results" / "fashion-mnist-reference", folder)
    best = pd.read_csv(folder / "trials.csv").iloc[0]
    told = model_metadata(digits, trial=int(best["trial_number"]), epoch=int(best["best_epoch"]))
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps(asdict(told)))

    def report() -> None:
        os.environ.pop("TUNESMITH_DATA", None)
        lookup.__dict__["PROJECT"] = tmp_path  # commands are printed as if this were the checkout
        become_command("search/report.py", "results/fashion-mnist-reference", cwd=tmp_path)

    terminal = Terminal(80, report)
    assert terminal.wait() == 0
    assert "Predict: python training/predict.py results/fashion-mnist-reference/model IMAGE" in terminal.text
    assert terminal.text.rstrip().count("\n") + 1 <= 23, terminal.text


def test_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0.1, 0.5, 0.9]) == "▁▅█"
    assert sparkline([0.5, 0.5]) == "▅▅"
    assert sparkline([]) == ""
    assert len(sparkline([float(epoch) for epoch in range(100)])) == 12


def test_clock_shows_hours_only_when_there_are_any() -> None:
    assert [clock(seconds) for seconds in (0, 83.4, 3723)] == ["0:00", "1:23", "1:02:03"]
