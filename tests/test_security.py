"""What a study that somebody sent cannot do, and what a running one does not show to others."""

import ast
import csv
import gzip
import os
import pickle
import re
import shutil
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
from contextlib import closing, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from PIL import Image
from serial_ray import CompletedRun, StartedRun, run_command
from studies import HandDrivenStudy, metadata, metrics
from test_report import trained_study

from search.analysis.findings import analyse
from search.engine import local_ray
from search.engine.running_studies import RunningStudy, announce, find_running_studies
from search.monitoring.terminal import PlainView
from search.outputs import report_page
from search.outputs.files import StudyFiles
from search.outputs.model_export import export_model
from search.record.folder import StudyFolder
from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from search.record.trial import Failure
from search.simulation.learning_curves import read_csv
from search.space.search_space import SearchSpace
from training.checkpoint import Checkpoint, read_weights
from training.config import PROJECT, TrialConfig
from training.images.image_data import ImageData
from training.images.image_file import read_image
from training.loop import train

PRODUCT = sorted(file for folder in ("search", "training") for file in (PROJECT / folder).rglob("*.py"))
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202e\u2066<img src=x onerror=alert(1)>\x9b31m\x7f"
FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-1", "-2+3", "@SUM(A1:A9)", "\t=1+1", "\r=1+1", "\uff1d1+1")


class RunsCode:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


# Nothing in a results folder runs


def test_checkpoint_that_would_run_code_does_not_and_the_trial_starts_again(
    tmp_path: Path, few_images: ImageData
) -> None:
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "trial-0000-last-0003.pt"
    file.write_bytes(pickle.dumps(RunsCode(tmp_path / "marker")))
    checkpoint = Checkpoint(file.with_name("trial-0000.pt"), epochs_reported=3)
    first = next(train(TrialConfig(epochs=2), few_images, checkpoint))
    assert first.epoch == 1
    assert not (tmp_path / "marker").exists()


def test_damaged_checkpoint_is_told_in_one_sentence(tmp_path: Path, few_images: ImageData) -> None:
    (tmp_path / "trial-0000-last-0001.pt").write_bytes(pickle.dumps(RunsCode(tmp_path / "marker")))
    checkpoint = Checkpoint(tmp_path / "trial-0000.pt", epochs_reported=1)
    next(train(TrialConfig(epochs=1), few_images, checkpoint))
    trouble = checkpoint.take_warning()
    assert trouble
    assert re.fullmatch(r"checkpoint trial-0000-last-0001.pt is damaged \(\w+\); the trial starts again", trouble)
    assert not (tmp_path / "marker").exists()


def test_report_runs_nothing_of_a_folder_full_of_pickles(tmp_path: Path) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    HandDrivenStudy(folder).run_one_of_each()
    (folder / "checkpoints").mkdir(exist_ok=True)
    names = (
        "checkpoints/trial-0006-last-0001.pt",
        "checkpoints/trial-0001-epoch-0002.pt",
        "study.pkl",
        "trials.csv",
        "study.json",
    )
    for name in names:
        (folder / name).write_bytes(pickle.dumps(RunsCode(tmp_path / "marker")))
    run = report(folder)
    assert run.status == 0, run.stderr
    assert not (tmp_path / "marker").exists()
    assert pd.read_csv(folder / "trials.csv").shape[0] == 7


def test_report_runs_no_network_that_a_record_names(tmp_path: Path) -> None:
    folder, network = tmp_path / "sent", tmp_path / "network.py"
    folder.mkdir()
    network.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).mkdir()\ndef build(*_): pass\n")
    study = HandDrivenStudy(folder)
    study.run_one_of_each()
    study.record.update(settings=replace(study.record.metadata.settings, network=f"{network}:build"))
    best = best_trial(study.record.trials)
    assert best is not None
    file = study.record.checkpoints.file(best.number).with_name(f"trial-{best.number:04}-epoch-0002.pt")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    run = report(folder)
    assert run.status == 0, run.stderr
    assert "not shown, and the model is not exported: study sent needs the code of" in run.stdout
    assert not (tmp_path / "marker").exists()


FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads"),
    *(
        "cloudpickle.load",
        "cloudpickle.loads",
        "joblib.load",
        "dill.load",
        "shelve.open",
        "yaml.unsafe_load",
    ),
    *("pd.read_pickle", "pandas.read_pickle", "os.system", "subprocess.getoutput"),
}


