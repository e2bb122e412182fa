"""The command `tunesmith`: the same as the scripts, fast to start, and complete when it comes from a wheel."""

import importlib
import json
import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from serial_ray import CompletedRun, run_command

from search.engine.local_ray import StudyJobConfig
from search.record import provenance
from search.record.lookup import confirm_line, project_path, resume_command
from search.settings import StudySettings
from search.tunesmith import COMMANDS, COMPLETION, SHELLS
from training import typed_command
from training.config import PROJECT, DataConfig
from training.console.command_line import PROGRAM
from training.typed_command import command_line, command_name, portable_line, program_command

SOURCES = ("search", "training", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is built from."""


def program_file(folder: Path) -> Path:
    """The file that pip would write as the program."""
    file = folder / "bin" / PROGRAM
    if not file.exists():
        file.parent.mkdir()
        file.write_text("import sys\nfrom search.tunesmith import main\nsys.exit(main())\n")
    return file


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(program_file(tmp_path_factory.mktemp("program")))


def test_every_script_is_a_command(program: str) -> None:
    guarded = re.compile(r'if __name__ == "__main__":\n    run_command\(main, outlive_reader=(True|False)\)\n')
    scripts = {
        f"{folder}/{file.name}": match[1] == "True"
        for folder in ("search", "training")
        for file in (PROJECT / folder).glob("*.py")
        if (match := guarded.search(file.read_text()))
    }
    assert {command.script: command.outlive_reader for command in COMMANDS.values()} == scripts
    for name, command in COMMANDS.items():
        assert program_command(command.script) == name
        assert hasattr(importlib.import_module(command.module), command.settings)


def test_program_that_pip_installs_is_the_one_tested_here() -> None:
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {PROGRAM: "search.tunesmith:main"}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_the_help_of_its_script(program: str, name: str) -> None:
    ours, script = run_command(program, name, "--help"), run_command(COMMANDS[name].script, "--help")
    assert (ours.status, script.status) == (0, 0)
    assert ours.stdout.startswith(f"usage: tunesmith {name} [-h]")
    expected = without_usage(script).replace(f"python {COMMANDS[name].script} ", f"tunesmith {name} ")  # of examples
    assert without_usage(ours) == expected


def without_usage(run: CompletedRun) -> str:
    return run.stdout.partition("\n\n")[2]


def test_help_names_every_command(program: str) -> None:
    run = run_command(program, "--help", COLUMNS="200")
    assert run.status == 0
    assert re.findall(r"• (\w+) ", run.stdout) == [*COMMANDS]
    assert "--version" in run.stdout


@pytest.mark.parametrize(("words", "others"), [("--help", True), ("run --help", False), ("predict --help", False)])
def test_start_imports_nothing_heavy_and_no_other_command(program: str, words: str, others: bool) -> None:
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    code += f"sys.argv = {[program, *words.split()]}; from search.tunesmith import main; main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    loaded = {*run.stderr.split()}
    heavy = {"torch", "torchvision", "ray", "optuna", "pandas", "numpy", "sklearn"}
    assert not {name.partition(".")[0] for name in loaded} & heavy
    imported = {name for name, command in COMMANDS.items() if command.module in loaded}
    assert imported == ({*COMMANDS} if others else {words.split(maxsplit=1)[0]})


def test_version_is_that_of_the_distribution(program: str) -> None:
    run = run_command(program, "--version")
    assert (run.status, run.stdout) == (0, f"tunesmith {version(PROGRAM)}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "name a command: run, report, "),
        ("rnu --epochs 3", "there is no command rnu; did you mean run?"),
        ("--epochs 3", "there is no command --epochs; the commands are run, report, "),
        ("run --epochs 0", "epochs must be >= 1, got 0"),
        ("run --no-such-option", "unknown option --no-such-option; --help lists the known ones"),
        ("--tyro-print-completion", "--tyro-print-completion needs a shell: bash, zsh or fish"),
        ("--tyro-print-completion tcsh", "--tyro-print-completion needs a shell: bash, zsh or fish"),
        ("--tyro-write-completion bash", "--tyro-write-completion bash needs a file"),
        ("--tyro-write-completion bash no-such-folder/file", "no-such-folder/file cannot be written: No such file"),
    ],
)
def test_mistake_is_refused_in_a_sentence(program: str, words: str, sentence: str) -> None:
    run = run_command(program, *words.split())
    assert run.status == 2
    assert run.stdout == ""
    assert run.stderr.startswith(f"error: {sentence}")
    assert run.stderr.count("\n") == 1


def test_mistake_is_an_object_with_json(program: str) -> None:
    run = run_command(program, "rnu", "--json")
    assert run.status == 2
    assert run.stdout == '{"type": "error", "message": "there is no command rnu; did you mean run?"}\n'


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_are_written_for_each_shell(program: str, shell: str, tmp_path: Path) -> None:
    printed = run_command(program, COMPLETION[0], shell)
    written = run_command(program, COMPLETION[1], shell, str(tmp_path / "file"))
    assert (printed.status, written.status) == (0, 0)
    assert (tmp_path / "file").read_text() == printed.stdout.removesuffix("\n")
    assert "tunesmith" in printed.stdout


def test_bash_completes_commands_options_and_values(program: str, tmp_path: Path) -> None:
    run_command(program, COMPLETION[1], "bash", str(tmp_path / "completions"))
    script = (
        "source completions\n"
        "function=$(complete -p tunesmith | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        'complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $function; echo "${COMPREPLY[*]}"; }\n'
        "complete_words tunesmith re\n"
        "complete_words tunesmith run --sched\n"
        "complete_words tunesmith replay --sampler ''\n"
    )
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    commands, options, values = (line.split() for line in run.stdout.splitlines())
    assert sorted(commands) == ["replay", "report", "reproduce"]
    assert options == ["--scheduler"]
    assert {*values} >= {"tpe", "gp", "qmc", "random"}


# The command lines that go on from here


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of the checkout."""
    monkeypatch.chdir(PROJECT)


def test_script_names_scripts(checkout: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["search/run.py", "--epochs", "3"])
    assert command_line("search/run.py", "--resume", "latest") == "python search/run.py --resume latest"
    assert command_name("search/report.py") == "search/report.py"
    assert portable_line("training/run.py") == "python training/run.py"
    assert provenance.command() == "python search/run.py --epochs 3"


def test_program_names_itself(checkout: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = program_file(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{file} run", "--epochs", "3"])
    monkeypatch.setenv("PATH", str(file.parent))
    file.chmod(0o755)
    folder = PROJECT / "results" / "study"
    assert resume_command(folder, None, StudySettings()) == "tunesmith run --resume study"
    assert confirm_line(folder, None, StudySettings(), top=3, seeds=5) == "tunesmith confirm study --top 3 --seeds 5"
    assert command_line("training/run.py") == "tunesmith train"
    assert command_name("search/report.py") == "tunesmith report"
    assert portable_line("training/predict.py", "model") == "tunesmith predict model"
    assert provenance.command() == "tunesmith run --epochs 3"


def test_program_that_the_shell_does_not_find_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = program_file(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{file} run"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    assert command_line("search/report.py", "latest") == "bin/tunesmith report latest"
    assert portable_line("search/report.py", "latest") == "tunesmith report latest"


def test_without_a_checkout_the_program_is_named_by_any_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("training.config", "training.typed_command", "search.record.lookup", "search.record.provenance"):
        monkeypatch.setattr(f"{module}.IS_INSTALLED", True)
    monkeypatch.setattr(sys, "argv", ["my_program.py"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("TUNESMITH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    settings = StudySettings()
    assert (settings.results_dir, settings.data_dir) == (tmp_path / "results", tmp_path / "data")
    assert DataConfig().data_dir == tmp_path / "data"
    assert resume_command(tmp_path / "results" / "study", None, settings) == "tunesmith run --resume study"
    assert project_path(PROJECT / "training") == str(PROJECT / "training")
    assert typed_command.portable_line("search/run.py") == "tunesmith run"
    assert provenance.git_commit.__wrapped__() is None  # type: ignore[attr-defined]


def test_workers_of_an_installed_study_find_it_where_python_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before all others, the folder of all packages would hide modules of Python."""
    monkeypatch.setattr(sys, "argv", ["bin/tunesmith run"])
    for installed, folders in (([str(PROJECT)], []), ([], [str(PROJECT)])):
        monkeypatch.setattr(site, "getsitepackages", lambda installed=installed: installed)
        config = StudyJobConfig()
        config._serialize()
        assert config._py_driver_sys_path == folders


# A wheel

STUDY = "--dataset digits --num-samples 2 --epochs 1 --name installed --quiet"
WITHOUT_RAY = """
import sys
from serial_ray import serial_ray
from search.tunesmith import main
with serial_ray():
    main()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and the packages of this one, but not this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in SOURCES:
        path = PROJECT / name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, source / name, ignore=ignored) if path.is_dir() else shutil.copy(path, source / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    shutil.rmtree(source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    of_this_environment = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    (packages / "shared.pth").write_text("\n".join(map(str, of_this_environment)))  # without its editable finder
    program = folder / "env" / "bin" / PROGRAM
    program.write_text(WITHOUT_RAY)
    program.chmod(0o755)
    return folder / "env" / "bin" / "python"


def run_installed(python: Path, folder: Path, *words: str) -> str:
    """Run the program in a folder to its end; returns what it printed."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "tests"), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    environment.pop("TUNESMITH_DATA", None)
    command = [str(python), str(python.with_name(PROGRAM)), *words]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_wheel_runs_a_study_in_any_folder(installed: Path, tmp_path: Path) -> None:
    """Beside files whose names are those of our packages, and inside a git checkout that is not ours."""
    for name in ("search.py", "training.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the user was imported')\n")
    for words in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    run = run_installed(installed, tmp_path, "run", *STUDY.split())
    assert "\nReproduce: tunesmith reproduce installed " in run
    assert "\nPredict: tunesmith predict results/installed/model IMAGE\n" in run
    folder = tmp_path / "results" / "installed"
    record = json.loads((folder / "study.json").read_text())
    (session,) = record["sessions"]
    assert session["git_commit"] is None
    assert session["command"] == f"tunesmith run {STUDY}"
    assert {*record["code"]} >= {"loop", "image_data", "optimizers"}
    assert "tunesmith predict THIS-FOLDER IMAGE" in (folder / "model" / "README.md").read_text()
    assert "<h1" in (folder / "report.html").read_text()
