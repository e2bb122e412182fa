"""Code of the user's own: its imports are what they would be without this project."""

import pickle
import sys
from pathlib import Path

import pytest

import training
from search.task.checksums import custom_code
from training.config import PROJECT
from training.console.terminal import type_and_text
from training.user_code import _as_script, annotated_config, describe_error, load_code, load_function, running


def write(file: Path, text: str) -> str:
    """Write a file with a function `train`; returns the import path of the function."""
    file.write_text(f"{text}\n\n\ndef train(config):\n    yield {{}}\n")
    return f"{file}:train"


@pytest.mark.parametrize("package", ["search", "training"])
@pytest.mark.parametrize("statement", ["import {0}", "from {0} import part", "import {0}.part as part"])
def test_import_of_a_module_beside_it_under_our_name_is_refused(tmp_path: Path, package: str, statement: str) -> None:
    (tmp_path / f"{package}.py").write_text("part = 1\n")
    path = write(tmp_path / "mine.py", statement.format(package))
    with pytest.raises(ValueError, match=f"it imports {package}, which is the name of a package of Tunesmith"):
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


@pytest.mark.parametrize(
    "form",
    [
        "class train:\n    def __init__(self, config: Config, shape): ...\n",
        "class Train:\n    def __call__(self, config: Config): ...\n\n\ntrain = Train()\n",
        "def run(config: Config, extra: int): ...\n\n\ntrain = functools.partial(run, extra=3)\n",
        "def train(config: 'Config') -> Other: ...\n",
    ],
)
def test_annotation_of_whatever_can_be_called_is_read(form: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import functools\nfrom dataclasses import dataclass\n\n\n"
        "@dataclass\nclass Config:\n    depth: int = 3\n\n\n@dataclass\nclass Other:\n    size: int = 1\n\n\n" + form
    )
    config_class = annotated_config("train_function", f"{file}:train")
    assert config_class is not None
    assert config_class.__name__ == "Config"


def test_annotation_of_what_is_returned_is_no_configuration(tmp_path: Path) -> None:
    text = "from dataclasses import dataclass\n\n\n@dataclass\nclass Result:\n    size: int = 1\n\n\n"
    file = tmp_path / "mine.py"
    file.write_text(f"{text}def train(config) -> Result: ...\n")
    assert annotated_config("train_function", f"{file}:train") is None


def program(folder: Path, **files: str) -> Path:
    """Write the files of a program into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


LAYERS = "def width():\n    return {0}\n"
NET = "from layers import width\n\ndef build():\n    import late\n    return width(), late.__name__\n"


def test_modules_beside_a_file_are_found_also_when_a_function_imports_them(tmp_path: Path) -> None:
    folder = program(tmp_path / "mine", net=NET, layers=LAYERS.format(3), late="")
    with running("network", f"{folder}/net.py:build") as build:
        assert build() == (3, "late")


def test_two_files_each_see_the_modules_beside_them(tmp_path: Path) -> None:
    names = [f"{program(tmp_path / f'p{n}', net=NET, layers=LAYERS.format(n), late='')}/net.py:build" for n in (1, 2)]
    for n, name in [*enumerate(names, start=1), (1, names[0])]:
        with running("network", name) as build:
            assert build() == (n, "late")
            assert pickle.loads(pickle.dumps(build)) is build


@pytest.mark.parametrize("stem", ["training", "search", "random", "my-net", "net.v2", "__main__"])
def test_file_may_have_any_name(tmp_path: Path, stem: str) -> None:
    folder = program(tmp_path, layers=LAYERS.format(1), **{stem: "from layers import width"})
    assert load_function("network", f"{folder}/{stem}.py:width")() == 1
    assert sys.modules["training"] is training


def test_file_of_another_folder_under_our_name_leaves_ours_alone_after_a_file_in_the_checkout(tmp_path: Path) -> None:
    with _as_script("", PROJECT, None):
        pass
    folder = program(tmp_path, training="def width():\n    return 1\n")
    assert load_function("network", f"{folder}/training.py:width")() == 1
    assert sys.modules["training"] is training


def test_module_in_the_folder_of_the_command_is_imported_as_by_python_m(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(
        tmp_path / "pack",
        __init__="",
        net="from .layers import width\nfrom pack import layers",
        layers=LAYERS.format(1),
    )
    monkeypatch.chdir(tmp_path)
    code = load_code("network", "pack.net:width")
    assert code.function() == 1
    assert sorted(code.files) == ["pack/__init__.py", "pack/layers.py", "pack/net.py"]


ARGUMENTS = """
import argparse, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int, default=7)
depth = parser.parse_args().depth

