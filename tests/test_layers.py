import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from training.config import PROJECT


@pytest.mark.parametrize("folder", ["search", "training"])
def test_module_names_shadow_nothing(folder: str) -> None:
    """`python search/run.py` puts `search/` first on the path, and Ray does so in every worker."""
    ours = {file.stem for file in (PROJECT / folder).glob("*.py")} - {"__init__"}
    taken = set(sys.stdlib_module_names) | set(packages_distributions()) - {"search", "training"}
    assert not ours & taken


def imported_modules(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", sorted((PROJECT / "training").glob("*.py")), ids=lambda file: file.name)
def test_training_knows_nothing_of_the_search(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(file)}
    assert not roots & {"ray", "optuna", "pandas", "search"}


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