@pytest.mark.parametrize("file", PRODUCT, ids=lambda file: str(file.relative_to(PROJECT)))
def test_no_module_unpickles_or_evaluates(file: Path) -> None:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    safe = {one.name for one in classes if [ast.unparse(base) for base in one.bases] == ["yaml.SafeLoader"]}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            imported = {alias.name for alias in node.names} if module is None else {module}
            assert not imported & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            assert name not in FORBIDDEN_CALLS
            assert name != "torch.load" or options.get("weights_only") == "True"
            assert name != "yaml.load" or options.get("Loader") in safe
            assert options.get("allow_pickle", "False") == "False"
            assert options.get("shell", "False") == "False"


def test_links_in_a_sent_folder_lead_nowhere(tmp_path: Path) -> None:
    """A folder from an archive may hold links; what is written into it must not land where they point."""
    precious, folder = tmp_path / "precious", tmp_path / "sent"
    precious.write_text("precious")
    folder.mkdir()
    record = HandDrivenStudy(folder).record
    for name in (".trials.csv.draft", ".epochs.csv.draft", ".study.json.draft", ".owner", "trials.csv"):
        (folder / name).symlink_to(precious)
    StudyFolder(folder)
    StudyFiles(record).write()
    assert precious.read_text() == "precious"
    assert not (folder / "trials.csv").is_symlink()


# Names and error texts do no harm


