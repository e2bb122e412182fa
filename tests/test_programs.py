"""Programs of the frameworks that people have are searched as their docstrings say, only shorter."""

import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

import pandas as pd
import pytest
from serial_ray import CompletedRun, run_command
from test_examples import command_of

from search.engine.trial_folder import TRIAL_FOLDER
from training.config import PROJECT
from training.images import torchvision_import

PROGRAMS = PROJECT / "examples" / "programs"
INSTALLED = Path(sys.prefix, "programs")
"""Where `.ci/run` puts the packages of `tests/programs.txt`."""
NEEDED = {"hydra": "hydra", "lightning": "pytorch_lightning", "skorch": "skorch", "transformers": "transformers"}
"""The package that a program needs."""
DECLARATION = f"""
import torch

library = torch.library.Library("torchvision", "DEF")
for schema in {torchvision_import._OPERATOR_SCHEMAS!r}:
    library.define(schema)
"""
"""Lets a program import a torchvision that was built for another torch, as an installation for users would be."""


def run(name: str, folder: Path, *options: str) -> CompletedRun:
    """Run the command in the docstring of a program, with one trial."""
    package = NEEDED.get(name)
    if package is not None and PathFinder.find_spec(package, [str(INSTALLED), *sys.path]) is None:
        pytest.skip(f"{package} is not installed; pip install --no-deps -r tests/programs.txt installs it")
    (folder / "sitecustomize.py").write_text(DECLARATION)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")]), str(INSTALLED)]
    _, script, *words = command_of(PROGRAMS / f"with_{name}.py")
    shorter = ["--num-samples", "1", "--no-dashboard", "--results-dir", f"{folder}/out", "--name", "study"]
    return run_command(script, *words, *shorter, *options, cwd=PROJECT, PYTHONPATH=os.pathsep.join(path))


def is_running(study: Path) -> bool:
    """Whether a process of a trial of a study runs."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended
            if f"{TRIAL_FOLDER}={study}".encode() in file.read_bytes():
                return True
    return False


@pytest.mark.parametrize("name", ["argparse", "hydra", "lightning", "skorch", "torchrun", "transformers"])
def test_program_is_searched_as_it_says_and_its_processes_end_at_the_limit(name: str, tmp_path: Path) -> None:
    ended = run(name, tmp_path, "--epochs", "3")
    log = tmp_path / "out" / "study" / "trials" / "0000" / "log.txt"
    assert ended.status == 0, ended.stdout + ended.stderr + log.read_text()
    trial = pd.read_csv(tmp_path / "out" / "study" / "trials.csv").iloc[0]
    assert (trial["status"], trial["epochs"]) == ("completed", 3)
    assert not is_running(tmp_path / "out" / "study")


@pytest.mark.parametrize("file", sorted(PROGRAMS.glob("*.py")), ids=lambda file: file.stem)
def test_program_is_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 40