def build():
    return depth, parser.parse_args().depth, sys.argv
"""


def test_argparse_sees_no_options_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["search/run.py", "--dataset", "digits"])
    path = f"{program(tmp_path, args=ARGUMENTS)}/args.py"
    with running("network", f"{path}:build") as build:
        assert build() == (7, 7, [path])
    assert sys.argv == ["search/run.py", "--dataset", "digits"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import sys\nsys.exit('needs a GPU')", r"SystemExit: needs a GPU \(mine.py, line 2\)"),
        ("exit(0)", "SystemExit: 0"),
        ("import asyncio\nraise asyncio.CancelledError", "CancelledError"),
        ("import nowhere", r"No module named 'nowhere' \(mine.py, line 1\)"),
        ("def build(:", "SyntaxError"),
        ("import argparse\np = argparse.ArgumentParser()\np.add_argument('x')\np.parse_args()", "SystemExit: 2"),
    ],
)
def test_file_that_fails_while_it_is_imported_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = f"{program(tmp_path, mine=text)}/mine.py:build"
    with pytest.raises(ValueError, match=f"network {path} cannot be imported: .*{sentence}"):
        load_function("network", path)


def test_error_without_a_text_is_its_type_alone() -> None:
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert type_and_text(ValueError("two\n lines")) == "ValueError: two lines"


def test_file_that_fails_is_run_once(tmp_path: Path) -> None:
    text = "with open(__file__ + '.runs', 'a') as runs:\n    runs.write('.')\nimport nowhere"
    with pytest.raises(ValueError, match="No module named 'nowhere'"):
        load_function("network", f"{program(tmp_path, mine=text)}/mine.py:build")
    assert (tmp_path / "mine.py.runs").read_text() == "."


def test_folder_that_the_import_changes_is_that_of_its_functions_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import os\nos.chdir('data')\n\ndef where():\n    here = os.getcwd()\n    os.chdir('/')\n    return here\n"
    (program(tmp_path, mine=text) / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with running("network", f"{tmp_path}/mine.py:where") as where:
            assert where() == f"{tmp_path}/data"
        assert Path.cwd() == tmp_path


SPAWN = """
import multiprocessing, sys
from layers import width

def seen(number):
    return number + width(), sys.argv, hasattr(sys.modules["__main__"], "__file__")

def load(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.map(seen, [1])
"""


def test_started_processes_find_the_users_modules_and_run_nothing_of_ours(tmp_path: Path) -> None:
    path = f"{program(tmp_path, mine=SPAWN, layers=LAYERS.format(2), training='raise SystemExit')}/mine.py"
    with running("dataset", f"{path}:load") as load:
        assert load("spawn") == [(3, [path], False)]


def test_checksum_covers_what_a_file_imports(tmp_path: Path) -> None:
    folder = program(tmp_path, train="def train(config):\n    from utils.deep import f", unused="", layers="")
    program(tmp_path / "utils", deep="import layers")
    name = f"{folder}/train.py:train"
    before = custom_code(name)
    assert sorted(load_code("train_function", name).files) == ["layers.py", "train.py", "utils/deep.py"]
    (folder / "unused.py").write_text("changed = 1")
    assert custom_code(name) == before
    (folder / "layers.py").write_text("changed = 1")
    assert custom_code(name) != before
