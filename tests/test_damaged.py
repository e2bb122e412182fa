"""Damaged records and bad command lines by the hundred: one sentence or the same result, no traceback, no change."""

import json
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from serial_ray import run_command
from studies import DEFAULT_SPACE, FULL_EPOCHS, HandDrivenStudy

from search import report, run
from search.engine.local_ray import LocalRay
from search.outputs.files import StudyFiles
from search.record import provenance
from search.record.lookup import stored_settings
from search.record.metadata import collect_metadata
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings
from training import run as training_run
from training.images.image_data import ImageData

Damage = Callable[[Path, random.Random], object]


class StartedError(Exception):
    """A study or a training would have begun."""


def snapshot(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but what sqlite needs to undo a half-written transaction."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder or a link"
        for path in folder.rglob("*")
        if not path.name.endswith("-journal")
    }


class Commands:
    """Runs command lines in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, main: Callable[[], int], *words: str) -> tuple[int, str, str]:
        """Run a command; returns its exit status, stdout and stderr."""
        self._monkeypatch.setattr(sys, "argv", ["search/run.py", *words])
        self._capsys.readouterr()
        try:
            status = main()
        except SystemExit as exit_:
            status = int(str(exit_.code))
        return status, *self._capsys.readouterr()

    def refused(self, main: Callable[[], int], *words: str) -> str:
        """Run a command that must fail in one sentence; returns it."""
        status, output, error = self.run(main, *words)
        assert (status, output) == (2, ""), f"{words}: {output}{error}"
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error
        assert error[:-1].isprintable(), error
        return error


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    def begin(*_: object) -> int:
        raise StartedError

    for method in ("begin", "wait"):  # Ray would be there for nothing, up to the end of all tests
        monkeypatch.setattr(LocalRay, method, lambda *_: None)
    monkeypatch.setattr(run, "run_study", begin)
    monkeypatch.setattr("training.loop.Training.__init__", begin)
    return Commands(monkeypatch, capsys)


# Bad command lines

WORDS = ("--epochs 2", "--num-samples 3", "--scheduler none", "--seed 7", "--val-fraction 0.2", "--metric val_loss")
NO_NUMBERS = (
    "",
    " ",
    "three",
    "1e",
    "0x10",
    "1,5",
    "½",
    "\u0663\u066b\u0665",
    "--",
    "1e5 ",
    "\x1b[2J",
    "\udcff\udcfe",
    "9" * 5000,
    "'; --",
)
NO_COUNTS = (*NO_NUMBERS, "0", "-1", "1.5", "nan", "inf", "1e3")
NO_TIMES = (*NO_NUMBERS, "10", "-5m", "1e9h", "0s", "0.0001s", "5 m", "nanh", "infd", "9" * 40 + "d", "1m30s", "10M")
NO_SIZES = (*NO_NUMBERS, "4", "-4GB", "0GB", "4gb", "4 GB", "nanGB", "1e3GB", "9" * 40 + "GB", "4PB")
NO_CHOICES = ("", "Digits", "digit", "digits ", "ashaa", "NONE", "\u202edigits", "x" * 9000, "0", "val-loss", "None,")
SEARCH_MISTAKES = {
    "--num-samples": (*NO_COUNTS, "+x", "+-1", "+", "++1"),
    "--epochs": NO_COUNTS,
    "--cpus-per-trial": (*NO_COUNTS, "100000", "9" * 30),
    "--max-concurrent": NO_COUNTS,
    "--max-failures": (*NO_NUMBERS, "-1", "0.5", "nan"),
    "--seed": (*NO_NUMBERS, "-1", "4294967295", "4294967296", "1.0", "9" * 30),
    "--gpus-per-trial": (*NO_NUMBERS, "-0.5", "nan", "inf", "-inf", "1.5", "1000", "1e400"),
    "--memory-per-trial": NO_SIZES,
    "--val-fraction": (*NO_NUMBERS, "nan", "1", "-0.1", "inf", "1e-9", "0.999999"),
    "--trial-timeout": NO_TIMES,
    "--time-budget": NO_TIMES,
    "--dataset": NO_CHOICES,
    "--sampler": NO_CHOICES,
    "--scheduler": NO_CHOICES,
    "--grace-period": (*NO_COUNTS, "99"),
    "--reduction-factor": (*NO_COUNTS, "1"),
    "--metric": (*NO_CHOICES, "test_accuracy", "accuracy"),
    "--name": ("", ".", "..", "a/b", "/tmp", "-", "a b", "a\nb", "\x1b[31m", "ä", "x" * 101, "latest", "sent", "=1+1"),
    "--data-dir": ("{file}", "x" * 300, "\udcff" * 300),
    "--results-dir": ("{file}", "{file}/below", "y" * 5000),
    "--resume": ("", "missing", "../..", "{file}", "latest", "x" * 5000, "\udcff", "\x1b]0;title\x07", "sent/study.db"),
    "--warm-start": ("missing", "{file}", "latest", "x" * 5000, "\u202e"),
    "--storage": ("nonsense", "http://localhost", "sqlite", "://", "foo://bar"),
}
SEARCH_MISTAKES_ALONE = (
    *(
        "--num-sample 3",
        "--epoch 3",
        "--no-such",
        "-x",
        "stray",
        "stray words",
        "--dashboards",
        "--Epochs 3",
        "---epochs 3",
    ),
    *("--epochs", "--resume", "--warm-start", "--name", "--no-baseline maybe", "--dashboard=perhaps"),
    *("--fork", "--resume missing --fork", "--resume latest --warm-start missing", "--fork --warm-start missing"),
    *("--metric test_loss --val-fraction 0.5", "--metric val_loss --val-fraction 0", "--epochs 3 --epochs 0"),
    *(
        "--resume sent --epochs 9",
        "--resume sent --seed 1",
        "--resume sent --scheduler none",
        "--resume sent --sampler random",
        "--resume sent --grace-period 2",
        "--resume sent --reduction-factor 2",
        "--resume=sent --no-baseline",
    ),
    *("--resume sent --num-samples +x", "--resume sent --name other", "--resume sent --resume missing"),
    *("--resume sent --num_samples +y", "--resume sent --val_fraction nan", "--results_dir {file} --resume sent"),
    *("--resume sent --fork --name sent", "--resume sent --fork --metric val_loss", "--resume sent --dataset mnist"),
)
TRAINING_MISTAKES = {
    "--learning-rate": (*NO_NUMBERS, "0", "-1", "nan", "inf", "1e-400", "1e400"),
    "--batch-size": NO_COUNTS,
    "--epochs": NO_COUNTS,
    "--momentum": (*NO_NUMBERS, "1", "-0.1", "nan", "inf"),
    "--weight-decay": (*NO_NUMBERS, "-1e-9", "nan", "inf"),
    "--optimizer": NO_CHOICES,
    "--network": NO_CHOICES,
    "--threads": NO_COUNTS,
    "--split-seed": (*NO_NUMBERS, "-1", "4294967296"),
}
REPORT_MISTAKES = (
    *(
        "",
        " ",
        ".",
        "..",
        "/",
        "missing",
        "latest",
        "{file}",
        "sent/study.db",
        "sent sent",
        "--study sent",
        "-h=1",
        "x" * 5000,
    ),
    *(
        "\udcff",
        "\x1b[2J",
        "--results-dir",
        "sent --results-dir {file}",
        "sent --epochs 3",
        "sent --results-dir",
        "\u202e",
    ),
)


def bad_search_lines(number: int) -> Iterator[list[str]]:
    """Command lines with one mistake each, among options that are right."""
    for seed in range(number):
        draw = random.Random(seed)
        if seed % 4 == 0:
            mistake = SEARCH_MISTAKES_ALONE[seed // 4 % len(SEARCH_MISTAKES_ALONE)].split(" ")
        else:
            option = list(SEARCH_MISTAKES)[seed % len(SEARCH_MISTAKES)]
            value = draw.choice(SEARCH_MISTAKES[option])
            mistake = [f"{option}={value}"] if draw.random() < 0.5 else [option, value]
        named = {word.partition("=")[0].replace("_", "-") for word in mistake}
        others = [line for line in draw.sample(WORDS, draw.randrange(3)) if line.split()[0] not in named]
        yield [*" ".join(others).split(), *mistake]


def shortened(words: object) -> str:
    return ascii(words)[:60]


def bad_training_lines(number: int) -> Iterator[list[str]]:
    for seed in range(number):
        draw = random.Random(seed)
        option = list(TRAINING_MISTAKES)[seed % len(TRAINING_MISTAKES)]
        yield [f"{option}={draw.choice(TRAINING_MISTAKES[option])}"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, digits: ImageData) -> Path:
    """A results folder with one study, `sent`, that has all that a study has which was run."""
    folder = tmp_path_factory.mktemp("damaged") / "results"
    (folder / "sent").mkdir(parents=True)
    (folder / "file").write_text("text")
    sent = HandDrivenStudy(folder / "sent")
    settings = StudySettings(dataset="digits", epochs=FULL_EPOCHS, num_samples=7, results_dir=folder)
    metadata = collect_metadata(settings, DEFAULT_SPACE, digits)
    session = provenance.new_session(None, max_concurrent_trials=1, cpus_per_trial=1)
    sent.record.update(
        settings=metadata.settings,
        dataset=metadata.dataset,
        code=metadata.code,
        sessions=[replace(session, seconds=30.0)],
    )
    sent.run_one_of_each()
    StudyFiles(sent.record).write()
    return folder


def filled(words: list[str], results: Path) -> list[str]:
    return [word.replace("{file}", str(results / "file")) for word in words]


@pytest.mark.parametrize("words", list(bad_search_lines(100)), ids=shortened)
def test_bad_search_line_is_refused(words: list[str], results: Path, commands: Commands) -> None:
    before = snapshot(results)
    usual = [] if "--results_dir" in words else ["--results-dir", str(results)]
    commands.refused(run.main, "--dataset=digits", "--no-dashboard", *usual, *filled(words, results))
    assert snapshot(results) == before


@pytest.mark.parametrize("words", list(bad_training_lines(30)), ids=shortened)
def test_bad_training_line_is_refused(words: list[str], commands: Commands) -> None:
    commands.refused(training_run.main, "--dataset=digits", *words)


@pytest.mark.parametrize("line", REPORT_MISTAKES, ids=shortened)
def test_bad_report_line_is_refused(line: str, results: Path, commands: Commands) -> None:
    before = snapshot(results)
    commands.refused(report.main, f"--results-dir={results}", *filled(line.split(" "), results))
    assert snapshot(results) == before


# Damaged records

TABLES = (
    *("studies", "study_directions", "study_user_attributes", "trials", "trial_params", "trial_user_attributes"),
    *("trial_values", "trial_intermediate_values", "version_info", "alembic_version"),
)
COLUMNS = {
    "studies": "study_name",
    "study_user_attributes": "value_json",
    "trials": "state",
    "trial_params": "distribution_json",
    "trial_user_attributes": "value_json",
    "trial_intermediate_values": "intermediate_value",
    "study_directions": "direction",
}
NO_JSON = ("", "{", "nonsense", "\x00\x01", "[" * 100_000, '{"a": 1', "<html>", "NULL")
WRONG_JSON = ("null", "[]", "{}", "0", '"text"', "true", '[{"a": 1}]', '{"=cmd": "\\u001b[2J"}', "1e999", "-1")
TIMING = '{"session": %s, "node": 0, "pid": 1, "waiting_seconds": %s, "reported": 1.0}'
WRONG_NUMBERS = ("NaN", "-1", "1e400", '"0.5"', "null", "true", "1" * 400, "[1]")


def sql(statement: str, *values: object) -> Damage:
    def damage(file: Path, draw: random.Random) -> None:
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA foreign_keys = OFF")
            assert database.execute(statement, values).rowcount != 0
            database.commit()

    return damage


def attribute(owner: str, key: str, change: Callable[[str, random.Random], str]) -> Damage:
    """Change the text of an attribute of the study or of its second trial, which has completed."""

    def damage(file: Path, draw: random.Random) -> None:
        owned_by = "" if owner == "study" else " AND trial_id = 2"
        with closing(sqlite3.connect(file)) as database:
            where = f"FROM {owner}_user_attributes WHERE key = ?{owned_by}"
            ((row, text),) = database.execute(f"SELECT {owner}_user_attribute_id, value_json {where}", [key]).fetchall()
            update = f"UPDATE {owner}_user_attributes SET value_json = ? WHERE {owner}_user_attribute_id = ?"
            database.execute(update, [change(text, draw), row])
            database.commit()

    return damage


def replaced(texts: tuple[str, ...]) -> Callable[[str, random.Random], str]:
    return lambda _, draw: draw.choice(texts)


def member(name: str, *texts: str) -> Callable[[str, random.Random], str]:
    """Give a member of an object another value; without one, leave it out."""

    def change(text: str, draw: random.Random) -> str:
        members = json.loads(text)
        assert name in members
        if not texts:
            del members[name]
            return json.dumps(members)
        members[name] = "HERE"
        return json.dumps(members).replace('"HERE"', draw.choice(texts))

    return change


def in_only(change: Callable[[str, random.Random], str]) -> Callable[[str, random.Random], str]:
    """Change the only element of a list."""
    return lambda text, draw: f"[{change(text[1:-1], draw)}]"


def truncated(file: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(1, len(content))])


def flipped(first: int, last: int, number: int) -> Damage:
    """Change bytes between two places of a page that is drawn; the first page begins with the header."""

    def damage(file: Path, draw: random.Random) -> None:
        content = bytearray(file.read_bytes())
        page = 0 if last == 100 else draw.randrange(len(content) // PAGE) * PAGE
        for _ in range(number):
            content[page + draw.randrange(first, last)] ^= draw.randrange(1, 256)
        file.write_bytes(content)

    return damage


def emptied_page(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    page = draw.randrange(len(content) // PAGE) * PAGE
    content[page : page + PAGE] = bytes(PAGE)
    file.write_bytes(content)


def other_application(file: Path, draw: random.Random) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE bookmarks (id INTEGER PRIMARY KEY, address TEXT)")
        database.execute("INSERT INTO bookmarks (address) VALUES ('https://example.org')")
        database.commit()


def folder_instead(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.mkdir()


def second_study(file: Path, draw: random.Random) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("INSERT INTO studies (study_name) VALUES ('other')")
        database.commit()


PAGE = 4096
FILE_DAMAGE: dict[str, tuple[int, Damage]] = {
    "truncated": (12, truncated),
    "header": (8, flipped(0, 100, 3)),
    "page heads": (16, flipped(0, 12, 4)),
    "cell pointers": (8, flipped(8, 60, 12)),
    "anywhere": (12, flipped(0, PAGE, 40)),
    "empty page": (8, emptied_page),
    "random": (2, lambda file, draw: file.write_bytes(draw.randbytes(5000))),
    "random after the header": (
        2,
        lambda file, draw: file.write_bytes(file.read_bytes()[:100] + draw.randbytes(9000)),
    ),
    "nothing": (1, lambda file, _: file.write_bytes(b"")),
    "text": (1, lambda file, _: file.write_text("trial_number,status\n0,completed\n")),
    "folder": (1, folder_instead),
    "other application": (1, other_application),
    "two studies": (1, second_study),
}
"""How the file may be damaged, and how often each."""

RECORD_DAMAGE: dict[str, Damage] = {
    **{f"no {table}": sql(f"DROP TABLE {table}") for table in TABLES},
    **{f"empty {table}": sql(f"DELETE FROM {table}") for table in TABLES},
    **{
        f"no {table}.{column}": sql(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
        for table, column in COLUMNS.items()
    },
    **{
        f"{key} no JSON {n}": attribute("study", key, replaced(NO_JSON))
        for n, key in enumerate(("settings", "space", "dataset", "sessions"))
    },
    **{f"{key} other JSON": attribute("study", key, replaced(WRONG_JSON)) for key in ("settings", "space", "dataset")},
    **{
        f"{key} other JSON": attribute("study", key, replaced(('"a"', '[{"git_commit": 1}]', "7")))
        for key in ("sessions", "code")
    },
    **{
        f"settings.{name}": attribute("study", "settings", member(name, *texts))
        for name, texts in {
            "epochs": ("0", "-1", '"3"', "2.5", "null", "true"),
            "metric": ('"loss"', "null", "3", '"test_loss"', '"val_loss"'),
            "seed": ('"0"', "-1", "0.5", "1e3"),
            "num_samples": ('"many"', "0", "2.5", "[]"),
            "val_fraction": ("NaN", "2", '"a"', "null"),
            "scheduler": ('"pbt"', "null", "1"),
            "sampler": ('"grid"', "null", "1"),
            "grace_period": ("0", '"1"', "1000"),
            "reduction_factor": ("1", "null", "2.5"),
            "baseline": ('"yes"', "1", "null"),
            "data_dir": ("5", "null", "{}"),
            "cpus_per_trial": ("0", "1.5", '"1"'),
            "name": ('"../../x"', "7", '"a\\nb"'),
        }.items()
    },
    "settings.metric none": attribute("study", "settings", member("metric", "null")),
    "settings.data_dir none": attribute("study", "settings", member("data_dir", "null")),
    "settings without epochs": attribute("study", "settings", member("epochs")),
    "dataset unknown": attribute("study", "dataset", member("name", '"../cifar"', '"=1+1"', "null", "5")),
    "dataset without name": attribute("study", "dataset", member("name")),
    "space of nothing known": attribute(
        "study", "space", replaced(('{"=cmd": {"choices": ["a"]}}', '{"lr": {"low": 1, "high": 2, "log": true}}'))
    ),
    "learning rates": attribute(
        "study",
        "space",
        member(
            "learning_rate",
            '{"low": 0.1, "high": 0.01, "log": true}',
            '{"low": -1.0, "high": 1.0, "log": false}',
            '{"low": "a", "high": 1.0, "log": false}',
            '{"low": 0.0, "high": 1.0, "log": true}',
            "5",
        ),
    ),
    "batch sizes": attribute(
        "study",
        "space",
        member(
            "batch_size",
            '{"ordered": []}',
            '{"ordered": ["a", "b"]}',
            '{"ordered": [64, 32]}',
            '{"ordered": 5}',
            '{"ordered": [0, 1]}',
            '{"choices": [1.5]}',
        ),
    ),
    "optimizers": attribute(
        "study",
        "space",
        member(
            "optimizer", '{"choices": []}', '{"choices": ["lion"]}', '{"choices": "sgd"}', '{"choices": [1]}', "null"
        ),
    ),
    **{
        f"session {name}": attribute("study", "sessions", in_only(member(name, *texts)))
        for name, texts in {
            "seconds": ('"12"', "-1", "NaN", "1e999", "1e300"),
            "max_concurrent_trials": ('"1"', "0", "-1", "null", "1.5", "1" + "0" * 400),
            "cpus_per_trial": ('"1"', "0", "-1", "null", "1.5", "1" + "0" * 400),
            "machine": ("{}", '{"cpus": "2"}', '{"cpus": 0}', "[]"),
        }.items()
    },
    **{
        f"epoch 2 timing {name}": attribute("trial", "epoch 2", member("timing", *texts))
        for name, texts in {
            "other": ("5", "[]", "{}", '"now"'),
            "numbers": (TIMING % ("-1", "1"), TIMING % ("0.5", "1"), TIMING % ("0", "-1"), TIMING % ("0", "1e300")),
        }.items()
    },
    **{
        f"epoch 2 {name}": attribute("trial", "epoch 2", member(name, *WRONG_NUMBERS))
        for name in ("epoch", "train_loss", "val_accuracy", "test_loss", "seconds")
    },
    **{
        f"epoch 2 {name} of many digits": attribute("trial", "epoch 2", member(name, "1" * 400))
        for name in ("train_loss", "val_accuracy", "test_loss", "seconds")
    },
    "epoch 2 other value": attribute("trial", "epoch 2", member("val_accuracy", "0.91", "0.5")),
    "epoch 2 other number": attribute("trial", "epoch 2", member("epoch", "1", "3", "4", "10")),
    "epoch 2 lacks a metric": attribute("trial", "epoch 2", member("test_loss")),
    "epoch 2 no JSON": attribute("trial", "epoch 2", replaced(NO_JSON)),
    "status unknown": attribute("trial", "status", replaced(('"done"', "1", "null", '"running"', '"\\u001b[2J"'))),
    "status another": attribute(
        "trial", "status", replaced(('"stopped_early"', '"failed"', '"diverged"', '"interrupted"'))
    ),
    "seed no number": attribute("trial", "seed", replaced(('"1"', "1.5", "null", "[]", "true", "-1"))),
    "seed negative": attribute("trial", "seed", replaced(("-1",))),
    "name of trial": attribute("trial", "ray_trial_id", replaced(("1", "null", "[]", "{}"))),
    "state unknown": sql("UPDATE trials SET state = 'DONE' WHERE number = 1"),
    "state another": sql("UPDATE trials SET state = 'FAIL' WHERE number = 1"),
    "state of a failure": sql("UPDATE trials SET state = 'COMPLETE' WHERE number = 4"),
    "number twice": sql("UPDATE trials SET number = 1 WHERE number = 2"),
    "number missing": sql("UPDATE trials SET number = 9 WHERE number = 2"),
    "number no number": sql("UPDATE trials SET number = 'two' WHERE number = 2"),
    "trial deleted": sql("DELETE FROM trials WHERE number = 2"),
    "epoch deleted": sql("DELETE FROM trial_user_attributes WHERE key = 'epoch 2' AND trial_id = 2"),
    "last epoch deleted": sql("DELETE FROM trial_user_attributes WHERE key = 'epoch 3' AND trial_id = 2"),
    "failure deleted": sql("DELETE FROM trial_user_attributes WHERE key = 'failure' AND trial_id = 5"),
    "failure of no kind": sql("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'failure'", '{"kind": 1}'),
    "value another": sql("UPDATE trial_values SET value = 0.99 WHERE trial_id = 2"),
    "value a text": sql("UPDATE trial_values SET value = 'high' WHERE trial_id = 2"),
    "curve another": sql(
        "UPDATE trial_intermediate_values SET intermediate_value = 0.1 WHERE trial_id = 2 AND step = 1"
    ),
    "parameter a text": sql("UPDATE trial_params SET param_value = 'fast' WHERE trial_id = 2 AND param_name LIKE 'l%'"),
    "parameter unknown": sql("UPDATE trial_params SET param_name = '=cmd' WHERE trial_id = 2 AND param_name LIKE 'l%'"),
    "choice out of range": sql("UPDATE trial_params SET param_value = 77 WHERE trial_id = 2 AND param_name LIKE 'o%'"),
    "distribution no JSON": sql("UPDATE trial_params SET distribution_json = '{' WHERE trial_id = 2"),
    "distribution unknown": sql(
        "UPDATE trial_params SET distribution_json = ? WHERE trial_id = 2", '{"name": "X", "attributes": {}}'
    ),
    "direction another": sql("UPDATE study_directions SET direction = 'MINIMIZE'"),
    "direction unknown": sql("UPDATE study_directions SET direction = 'UP'"),
    "two directions": sql("INSERT INTO study_directions (direction, study_id, objective) VALUES ('MINIMIZE', 1, 1)"),
    "version unknown": sql("UPDATE alembic_version SET version_num = 'v99'"),
    "two versions": sql("INSERT INTO alembic_version VALUES ('v99')"),
}
"""How what the file says may be damaged."""

CASES = [(name, seed, damage) for name, (number, damage) in FILE_DAMAGE.items() for seed in range(number)] + [
    (name, seed, damage) for seed, (name, damage) in enumerate(RECORD_DAMAGE.items())
]
assert len(CASES) >= 150


@pytest.fixture(scope="module")
def whole_report(results: Path) -> str:
    """What `search/report.py` says of the study before the damage."""
    return run_command("search/report.py", "sent", f"--results-dir={results}", cwd=results).stdout


@pytest.fixture(scope="module")
def trials(results: Path) -> list[TrialRecord]:
    """Those of the study before the damage."""
    return StudyRecord.open(results / "sent").trials


@pytest.fixture
def copy(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of its own with a copy of the study, which no process has locked; commands are typed there."""
    shutil.copytree(results / "sent", tmp_path / "results" / "sent")
    monkeypatch.chdir(tmp_path / "results")
    return tmp_path / "results"


