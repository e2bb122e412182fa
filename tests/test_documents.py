"""The documents say what is so: the guide is followed to its end, and the reference is what the settings say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from make_commands import FILE, written
from PIL import Image

from training.config import PROJECT
from training.data import ImageData

GUIDE = PROJECT / "docs" / "guide.md"
HAVE_RESULTS = ("search/run.py", "search/confirm.py", "search/reproduce.py")


def test_command_reference_is_what_the_settings_say() -> None:
    assert FILE.read_text() == written(), "run python docs/make_commands.py"


@pytest.mark.timeout(600)
def test_guide_leads_from_the_tutorial_to_a_confirmed_model(tmp_path: Path, digits: ImageData) -> None:
    image = digits.test.images[0, 0]
    Image.fromarray(image.numpy()).save(tmp_path / "digit.png")
    told = ""
    for kind, block in re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        if kind == "sh":
            for command in block.splitlines():
                told = run(command, tmp_path)
                if "predict.py" in command:
                    assert re.search(r"\d", told)
        else:
            (name,) = re.findall(r"^# (\S+)\n", block)
            (tmp_path / name).write_text(block)
    assert "It agrees" in told
    assert (tmp_path / "results" / "mine" / "confirm.csv").is_file()
    assert (tmp_path / "digit.onnx").is_file()


def run(command: str, folder: Path) -> str:
    _, script, *words = shlex.split(command)
    more = [f"--results-dir={folder / 'results'}"] if script in HAVE_RESULTS else []
    started = [sys.executable, str(PROJECT / script), *words, *more]
    finished = subprocess.run(started, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, f"{command}\n{finished.stdout}{finished.stderr}"
    return finished.stdout


@pytest.mark.parametrize("document", sorted((PROJECT / "docs").glob("*.md")), ids=lambda document: document.stem)
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (PROJECT / "README.md").read_text()):
        assert (PROJECT / target).exists(), target


def documented_commands() -> list[str]:
    """Commands of ours that stand in the documents, each once; those of the guide are run."""
    files = [PROJECT / "README.md", PROJECT / "results" / "README.md", PROJECT / "benchmarks" / "README.md"]
    found = []
    for file in [*files, *{*(PROJECT / "docs").glob("*.md")} - {GUIDE}]:
        for line in file.read_text().splitlines():
            command = re.fullmatch(r"\s*(python (?:search|training)/\w+\.py\b[^#]*?)(?:\s+#.*)?", line)
            if command:
                found.append(command[1].replace("...", "").strip())
    return sorted(set(found))


@pytest.mark.parametrize("command", documented_commands())
def test_documented_command_has_options_that_there_are(command: str) -> None:
    _, script, *words = shlex.split(command)
    known = re.findall(r"--[a-z-]+", FILE.read_text().partition(f"## python {script}\n")[2].partition("\n## ")[0])
    assert known, script
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known