def report(folder: Path) -> CompletedRun:
    return run_command("search/report.py", str(folder))


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A study whose every text is meant to do harm."""
    folder = tmp_path / f"sent{HOSTILE.replace('/', '')}"
    folder.mkdir()
    study = HandDrivenStudy(folder)
    study.run_trial(0.5, 0.6, 0.6)
    for text in (HOSTILE, *FORMULAS):
        failure = Failure("exception", "", f"Traceback ...\n{text}\n  {HOSTILE}")
        object.__setattr__(failure, "error", text)  # as a sender would have stored it
        study.run_trial(0.4, failure=failure)
    trial_id = FORMULAS[0] + HOSTILE
    study.suggest(trial_id)
    study.record.add_epoch(trial_id, metrics(1, 0.55))
    study.record.interrupt_running()
    (folder / ".owner").write_text(HOSTILE)
    return folder


@pytest.mark.usefixtures("drawn_charts")
def test_report_of_hostile_texts_commands_no_terminal(hostile: Path) -> None:
    run = report(hostile)
    assert run.status == 0, run.stderr
    assert "digits: 10 of 20 trials" in run.stdout
    assert is_harmless(run.stdout + run.stderr)
    refused = run_command("search/run.py", "--resume", str(hostile), "--epochs", HOSTILE)
    assert refused.status == 2
    assert is_harmless(refused.stdout + refused.stderr)


def test_files_of_hostile_texts_are_safe_to_show_and_to_open(hostile: Path) -> None:
    record = StudyRecord.open(hostile)
    StudyFiles(record).write()
    files = [*hostile.glob("*.csv"), hostile / "study.json", *(hostile / "errors").iterdir()]
    assert len(files) == 3 + 1 + len(FORMULAS)
    assert all(is_harmless(file.read_text()) for file in files)
    with (hostile / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 + len(FORMULAS)
    for row in rows:
        for column in ("trial_id", "status", "optimizer", "error"):
            assert not row[column].startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))
    assert {"'-1", "'+1+1"} <= {row["error"] for row in rows}


def test_numbers_of_hostile_studies_stay_numbers(hostile: Path) -> None:
    record = StudyRecord.open(hostile)
    record.trials[0].epochs[0] = metrics(1, 0.99)
    object.__setattr__(record.trials[0].epochs[0], "train_loss", -1e-05)
    StudyFiles(record).write()
    epochs = pd.read_csv(hostile / "epochs.csv")
    assert epochs.loc[0, "train_loss"] == -1e-05
    assert epochs.select_dtypes("number").shape == epochs.shape
    trials = pd.read_csv(hostile / "trials.csv").set_index("trial_number")
    for trial in record.trials:
        assert trials.loc[trial.number, "learning_rate"] == trial.hyperparameters["learning_rate"]


@pytest.mark.parametrize(
    ("script", "words"),
    [("search/report.py", ["{folder}"]), ("training/run.py", ["--dataset=digits", "--epochs=2"])],
)
def test_closed_pipe_leaves_no_traceback(script: str, words: list[str], tmp_path: Path) -> None:
    HandDrivenStudy(tmp_path).run_one_of_each()
    reader, writer = os.pipe()
    os.close(reader)
    run = StartedRun(script, *(word.format(folder=tmp_path) for word in words), stdout=writer)
    os.close(writer)
    status, output = run.end()
    assert output == ""
    assert status in (0, 128 + signal.SIGPIPE)


def test_closed_pipe_leaves_no_traceback_at_the_exit_of_python(tmp_path: Path, digits: ImageData) -> None:
    model = export_model(trained_study(tmp_path / "trained", digits))
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    command = [sys.executable, str(PROJECT / "training" / "predict.py"), str(model), str(tmp_path / "image.png")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == ""
    assert run.wait() in (0, 128 + signal.SIGPIPE)


# What others on the machine and in the network see of a running study


def test_nothing_switches_token_authentication_off() -> None:
    assert not any("disabled" in file.read_text() for file in PRODUCT)


def test_closed_pipe_does_not_end_a_study(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = ["--dataset=digits", "--num-samples=1", "--epochs=1", "--no-dashboard", "--name=study"]
    run = StartedRun("search/run.py", *words, f"--results-dir={tmp_path}", stdout=writer)
    os.close(writer)
    assert run.end() == (0, "")
    assert pd.read_csv(tmp_path / "study" / "trials.csv")["status"].tolist() == ["completed"]


# What a sent folder makes sqlite do


def name_super_journal(database: Path, victim: Path) -> None:
    """Put a journal without pages beside a database, which names a file as its super-journal.

    sqlite ends such a journal by deleting that file (https://sqlite.org/fileformat.html, section 3).
    """
    magic, name, page, sector = bytes.fromhex("d9d505f920a163d7"), str(victim).encode(), 4096, 512
    header = magic + struct.pack(">IIIII", 0, 0, database.stat().st_size // page, sector, page)
    lock_page = (1 << 30) // page + 1
    end = struct.pack(">I", lock_page) + name + struct.pack(">II", len(name), sum(name)) + magic
    Path(f"{database}-journal").write_bytes(header.ljust(sector, b"\0") + end)


@pytest.fixture(scope="module")
def sent_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "sent"
    folder.mkdir()
    study = HandDrivenStudy(folder)
    study.run_one_of_each()
    study.record.close()
    return folder


@pytest.fixture
def sent(sent_study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sent_study, tmp_path / "sent"))


def test_crafted_journal_deletes_a_file_where_nothing_refuses_it(sent: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    name_super_journal(sent / "study.db", precious)
    with closing(sqlite3.connect(sent / "study.db")) as database:
        database.execute("SELECT count(*) FROM studies")
    assert not precious.exists()


COMMANDS = (
    ("search/run.py", "--resume=sent"),
    ("search/run.py", "--resume=sent", "--fork"),
    ("search/run.py", "--resume=sent", "--show-space"),
    ("search/run.py", "--dataset=digits", "--warm-start=sent"),
    ("search/report.py", "sent"),
    ("search/confirm.py", "sent"),
    ("search/compare.py", "sent", "sent"),
    ("search/reproduce.py", "sent", "1"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_lets_a_sent_study_delete_files(command: tuple[str, ...], sent: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    name_super_journal(sent / "study.db", precious)
    script, *words = command
    run = run_command(script, *words, f"--results-dir={tmp_path}")
    assert (run.status, run.stdout) == (2, "")
    assert "study.db-journal names a file that sqlite would delete" in run.stderr
    assert precious.read_text() == "precious"


def test_journal_beside_the_target_of_a_link_is_refused(sent: Path, tmp_path: Path) -> None:
    precious, target = tmp_path / "precious", sent / "other.db"
    precious.write_text("precious")
    (sent / "study.db").rename(target)
    (sent / "study.db").symlink_to(target.name)
    name_super_journal(target, precious)
    assert "other.db-journal names a file" in report(sent).stderr
    assert precious.read_text() == "precious"


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
FOREIGN = {
    "view": f"ALTER TABLE version_info RENAME TO old; CREATE VIEW version_info AS {ENDLESS}",
    "trigger": f"CREATE TRIGGER now BEFORE INSERT ON studies BEGIN SELECT count(*) FROM ({ENDLESS} LIMIT 1e15); END",
    "computed column": "ALTER TABLE studies ADD COLUMN long AS (hex(zeroblob(400000000)))",
    "virtual table": "CREATE VIRTUAL TABLE words USING fts5(text)",
}


@pytest.mark.parametrize("sql", FOREIGN.values(), ids=FOREIGN)
def test_sql_of_the_sender_is_not_run(sql: str, sent: Path) -> None:
    with closing(sqlite3.connect(sent / "study.db")) as database:
        database.executescript(sql)
    run = report(sent)
    assert (run.status, run.stdout) == (2, "")
    assert "is a view, a trigger or a computed table, which a record does not have" in run.stderr


@pytest.mark.parametrize("name", ["study.db-journal", "study.db-wal", "study.db-shm"])
def test_pipe_beside_a_record_is_refused(name: str, sent: Path) -> None:
    os.mkfifo(sent / name)
    run = report(sent)
    assert run.status == 2
    assert f"{name} is not a file" in run.stderr


def test_pipes_in_place_of_files_are_not_waited_for(sent: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trial-0001-last-0002.pt")
    assert Checkpoint(tmp_path / "trial-0001.pt", epochs_reported=2).load() == 0
    pipe = tmp_path / "trial-0001-epoch-0002.pt"
    os.mkfifo(pipe)
    for read in (read_weights, read_csv, lambda file: read_image(file, (1, 8, 8))):
        with pytest.raises(ValueError, match=pipe.name):
            read(pipe)
    (sent / "study.db").unlink()
    os.mkfifo(sent / "study.db")
    assert "there is no study" in report(sent).stderr


def test_table_that_grows_when_it_is_unpacked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.simulation.learning_curves.LARGEST_TABLE", 1 << 20)
    with gzip.open(tmp_path / "curves.csv.gz", "wb") as stream:
        stream.write(b"0\n" * (1 << 20))
    run = run_command("search/replay.py", str(tmp_path / "curves.csv.gz"))
    assert run.status == 2
    assert "cannot be read as a table: it has more than 1 MiB" in run.stderr


def test_long_error_is_cut(tmp_path: Path) -> None:
    failure = Failure("exception", "x" * 50_000_000, "first\n" + "y" * 50_000_000 + "\nlast")
    assert len(failure.error) <= 1000
    assert len(failure.traceback) <= 100_000
    assert failure.traceback.startswith("first\n")
    assert failure.traceback.endswith("\nlast")
    assert Failure(**asdict(failure)) == failure


HEADS = ("=cmd|' /C calc'!A0", "a\nb", "\x1b[2Jc", "<b>", "[red]d")


@pytest.mark.parametrize("name", HEADS)
def test_hostile_name_of_a_hyperparameter_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a hyperparameter's name must be"):
        SearchSpace({name: FloatDistribution(0.0, 1.0)})


def test_names_in_table_heads_are_escaped_as_values_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.space.search_space._check_name", lambda _: None)  # the heads do not rely on it
    space = SearchSpace({name: FloatDistribution(0.0, 1.0) for name in HEADS})
    record = StudyRecord.create(tmp_path, metadata(space=space))
    with (tmp_path / "terminal").open("w") as terminal, redirect_stdout(terminal):
        PlainView([], record).begin_trials()
    StudyFiles(record).write()
    page = report_page.render(record, analyse(record), "no images")
    heads = "".join(re.findall("<th[ >].*?</th>", page, flags=re.DOTALL))
    assert "<b>" not in heads
    assert "a\\nb" in heads
    for text in (heads, (tmp_path / "terminal").read_text(), (tmp_path / "trials.csv").read_text()):
        assert is_harmless(text)
    with (tmp_path / "trials.csv").open(newline="") as stream:
        assert f"'{HEADS[0]}" in next(csv.reader(stream))


# Folders and files that other users could reach


def test_link_in_the_temporary_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    precious, folder = tmp_path / "precious", tmp_path / f"tunesmith-{os.getuid()}"
    precious.mkdir(mode=0o700)
    (precious / "notes.json").write_text("precious")
    folder.symlink_to(precious)
    with announce(RunningStudy("first", 1)):
        assert find_running_studies() == []
    folder.unlink()
    precious.rename(folder)
    folder.chmod(0o770)  # others can write into it
    with announce(RunningStudy("first", 1)):
        assert find_running_studies() == []
    assert [file.name for file in folder.iterdir()] == ["notes.json"]


def test_token_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    local_ray._protect_token()
    token = file.read_text()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)  # as an earlier version of Ray left it
    local_ray._protect_token()
    assert (stat.S_IMODE(file.stat().st_mode), file.read_text()) == (0o600, token)
    assert list(file.parent.iterdir()) == [file]