def test_undamaged_study_is_taken(copy: Path, commands: Commands) -> None:
    for words in (["--resume=sent", "--num-samples=+3"], ["--warm-start=sent"], ["--resume=sent", "--fork"]):
        with pytest.raises(StartedError):
            commands.run(run.main, "--dataset=digits", f"--results-dir={copy}", *words)
    assert commands.run(report.main, "sent", f"--results-dir={copy}")[0] == 0


@pytest.mark.parametrize(("name", "seed", "damage"), CASES, ids=lambda value: None if callable(value) else str(value))
def test_damaged_study_is_refused_and_left_as_it_is(
    name: str,
    seed: int,
    damage: Damage,
    results: Path,
    trials: list[TrialRecord],
    whole_report: str,
    copy: Path,
    commands: Commands,
) -> None:
    file = copy / "sent" / "study.db"
    settings = stored_settings(file.parent)
    damage(file, random.Random(f"{name} {seed}"))
    before = snapshot(copy)
    for main, words in (
        (run.main, ["--resume=sent", "--num-samples=+3"]),
        (run.main, ["--dataset=digits", "--warm-start=sent"]),
        (report.main, ["sent"]),
    ):
        try:
            status, output, error = commands.run(main, f"--results-dir={copy}", *words)
        except StartedError:
            file.write_bytes(before["sent/study.db"])  # as it was when it was taken
            assert StudyRecord.open(file.parent).trials == trials
            assert "--resume=sent" not in words or stored_settings(file.parent) == settings
        else:
            if status == 0:
                assert output.replace(str(copy), str(results)) == whole_report
            else:
                assert (status, output) == (2, ""), output + error
                assert error.startswith("error: "), error
                assert error.count("\n") == 1, error
                assert snapshot(copy) == before
        before = snapshot(copy)


