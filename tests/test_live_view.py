"""The live view, in a terminal that is emulated: what is on the screen, whatever else is printed or happens."""

import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import faulty
import pandas as pd
import pytest
import torch
from rich.console import Console
from serial_ray import become_command, run_command
from terminal_emulator import Terminal
from test_model_folder import model_metadata

from search.engine import header, tuner
from search.engine.header import header_lines
from search.engine.study import prepare_study
from search.engine.study_run import build_view
from search.monitoring.live_view import LiveView, sparkline
from search.monitoring.terminal import PlainView, clock, header_line
from search.record import lookup, provenance
from search.record.confirmation import Plan
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.settings import StudySettings
from training import typed_command
from training.config import PROJECT
from training.console.keys import keys_in
from training.console.terminal import counted
from training.images.image_data import ImageData


def chatter(self: LiveView, trial: TrialRecord) -> None:
    """All kinds of output."""
    print("chatter printed")
    print("chatter to stderr", file=sys.stderr, flush=True)
    os.write(2, b"chatter past Python\n")
    print("chatter \x1b[2J spelled out", flush=True)


def study(columns: int, folder: Path, *options: str, seconds: float = 0.2, real: bool = False) -> Terminal:
    """A study, by default without Ray, with output at the end of each trial.

    Its epochs take some seconds longer until there is a file `hurry` in the folder.
    """
    words = ["--dataset", "digits", "--no-dashboard", "--results-dir", str(folder), "--name", "live", *options]

    def run() -> None:
        LiveView.show_ended = chatter  # type: ignore[method-assign]
        tuner.__dict__["trainable"] = partial(faulty.slow, seconds=seconds, until=folder / "hurry")
        become_command("search/run.py", *words, real=real)

    return Terminal(columns, run)


def test_view_stands_whatever_is_printed_and_however_wide_the_terminal_is(tmp_path: Path) -> None:
    """Printed from Python and past it, to both outputs, with what would command a terminal."""
    terminal = study(200, tmp_path, "--num-samples", "4", "--epochs", "8", "--scheduler", "none", seconds=5.0)
    terminal.wait_for(lambda: "/8" in terminal.text)
    for columns in (200, 80, 60):  # meanwhile no trial ends, because its output would be cleared
        for other in range(20):  # a resize may come while something is written
            terminal.resize(columns + other)
            time.sleep(0.002)
        terminal.resize(columns)
        terminal.wait_for(lambda: shows_one_view(terminal.lines))
        time.sleep(0.5)  # at least one more picture
        terminal.wait_for(lambda: shows_one_view(terminal.lines))
    (tmp_path / "hurry").touch()
    assert terminal.wait() == 0
    assert "━" not in terminal.text  # the view is gone
    assert re.search("digits: 4 of 4 trials in .*: 4 completed", terminal.text), terminal.text
    for said in ("printed", "to stderr", "past Python", "\\x1b[2J spelled out"):
        assert terminal.text.count(f"chatter {said}") == 4, terminal.text
    assert terminal.text.replace("chatter \\x1b[2J", "").count("\\x1b") == 0  # nothing else was spelled out


def shows_one_view(lines: list[str]) -> bool:
    """Whether each of its parts is there, and once."""
    parts = [" elapsed", "Study live", "━", "best     ", "epochs   ", "epoch +last"]
    return [sum(bool(re.search(part, line)) for line in lines) for part in parts] == [1] * len(parts)


def frame(record: StudyRecord, columns: int, rows: int) -> list[str]:
    """The lines of the view in a terminal of this size."""
    header = [
        "Study fashion-mnist-reference",
        *(header_line(label, f"{label} " * 9) for label in ("data", "search", "results")),
    ]
    view = LiveView(header, record, began=time.monotonic(), rows=2)
    view.show_dashboard("127.0.0.1:8265")
    console = Console(width=columns, height=rows)
    with console.capture() as captured:
        console.print(view)
    lines = captured.get().rstrip("\n").split("\n")
    assert len(lines) < rows
    assert max(map(len, lines)) <= columns
    return lines


@pytest.fixture
def running(tmp_path: Path) -> StudyRecord:
    """The kept study, as if its last two trials still ran."""
    folder = shutil.copytree(PROJECT / "results" / "fashion-mnist-reference", tmp_path / "fashion-mnist-reference")
    record = StudyRecord.open(folder)
    for trial in record.trials[-2:]:
        trial.status = "running"
    return record


