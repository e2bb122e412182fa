"""The Dockerfile fits the project; what its lines do outside of Docker is done here."""

import fnmatch
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from serial_ray import run_command
from test_tunesmith import SOURCES, program_file

from training.config import PROJECT

TEXT = re.sub(r"^#.*\n", "", (PROJECT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
INSTRUCTIONS = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in TEXT.splitlines() if line.strip()]
"""The instructions in their order, each with its words."""
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def words_of(instruction: str) -> list[str]:
    return [words for name, words in INSTRUCTIONS if name == instruction]


def copied() -> list[str]:
    """Files and folders that are copied from the checkout."""
    return [source for words in words_of("COPY") for source in words.split()[:-1]]


def test_python_is_one_that_the_project_takes() -> None:
    (image,) = words_of("FROM")
    (version,) = re.findall(r"^python:(\d+)\.(\d+)-slim$", image)
    (least,) = re.findall(r"^>=(\d+)\.(\d+)$", METADATA["requires-python"])
    assert [*map(int, version)] >= [*map(int, least)]


def test_everything_copied_exists_and_is_all_that_a_wheel_is_built_from() -> None:
    assert {*copied()} == {*SOURCES, "constraints.txt"}
    for source in copied():
        assert (PROJECT / source).exists(), source


def test_nothing_but_that_is_sent_to_the_builder() -> None:
    lines = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert kept == {*copied()}
    assert any(fnmatch.fnmatch("search/space/__pycache__", line) for line in lines[len(kept) + 1 :])


def test_versions_are_those_of_the_constraints_alone() -> None:
    """Each `pip install` takes them, torch first, without a version of its own."""
    calls = [shlex.split(call) for run in words_of("RUN") for call in re.findall(r"pip install ([^&]+)", run)]
    assert calls[0] == ["--constraint", "constraints.txt", "torch", "torchvision"]
    for call in calls:
        assert call[:2] == ["--constraint", "constraints.txt"] or "--no-deps" in call, call
    assert "==" not in TEXT
    pins = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines() if "==" in line)
    for package in ("torch", "torchvision", "setuptools"):  # the last one builds without isolation
        assert package in pins


def test_requirements_are_those_of_the_project(tmp_path: Path) -> None:
    (line,) = (run.partition(" >")[0] for run in words_of("RUN") if "tomllib" in run)
    program, *words = shlex.split(line)
    assert program == "python"
    done = subprocess.run([sys.executable, *words], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == METADATA["dependencies"]


def test_container_runs_the_program_without_the_rights_of_root(tmp_path: Path) -> None:
    (entry,), (default,) = words_of("ENTRYPOINT"), words_of("CMD")
    (program,) = json.loads(entry)
    assert program in METADATA["scripts"]
    run = run_command(str(program_file(tmp_path)), *json.loads(default))
    assert run.status == 0
    assert run.stdout.startswith("usage: tunesmith ")
    (user,) = words_of("USER")
    assert user != "root"
    after = [name for name, _ in INSTRUCTIONS[INSTRUCTIONS.index(("USER", user)) :]]
    assert "RUN" not in after
    folder = words_of("WORKDIR")[-1]
    assert any(user in run and folder in run for run in words_of("RUN"))  # it owns the folder


def test_documented_commands_fit_the_image() -> None:
    """The image has the argument, the programs and the folder that the document says."""
    text = (PROJECT / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    build, *runs = re.findall(r"^    docker (.*)", text, re.MULTILINE)
    assert words_of("ARG") == ["PIP_EXTRA_INDEX_URL"]
    assert "--build-arg PIP_EXTRA_INDEX_URL=" in build
    assert len(runs) >= 3
    for command in runs:
        assert re.search(r" tunesmith (run|start) ", command), command
        if command.startswith("run") and "--entrypoint ray" not in command:
            assert f":{words_of('WORKDIR')[-1]}" in command
        for folder in re.findall(r":(/home/\w+)/", command):
            assert folder == f"/home/{words_of('USER')[0]}"