# Damaged surroundings of a sound record


def link_to_itself(folder: Path) -> None:
    (folder.parent / "latest").symlink_to("latest")


def dangling_link(folder: Path) -> None:
    (folder.parent / "latest").symlink_to("nowhere")


@pytest.mark.parametrize("damage", [link_to_itself, dangling_link])
def test_link_that_leads_nowhere_is_refused(damage: Callable[[Path], None], copy: Path, commands: Commands) -> None:
    damage(copy / "sent")
    for main, words in (
        (report.main, ["latest"]),
        (run.main, ["--resume=latest"]),
        (run.main, ["--warm-start=latest"]),
    ):
        assert "there is no study latest" in commands.refused(main, f"--results-dir={copy}", *words)


def test_lock_that_is_a_folder_is_told(copy: Path, commands: Commands, whole_report: str, results: Path) -> None:
    (copy / "sent" / ".lock").unlink(missing_ok=True)
    (copy / "sent" / ".lock").mkdir()
    before = snapshot(copy)
    assert "cannot be written" in commands.refused(
        run.main, "--resume=sent", "--num-samples=+3", f"--results-dir={copy}"
    )
    status, output, _ = commands.run(report.main, "sent", f"--results-dir={copy}")
    assert status == 0
    assert output.startswith("The files of the study are not written again: ")
    assert output.replace(str(copy), str(results)).endswith(whole_report)
    after = snapshot(copy)
    anew = {name for name in after if "report.html" in name or "plots/" in name}  # those need no lock
    assert {name: after[name] for name in after if name not in anew} == {
        name: before[name] for name in before if name not in anew
    }


def test_table_that_is_a_folder_is_told(copy: Path, commands: Commands) -> None:
    (copy / "sent" / "trials.csv").unlink()
    (copy / "sent" / "trials.csv").mkdir()
    status, output, error = commands.run(report.main, "sent", f"--results-dir={copy}")
    assert (status, error) == (0, "")
    assert output.startswith("The files of the study are not written again: [Errno 21] Is a directory")
    assert not list((copy / "sent").glob(".*.draft"))


@pytest.mark.parametrize("journal", [b"", b"nonsense", bytes(512), b"\xd9\xd5\x05\xf9 \xa1c\xd7" + bytes(1000)])
def test_journal_that_is_not_of_this_file_changes_nothing(
    journal: bytes, copy: Path, results: Path, commands: Commands, whole_report: str
) -> None:
    file = copy / "sent" / "study.db"
    content = file.read_bytes()
    file.with_name("study.db-journal").write_bytes(journal)
    status, output, _ = commands.run(report.main, "sent", f"--results-dir={copy}")
    assert status == 0
    assert output.replace(str(copy), str(results)) == whole_report
    assert file.read_bytes() == content