@pytest.mark.parametrize(
    ("columns", "rows", "heading", "hidden"),
    [
        (100, 24, " #  learning_rate  batch_size  optimizer  epoch    last    best  curve", ""),
        (80, 24, " #  learning_rate  batch_size  optimizer  epoch    last    best  curve", ""),
        (70, 24, " # learning_rate batch_size optimizer epoch   last   best curve", ""),
        (60, 24, " # learning_rate batch… optimizer epoch   last   best curve", ""),
        (50, 24, " # learning_ra… batc… optimizer epoch   last curve", "best"),
        (40, 24, " # learning… batc… optimiz… epoch   last", "best, curve"),
        (40, 14, " # learning… batc… optimiz… epoch   last", "1 line, best, curve"),
        (30, 15, " # learning_rate epoch   last", "batch_size, optimizer, best, curve"),
        (30, 12, " # learning_rate epoch   last", "3 lines, batch_size, optimizer, best, curve"),
    ],
)
def test_what_a_small_terminal_leaves_out_is_named(
    running: StudyRecord, columns: int, rows: int, heading: str, hidden: str
) -> None:
    lines = frame(running, columns, rows)
    assert [line.rstrip() for line in lines].count(heading) == 1, "\n".join(lines)
    named = [line.removesuffix(" (a larger terminal shows more)") for line in lines if line.startswith("hidden: ")]
    assert len(named) == bool(hidden)
    assert f"hidden: {hidden} ".startswith(f"{''.join(named).rstrip('…')} " if named else "")


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_lines_of_ended_trials_are_aligned_and_as_wide_as_the_terminal(
    running: StudyRecord, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    running.trials[3].status = "failed"
    running.trials[3].failure = Failure("exception", f"ValueError: {'long ' * 30}", "")
    view = PlainView([], running)
    view.begin_trials()
    for trial in running.trials[:-2]:
        view.show_ended(trial)
    lines = capsys.readouterr().out.splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("  #"))
    told = "Ended trials; * marks the best so far"
    too_short = " The lines are too short for batch_size, optimizer; trials.csv has all columns."
    assert " ".join(" ".join(lines[:heading]).split()) == told + (too_short if columns == 60 else "")
    rows = lines[heading + 1 :]
    assert max(map(len, lines)) <= columns
    for title in ("learning_rate", "val_accuracy", "seconds"):
        end = lines[heading].index(title) + len(title)
        cells = [row[:end].rpartition(" ")[2] for row in rows if not row.startswith("     ")]
        assert len(cells) == 18, title
        assert all(re.fullmatch(r"[\d.e+-]+", cell) for cell in cells), (title, cells)
    assert "failed:" in rows[rows.index(next(row for row in rows if row.startswith("     "))) - 1]


