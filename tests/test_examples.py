"""Each example runs as its docstring says, only shorter."""

import ast
import shlex
from pathlib import Path

import pandas as pd
import pytest
from serial_ray import run_command

from training.config import PROJECT

EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))


def command_of(example: Path) -> list[str]:
    """The command in the docstring, which may go over several lines."""
    told = ast.get_docstring(ast.parse(example.read_text())) or ""
    (command,) = (line for line in told.splitlines() if line.strip().startswith("python "))
    return shlex.split(command)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_runs_as_it_says(example: Path, tmp_path: Path) -> None:
    _, script, *options = command_of(example)
    shorter = ["--num-samples=3", "--epochs=2", "--no-dashboard", f"--results-dir={tmp_path}"]
    words = [str(tmp_path)] if script.startswith("examples/") else [*options, *shorter]
    run = run_command(script, *words, cwd=PROJECT)
    assert run.status == 0, run.stdout + run.stderr
    (study,) = (folder for folder in tmp_path.iterdir() if folder.is_dir() and not folder.is_symlink())
    trials = pd.read_csv(study / "trials.csv")
    assert len(trials) == (4 if script.startswith("examples/") else 3)
    assert set(trials["status"]) <= {"completed", "stopped_early"}


def test_study_from_python_takes_less_than_ten_lines() -> None:
    lines = (PROJECT / "examples" / "from_python.py").read_text().rpartition('"""')[2].splitlines()
    assert sum(bool(line.strip()) for line in lines) < 10
