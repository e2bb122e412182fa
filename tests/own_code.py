"""Studies of code that a test module has written: a program, or training functions; they are run without Ray."""

from pathlib import Path

import pytest
from serial_ray import CompletedRun, run_command

from search.engine import program


def write_program(folder: Path, source: str, *, low: float, high: float, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write `train.py` and a space for its `lr`, and make their folder the current one.

    A program that is ended has one second for it.
    """
    (folder / "train.py").write_text(source)
    (folder / "space.toml").write_text(f"[lr]\nlow = {low}\nhigh = {high}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(program, "GRACE_SECONDS", 1.0)
    return folder


def search_program(command: str, *options: str, scheduler: str | None = None) -> CompletedRun:
    """Search the program of the current folder, in the study `out/study`."""
    words = ["--command", command, "--space", "space.toml", "--metric", "loss", "--num-samples", "3"]
    words += [] if scheduler is None else ["--scheduler", scheduler]
    return run_command("search/run.py", *words, "--results-dir", "out", "--name", "study", *options)


def write_functions(folder: Path, source: str) -> Path:
    """Write training functions into `own.py`, and a space for their `lr`."""
    (folder / "own.py").write_text(source)
    (folder / "space.toml").write_text("[lr]\nlow = 0.01\nhigh = 0.5\nlog = true\n")
    return folder


def search_function(folder: Path, function: str, *options: str) -> CompletedRun:
    """Search one of the functions, in a study of its name in `out`."""
    code = ["--train-function", f"{folder}/own.py:{function}", "--space", f"{folder}/space.toml"]
    searched = ["--metric", "val_loss", "--num-samples", "3", "--name", function]
    return run_command("search/run.py", *code, *searched, "--results-dir", f"{folder}/out", *options)