def test_ended_trainings_of_a_confirmation_have_no_star(
    running: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines show the best epoch of each training, none of which is chosen; the result is a mean."""
    plan = Plan(study="s", top=1, trials=[7], values=[0.9], seeds=[50, 51], winner_seeds=[52, 53], final_seed=54)
    running.metadata = replace(running.metadata, plan=plan)
    view = PlainView([], running)
    view.begin_trials()
    view.show_ended(running.trials[15])  # the best one
    printed = " ".join(capsys.readouterr().out.split())
    assert "val_accuracy is that of the best epoch of each training" in printed
    assert "*" not in printed


def test_line_for_which_there_is_no_room_ends_after_a_word(running: StudyRecord) -> None:
    """And the room that is left is used: for what is said of the best trial, and then for the header from below."""
    text = "\n".join(frame(running, 40, 24))
    assert "  search     search search search…\n" in text
    assert re.search("dashboard  http://127.0.0.1:8265 .ray +\n +get-auth-token prints its +\n +token", text)
    assert "\nbest     val_accuracy 0.8883, trial 2,…\n" in "\n".join(frame(running, 40, 14))


def test_confirmation_shows_the_numbers_of_the_study_and_the_seeds(
    running: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [*range(50, 71)]
    plan = Plan(
        study="s", top=2, trials=[7, 104], values=[0.9, 0.8], seeds=seeds[:10], winner_seeds=seeds[10:20], final_seed=70
    )
    for trial, seed in zip(running.trials[-2:], (58, 59), strict=True):
        trial.known_seed = seed
    running.metadata = replace(running.metadata, plan=plan)
    view = LiveView([], running, began=0.0, rows=2)
    monkeypatch.setattr(view, "_keys", "are read")
    assert [line.plain for line in view._key_line()] == ["p pause   q end the study"]
    lines = frame(running, 80, 30)
    assert [line.split()[:2] for line in lines[-3:]] == [["#", "seed"], ["7", "58"], ["104", "59"]]
    assert "best     val_accuracy 0.8883, trial 7 from seed 2" in "\n".join(lines)


def test_keys_are_known_however_fast_they_come_and_no_other_key_is_taken_for_a_letter() -> None:
    assert keys_in("\x1b[B\x1b[B\x1bOAs") == ["down", "down", "up", "s"]
    other_keys = ["\x1bOp", "\x1b[15~", "\x1b[1;5q", "\x1bq", "\x1b"]
    assert keys_in("".join(other_keys)) == other_keys


def test_every_word_is_there_where_the_screen_is_high_enough(running: StudyRecord) -> None:
    for columns in (80, 60, 40):
        text = " ".join(" ".join(frame(running, columns, 60)).split())
        assert "(ray get-auth-token prints its token)" in text
        assert "val_accuracy 0.8883, trial 2, +19.2 points compared with the tutorial's settings" in text
        assert "learning_rate 0.001, batch_size 64, optimizer adam" in text


def test_trials_that_run_beyond_the_rows_are_counted(running: StudyRecord) -> None:
    running.trials[0].status = "running"
    assert frame(running, 100, 24)[-1] == "hidden: 1 running trial (a larger terminal shows more)"


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
    assert terminal.echoes


def test_keys_pause_the_study_stop_a_trial_and_end_the_study(tmp_path: Path) -> None:
    terminal = study(100, tmp_path, "--num-samples", "4", "--epochs", "50", "--scheduler", "none")

    def wait_for(text: str) -> None:
        terminal.wait_for(lambda: any(text in line for line in terminal.lines))

    wait_for("s stop trial 0")
    assert not terminal.echoes
    terminal.press("p")
    wait_for("paused, ")
    terminal.press("p")
    wait_for("p pause   q end the study   s stop trial 0")
    terminal.press("s")
    wait_for("s stops trial 0 after its epoch, another key does not")
    terminal.press("x")
    wait_for("p pause")
    terminal.press("\x1b[B")  # an arrow; no other trial runs
    for _ in range(2):
        terminal.press("s")
    wait_for("trial 0 ends after epoch")
    wait_for("s stop trial 1")
    terminal.press("q")
    assert terminal.wait() == 0
    assert "Ended by a request from the live view." in terminal.text
    assert "1 stopped_early" in terminal.text
    assert terminal.echoes


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


@pytest.mark.parametrize(
    ("gpus", "options", "line"),
    [
        (0, {}, "2 cores; 2 trials at a time, 1 core each"),
        (1, {}, "2 cores and 1 GPU; 2 trials at a time, 1 core each; --gpus-per-trial shares out the GPU"),
        (2, {}, "2 cores and 2 GPUs; 2 trials at a time, 1 core each; --gpus-per-trial shares out the GPUs"),
        (1, {"gpus_per_trial": 0.5}, "2 cores and 1 GPU; 2 trials at a time, 1 core and 0.5 GPU each"),
        (
            2,
            {"gpus_per_trial": 2, "memory_per_trial": "1GB"},
            "2 cores and 2 GPUs; 1 trial at a time, 1 core, 2 GPUs and 1GB each",
        ),
    ],
)
def test_header_says_what_each_trial_has_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, options: dict[str, Any], line: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(provenance, "available_cpus", lambda: 2)
    monkeypatch.setattr(header, "available_cpus", lambda: 2)
    settings = StudySettings(dataset="digits", results_dir=tmp_path, **options)
    assert header_line("machine", line) in header_lines(prepare_study(settings))


def test_output_of_twenty_trials_fits_on_one_screen(tmp_path: Path, digits: ImageData) -> None:
    """The study that was kept, as if its model had been too, in 24 lines of 80 columns, the next prompt included."""
    folder = tmp_path / "results" / "fashion-mnist-reference"
    shutil.copytree(PROJECT / "results" / "fashion-mnist-reference", folder)
    best = pd.read_csv(folder / "trials.csv").iloc[0]
    told = model_metadata(digits, trial=int(best["trial_number"]), epoch=int(best["best_epoch"]))
    (folder / "model").mkdir(exist_ok=True)
    training = told.training | {"seed": int(best["seed"])}
    (folder / "model" / "config.json").write_text(json.dumps(asdict(told) | {"training": training}))

    def report() -> None:
        os.environ.pop("TUNESMITH_DATA", None)
        # commands are printed as if this were the checkout
        lookup.__dict__["base_folder"], typed_command.__dict__["PROJECT"] = lambda: tmp_path, tmp_path
        become_command("search/report.py", "results/fashion-mnist-reference", cwd=tmp_path)

    terminal = Terminal(80, report)
    assert terminal.wait() == 0
    assert "Predict: python training/predict.py results/fashion-mnist-reference/model IMAGE" in terminal.text
    assert terminal.text.rstrip().count("\n") + 1 <= 23, terminal.text


def test_summary_names_the_columns_for_which_its_lines_are_too_short(tmp_path: Path) -> None:
    folder = shutil.copytree(PROJECT / "results" / "fashion-mnist-reference", tmp_path / "reference")
    narrow, wide = (run_command("search/report.py", str(folder), COLUMNS=str(columns)) for columns in (60, 80))
    assert "  The lines are too short for batch_size, optimizer;" in narrow.stdout
    assert max(map(len, narrow.stdout.partition("Reproduce:")[0].splitlines())) <= 60
    assert "too short" not in wide.stdout


def test_header_names_the_results_by_the_shorter_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = StudySettings(dataset="digits", results_dir=tmp_path, name="mine")
    assert header_line("results", "mine") in header_lines(prepare_study(settings))


def test_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0.1, 0.5, 0.9]) == "▁▅█"
    assert sparkline([0.5, 0.5]) == "▅▅"
    assert sparkline([]) == ""


def test_clock_shows_hours_only_when_there_are_any() -> None:
    assert [clock(seconds) for seconds in (0, 83.4, 3723)] == ["0:00", "1:23", "1:02:03"]
