"""Every command in the documents is run, in the order in which it stands there; those that cannot be say why."""

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from serial_ray import CompletedRun, run_command
from studies import few_digits
from test_import import STUDIES, WANDB_SWEEP
from test_report import trained_study
from test_tunesmith import program_file

from search.outputs.model_export import export_model
from search.tunesmith import COMMANDS
from training.config import PROJECT
from training.images.image_data import ImageData
from training.model.model_folder import CARD

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/*.md", "results/*.md")
    for path in PROJECT.glob(pattern)
)
SHORT = {
    "search/run.py": {"dataset": "digits", "epochs": "2", "num-samples": "3"},
    "search/confirm.py": {"top": "2", "seeds": "2"},
    "search/replay.py": {"seeds": "2"},
    "training/run.py": {"dataset": "digits", "epochs": "2"},
}
"""What a command gets that does not say otherwise, so that it takes seconds."""
FEWER = {
    "--num-samples 20": "--num-samples 3",
    "--num-samples +20": "--num-samples +2",
    "--num-samples 6 --epochs 4": "--num-samples 3 --epochs 2",
    "--num-samples 40": "--num-samples 10",
    "--top 3 --seeds 5": "--top 2 --seeds 2",
    "--top 2 --seeds 3": "--top 2 --seeds 2",
    "--confirm 3x5": "--confirm 2x2",
    "--studies 40": "--studies 10",
}
"""Numbers with which documented commands would take long, and those with which they are run."""
HAVE_RESULTS = re.compile(r"search/(run|report|confirm|reproduce|compare|control)\.py")
BEFORE = "python search/run.py --name tonight --num-samples 8"
"""What was run before one reads of `latest` or of a STUDY."""
PLACEHOLDERS = {"STUDY": "tonight", "TRIAL": "0"}
IMPORTED = {"optuna-5-conditional.db": "optuna.db", "wandb.csv": "sweep.csv", "tensorboard-torch": "runs"}
"""Studies of other programs, and what docs/import.md calls them."""
LEAVES = {"guide": ["results/mine/confirm.csv", "results/mine/model/README.md", "digit.onnx"]}
"""What is there when all commands of a document have run."""
RUN_ELSEWHERE = {
    "make test": "this is it",
    "python docs/make_commands.py": "tests/test_documents.py",
    "python docs/make_json_schema.py": "tests/test_json.py",
    r"python search/control\.py (--json )?\S+ \w.*": "tests/test_control.py",
    "tunesmith --.*": "tests/test_tunesmith.py",
    "optuna-dashboard .*": "tests/test_dashboards.py",
    "ray .*|python search/run.py .*--address .*": "tests/test_cluster.py",
    "python benchmarks/(?!confirm_coverage).*": "takes from minutes to hours",
    "pip install .*|wandb sync .*": "needs another machine",
    "mlflow ui .*": "a server of others, which runs on until it is stopped",
}


def commands(document: Path) -> list[str]:
    """Commands in the blocks and in the sentences of a document, without the comments behind them."""
    text = document.read_text().replace("\\\n", " ")
    programs = "python|tunesmith|make|ray|pip|optuna-dashboard|tensorboard|mlflow|wandb"
    found = re.findall(rf"^    ((?:{programs}) .*?)(?:\s+#.*)?$|`(python [^`]+)`", text, re.MULTILINE)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [" ".join(command.split()) for command in [*(indented or quoted for indented, quoted in found), *lines]]


def commands_run_here(document: Path) -> list[str]:
    elsewhere = "|".join(RUN_ELSEWHERE)
    return [command for command in commands(document) if not re.fullmatch(elsewhere, command)]


def blocks(document: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (PROJECT / "docs" / document).read_text(), re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def _few_digits(digits: ImageData) -> Iterator[None]:
    """The commands show that they run, and not what is learned; the fixture `digits` has all of them before."""
    with few_digits():
        yield


@pytest.fixture(scope="module")
def tonight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the study that was run before."""
    folder = tmp_path_factory.mktemp("before")
    run(BEFORE, folder)
    return folder / "results"


@pytest.fixture
def folder(tmp_path: Path, digits: ImageData) -> Path:
    """A folder that has the files of which the documents speak."""
    for name in ("photo.png", "digit.png", "FOLDER/digit.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(digits.test.images[0, 0].numpy()).save(tmp_path / name)
    shutil.copyfile(tmp_path / "photo.png", tmp_path / "IMAGE")
    shutil.copytree(PROJECT / "benchmarks" / "tables", tmp_path / "benchmarks" / "tables")
    with zipfile.ZipFile(STUDIES) as archive:
        archive.extractall(tmp_path)
    for name, new in IMPORTED.items():
        (tmp_path / name).rename(tmp_path / new)
    (tmp_path / "sweep.yaml").write_text(WANDB_SWEEP)
    for kind in ("python", "toml"):
        for block in blocks("guide.md", kind):
            (name,) = re.findall(r"^# (\S+)\n", block)
            (tmp_path / name).write_text(block)
    return tmp_path


@pytest.fixture(scope="module")
def run_before() -> set[str]:
    """Commands that were run for another document."""
    return set()


def run(command: str, folder: Path) -> None:
    """Run a documented command to its end, in the folder; it must succeed."""
    fewer = command
    for many, few in FEWER.items():
        fewer = fewer.replace(many, few)
    program, script, *given = [PLACEHOLDERS.get(word, word) for word in shlex.split(fewer)]
    if program == "make":
        given = shlex.split(given[0].removeprefix("ARGS=")) if given else []
        script, *words = made(script, with_more("search/run.py", given, folder))
    elif program == "tunesmith":
        words = [script, *with_more(COMMANDS[script].script, given, folder)]
        script = str(program_file(folder))
    else:
        words = [*given] if program == "tensorboard" else with_more(script, given, folder)
    done = inspected([script, *words], folder) if program == "tensorboard" else run_command(script, *words, cwd=folder)
    assert done.status == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr


def made(target: str, arguments: list[str]) -> list[str]:
    """The script that `make` starts, and its words."""
    ready = [f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.ready"]  # this environment is as it should be
    words = ["make", "--dry-run", "-C", str(PROJECT), target, *ready, f"ARGS={shlex.join(arguments)}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if not line.startswith("make"))
    python, *words = shlex.split(line)
    assert python == f"{sys.prefix}/bin/python"
    return words


def inspected(words: list[str], folder: Path) -> CompletedRun:
    """What TensorBoard finds in a folder: its command, which would start a server."""
    command = [sys.executable, "-m", "tensorboard.main", *words, "--inspect"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return CompletedRun(done.returncode, done.stdout, done.stderr)


def with_more(script: str, given: list[str], folder: Path) -> list[str]:
    """Options, and those that have the results in the folder and the command end soon."""
    more = {"results-dir": str(folder / "results")} if HAVE_RESULTS.fullmatch(script) else {}
    if "--resume" not in given or "--fork" in given:
        more |= SHORT.get(script, {})
    return [*given, *(f"--{name}={value}" for name, value in more.items() if f"--{name}" not in given)]


def can_run(command: str) -> bool:
    """Whether the packages that a command needs are there, and the environment that `make` would make."""
    if command.startswith("make"):
        return Path(sys.prefix, ".ready").exists()
    logger = re.search(r"--log (\S+)", command)
    packages = ["onnxruntime"] if "--onnx" in command else []
    packages += [{"tensorboard": "tensorboardX"}.get(logger[1], logger[1])] if logger else []
    return all(map(find_spec, packages))


def test_every_command_is_run_here_or_known_not_to_be() -> None:
    found = [command for document in DOCUMENTS for command in commands(document)]
    ours = [command for document in DOCUMENTS for command in commands_run_here(document)]
    assert len(found) > 60
    for command in ours:
        assert re.match(r"make search|tunesmith |python (search|training|benchmarks)/|tensorboard ", command), command
    for many in FEWER:
        assert any(many in command for command in ours), many
    for pattern in RUN_ELSEWHERE:
        assert any(re.fullmatch(pattern, command) for command in found), pattern


WAYS = ("make search", "--train-function", "--command", "run_search(")
"""How a search is started: of our network, of a function, of a program, and in Python."""


def test_readme_shows_every_way_in_its_first_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (PROJECT / "README.md").read_text().splitlines()[:20]
    for way in WAYS:
        assert any(way in line for line in lines), way
    (line,) = (line for line in lines if "run_search(" in line)
    call, _, imports = line.strip().partition("# in Python, after: ")
    shutil.copyfile(folder / "my_training.py", folder / "training_of_readme.py")  # no other test imports this name
    script = folder / "first_lines.py"
    shorter = f"num_samples=2, epochs=2, results_dir={str(folder / 'results')!r})"
    script.write_text(
        f"{imports}\nfrom training_of_readme import train\nspace = 'my_training.toml'\n"
        f"{call.strip().removesuffix(')')}, {shorter}\nprint(study)\n"
    )
    monkeypatch.syspath_prepend(folder)  # as Python does for a script
    done = run_command(str(script), cwd=folder)
    assert done.status == 0, done.stdout + done.stderr
    assert re.search(r"Study training_of_readme-\S+: 2 trials \(.*\); best val_loss", done.stdout)


KINDS = (
    *("argparse", "training loop", "calls after each epoch", "Ray Tune", "Optuna objective", "Hydra", "Lightning"),
    *("Hugging Face", "skorch", "torchrun", "notebook"),
)
"""What people have; `test_changed_lines.py` and `test_programs.py` search each of them."""


def test_table_of_what_people_have_comes_first() -> None:
    guide = (PROJECT / "docs" / "guide.md").read_text()
    (table,) = re.findall(r"^## Your own training\n\n((?:\|.*\n)+)", guide, re.MULTILINE)
    for kind in KINDS:
        assert kind in table, kind
    for row in table.splitlines()[2:]:
        assert re.search(r'`(--train-function \S+:\S+|--command ".*{lr}"|run_search\(.*\))`', row), row


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if commands_run_here(path)], ids=lambda path: path.parent.name + path.stem
)
def test_commands_of_the_document_work(document: Path, folder: Path, tonight: Path, run_before: set[str]) -> None:
    if document.stem == "spaces":  # its own, of the tutorial's network
        (folder / "my_space.toml").write_text(blocks("spaces.md", "toml")[0])
    ours = dict.fromkeys(commands_run_here(document))
    results = folder / "results"
    if re.search("latest|STUDY", " ".join(ours)):
        shutil.copytree(tonight, results, symlinks=True)
    for command in ours:
        if "latest" in command:
            (results / "latest").unlink()
            (results / "latest").symlink_to("tonight")
        if "compare.py" in command:
            for name in shlex.split(command)[2:]:
                if not (results / name).exists():
                    shutil.copytree(results / "tonight", results / name)
        if can_run(command) and (command not in run_before or "--name" in command):  # a later one may need that study
            run(command, folder)
            run_before.add(command)
    for file in LEAVES.get(document.stem, []):
        assert (folder / file).is_file()


def test_commands_of_the_card_of_a_model_work(folder: Path, digits: ImageData) -> None:
    model = export_model(trained_study(folder / "study", digits))
    assert model is not None
    found = commands(model / CARD)
    assert [command.split()[1] for command in found] == [
        "training/predict.py",
        "training/predict.py",
        "training/export.py",
        "training/run.py",
    ]
    for command in filter(can_run, found):
        run(command.replace("THIS-FOLDER", str(model)), folder)
