import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from training.config import PROJECT


@pytest.mark.parametrize("folder", ["search", "training"])
def test_module_names_shadow_nothing(folder: str) -> None:
    """`python search/run.py` puts `search/` first on the path, and Ray does so in every worker."""
    first_level = [*(PROJECT / folder).glob("*.py"), *(PROJECT / folder).glob("*/__init__.py")]
    ours = {file.parent.name if file.parent.parent.name == folder else file.stem for file in first_level} - {"__init__"}
    taken = set(sys.stdlib_module_names) | set(packages_distributions()) - {"search", "training"}
    assert not ours & taken


def test_layers_are_kept_and_a_breach_is_named(tmp_path: Path) -> None:
    """The contracts are in pyproject.toml; a copy in which the record imports the engine breaks one."""
    copy = tmp_path / "copy"
    for package in ("search", "training"):
        shutil.copytree(PROJECT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", copy)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    with (copy / "search" / "record" / "trial.py").open("a") as stream:
        stream.write("import search.engine.tuner\n")
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "search.record.trial -> search.engine.tuner" in run.stdout


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("search/run.py", ["--dataset", "--epochs", "--seed", "--sampler", "--scheduler"]),
        ("search/compare.py", ["STUDY", "--results-dir", "--output"]),
        ("search/replay.py", ["TABLE", "--sampler", "--scheduler", "--workers"]),
        ("search/reproduce.py", ["STUDY", "TRIAL", "--data-dir", "--network"]),
        ("training/run.py", ["--dataset", "--epochs", "--seed"]),
        ("training/predict.py", ["MODEL", "IMAGE", "--top", "--invert", "--output", "--trust-network"]),
        ("training/export.py", ["MODEL", "--onnx", "--trust-network"]),
    ],
)
def test_help_imports_nothing_heavy(script: str, options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(PROJECT / script), "--help"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in run.stderr.splitlines()}
    assert "tyro" in loaded
    assert not loaded & {"torch", "torchvision", "ray", "optuna", "pandas", "numpy", "sklearn"}
    for option in options:
        assert option in run.stdout
