"""Code of the user's own: its imports are what they would be without this project."""

import sys
from pathlib import Path

import pytest

from training.config import PROJECT
from training.user_code import annotated_config, load_function


def write(file: Path, text: str) -> str:
    """Write a file with a function `train`; returns the import path of the function."""
    file.write_text(f"{text}\n\n\ndef train(config):\n    yield {{}}\n")
    return f"{file}:train"


@pytest.mark.parametrize("package", ["search", "training"])
@pytest.mark.parametrize("statement", ["import {0}", "from {0} import part", "import {0}.part as part"])
def test_import_of_a_module_beside_it_under_our_name_is_refused(tmp_path: Path, package: str, statement: str) -> None:
    (tmp_path / f"{package}.py").write_text("part = 1\n")
    path = write(tmp_path / "mine.py", statement.format(package))
    with pytest.raises(ValueError, match=f"it imports {package}, which is a package of Tunesmith and the name"):
        load_function("train_function", path)


def test_module_beside_it_under_our_name_does_no_harm_if_it_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text("raise SystemExit(1)\n")
    assert callable(load_function("train_function", write(tmp_path / "mine.py", "import json")))


def test_ours_can_be_imported_where_nothing_is_in_the_way(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "from training.config import TrialConfig")
    assert callable(load_function("train_function", path))


def test_modules_of_the_commands_are_not_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python search/run.py` puts `search/` first on the path, and Ray does so in every worker."""
    for package in ("search", "training"):
        monkeypatch.syspath_prepend(str(PROJECT / package))
    path = write(tmp_path / "mine.py", "import report")
    with pytest.raises(ValueError, match="No module named 'report'"):
        load_function("train_function", path)
    assert str(PROJECT / "search") not in sys.path


def test_hyperparameter_without_a_default_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n\n\n"
        "@dataclass\nclass Config:\n    depth: int\n\n\n"
        "def train(config: Config):\n    yield {}\n"
    )
    with pytest.raises(ValueError, match="hyperparameter depth needs a default"):
        annotated_config("train_function", f"{file}:train")
