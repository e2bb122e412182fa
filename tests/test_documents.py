"""The documents are true: options, rooms, files, search spaces, refusals and links."""

import ast
import re
from pathlib import Path

import pytest
from make_commands import FILE, written

from search.settings import StudySettings
from search.space.toml_file import default_space, fix_values, read_space
from training.config import PROJECT
from training.console.command_line import parse
from training.networks.network_config import config_type

SPACES = PROJECT / "docs" / "spaces.md"
INSIDE = PROJECT / "docs" / "inside.md"
ROOMS = sorted({file.parent for folder in ("search", "training") for file in (PROJECT / folder).rglob("*.py")})
"""Folders with Python files."""
DOCUMENTS = sorted(
    file for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "results/*.md") for file in PROJECT.glob(pattern)
)


def test_command_reference_is_what_the_settings_say() -> None:
    assert FILE.read_text() == written(), "run python docs/make_commands.py"


def test_help_has_each_text_of_the_command_reference_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal alone decides where lines are broken."""
    monkeypatch.setenv("COLUMNS", "2000")
    with pytest.raises(SystemExit):
        parse(StudySettings, "", ["--help"])
    printed = capsys.readouterr().out
    (section,) = re.findall(r"## python search/run.py\n(.*?)\n## ", FILE.read_text(), re.DOTALL)
    texts = re.findall(r"^- `--[^`]+`(?: \(default .*?\))?: (.+)", section, re.MULTILINE)
    assert len(texts) > 30
    for text in texts:
        assert text in printed


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


def test_refusals_of_the_document_are_those_of_the_product(tmp_path: Path) -> None:
    adam = '[optimizer]\nchoices = ["sgd", "adam"]\n'
    wrong = [
        "[learning_rat]\nvalue = 0.1\n",
        "[learning_rate]\nlow = 1.0\nhigh = 0.1\n",
        "[width]\nlow = 8.5\nhigh = 64\n",
        "[epochs]\nlow = 1\nhigh = 9\n",
        '[dropout]\nlow = 0.0\nhigh = 0.5\nwhen = { optimizer = "sgd" }\n',
        adam + "[momentum]\nvalue = 0.3\n",
    ]
    refusals = [refused_space(tmp_path, text) for text in wrong]
    with pytest.raises(ValueError, match="set ") as refusal:
        fix_values(default_space("mlp"), ["learning_rate"], config_type("mlp"))
    assert re.findall(r"^    error: (.+)", SPACES.read_text(), re.MULTILINE) == [*refusals, str(refusal.value)]


def test_document_names_every_room() -> None:
    named = re.findall(r"^\| `((?:search|training)/[a-z_/]*)`", INSIDE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(f"{room.relative_to(PROJECT)}/" for room in ROOMS)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PROJECT)))
def test_room_says_in_one_sentence_what_it_is_for(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text())
    sentence = ast.get_docstring(tree) or ""
    assert len(tree.body) == 1
    assert re.findall(r"[.!?](?=\s|$)", sentence) == ["."]
    assert sentence.endswith(".")


def test_readme_links_every_document() -> None:
    linked = re.findall(r"\]\((docs/[^)#]+\.md)\)", (PROJECT / "README.md").read_text())
    assert {*linked} == {f"docs/{document.name}" for document in (PROJECT / "docs").glob("*.md")}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(PROJECT)))
def test_files_that_documents_name_exist(document: Path) -> None:
    text = "" if document.name == "CHANGELOG.md" else document.read_text()  # which names what was, too
    for name in re.findall(r"\btest_\w+\.py", text):
        assert (PROJECT / "tests" / name).exists(), name
    for name in re.findall(r"\b(?:search|training|benchmarks|examples|docs)/[\w/-]+\.(?:py|toml|md|json)\b", text):
        assert (PROJECT / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(PROJECT)))
def test_links_of_documents_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


PROMISES = (PROJECT / "README.md", PROJECT / "docs" / "reliability.md")
"""Documents that name the test of each promise."""


def named_tests(document: Path) -> set[str]:
    """Tests that a document names, as pytest does."""
    return set(re.findall(r"`(tests/test_\w+\.py::test_\w+)`", document.read_text()))


def functions_that_test() -> dict[str, bool]:
    """Every test function, as pytest names it, and whether all or some of its cases need the real Ray."""
    found = {}
    for file in (PROJECT / "tests").glob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                needs_ray = any("pytest.mark.ray" in ast.unparse(decorator) for decorator in node.decorator_list)
                found[f"tests/{file.name}::{node.name}"] = needs_ray
    return found


@pytest.mark.parametrize("document", PROMISES, ids=lambda document: document.stem)
def test_tests_of_promises_are_there(document: Path) -> None:
    named = named_tests(document)
    assert len(named) >= 10
    assert not named - functions_that_test().keys()


@pytest.mark.parametrize("document", PROMISES, ids=lambda document: document.stem)
def test_every_promise_of_a_table_names_its_test(document: Path) -> None:
    """In the tables whose last column is that of the tests."""
    tables = re.findall(r"^\|.*\| test \|\n\| ---.*\n((?:\|.*\n)+)", document.read_text(), re.MULTILINE)
    assert tables
    for row in "".join(tables).splitlines():
        assert "`tests/test_" in row.rstrip("| ").rpartition(" | ")[2], row


def test_every_test_of_the_real_ray_keeps_a_promise() -> None:
    of_ray = {name for name, needs_ray in functions_that_test().items() if needs_ray}
    assert len(of_ray) >= 15
    assert not of_ray - set().union(*map(named_tests, PROMISES))
