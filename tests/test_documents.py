"""The documents say what is so: the guide is followed to its end, and the reference is what the settings say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from make_commands import FILE, written
from PIL import Image

from search.space_file import default_space, fix_values, read_space
from training.config import PROJECT
from training.data import ImageData
from training.network_config import config_type

GUIDE = PROJECT / "docs" / "guide.md"
SPACES = PROJECT / "docs" / "spaces.md"
INSIDE = PROJECT / "docs" / "inside.md"
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


def refused_space(folder: Path, text: str) -> str:
    file = folder / "my_space.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match="search space") as refusal:
        read_space(file, config_type("mlp"))
    return str(refusal.value).replace(str(file), file.name)


def test_search_spaces_of_the_document_can_be_read(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", SPACES.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        file = tmp_path / "space.toml"
        file.write_text(block)
        assert "optimizer" in read_space(file, config_type("mlp"))


def test_mistakes_of_the_document_are_told_so(tmp_path: Path) -> None:
    adam = '[optimizer]\nchoices = ["sgd", "adam"]\n'
    mistakes = [
        "[learning_rat]\nvalue = 0.1\n",
        "[learning_rate]\nlow = 1.0\nhigh = 0.1\n",
        "[width]\nlow = 8.5\nhigh = 64\n",
        "[epochs]\nlow = 1\nhigh = 9\n",
        '[dropout]\nlow = 0.0\nhigh = 0.5\nwhen = { optimizer = "sgd" }\n',
        adam + "[momentum]\nvalue = 0.3\n",
    ]
    told = [refused_space(tmp_path, text) for text in mistakes]
    with pytest.raises(ValueError, match="set ") as refusal:
        fix_values(default_space("mlp"), ["learning_rate"], config_type("mlp"))
    assert re.findall(r"^    error: (.+)", SPACES.read_text(), re.MULTILINE) == [*told, str(refusal.value)]


@pytest.mark.parametrize("folder", ["training", "search", "docs"])
def test_every_file_stands_in_the_tree(folder: str) -> None:
    tree = INSIDE.read_text()
    if folder == "docs":
        named = re.findall(r"^    docs/(\S+\.md)", tree, re.MULTILINE)
    else:
        (block,) = re.findall(rf"^    {folder}/.*\n((?:      .*\n)+)", tree, re.MULTILINE)
        named = [line.split()[0].rstrip("/") for line in block.splitlines()]
    there = [file.name for file in (PROJECT / folder).glob("*.md" if folder == "docs" else "[!_]*")]
    assert sorted(named) == sorted(there)


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
