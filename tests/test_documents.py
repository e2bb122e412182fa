"""The documents say what is so: options, files, search spaces, mistakes and links."""

import re
from pathlib import Path

import pytest
from make_commands import FILE, written

from search.space.toml_file import default_space, fix_values, read_space
from training.config import PROJECT
from training.networks.network_config import config_type

SPACES = PROJECT / "docs" / "spaces.md"
INSIDE = PROJECT / "docs" / "inside.md"


def test_command_reference_is_what_the_settings_say() -> None:
    assert FILE.read_text() == written(), "run python docs/make_commands.py"


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
