"""Studies whose record is on a PostgreSQL server: by hand, and whole ones on digits, one of them with the real Ray."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import optuna
import pandas as pd
import psycopg
import pytest
from optuna.trial import TrialState
from postgresql import PASSWORD, SECRET, USER, PostgreSQL, programs
from serial_ray import CompletedRun, run_command
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from studies import NUMBERS, HandDrivenStudy, metrics

from search.engine.study import prepare_study
from search.record.database import NoRetry, RecordUnwritableError
from search.record.metadata import WarmStart
from search.record.postgresql import ServerStorage, open_server
from search.record.study_record import StudyRecord
from search.record.trial import Failure
from search.run import read_settings
from training.config import PROJECT, TrialConfig
from training.console.command_line import mask_password
from training.images.image_data import ImageData
from training.loop import train

EPOCHS = 40


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL on this machine; Debian's package postgresql brings it")
    server = PostgreSQL(found)
    yield server
    server.remove()


@pytest.fixture
def study(server: PostgreSQL, tmp_path: Path) -> HandDrivenStudy:
    """A study of this process, called as the test's folder."""
    storage = open_server(server.address())
    storage.lock(tmp_path.name)
    return HandDrivenStudy(tmp_path, server=storage)


def storage_of(study: HandDrivenStudy) -> ServerStorage:
    storage = study.record._database
    assert isinstance(storage, ServerStorage)
    return storage


class Remedy(NoRetry):
    """Does something about a failure, and remembers what was wrong."""

    def __init__(self, mend: Callable[[], None]) -> None:
        self.errors: list[str] = []
        self._mend = mend

    def wait(self, error: Exception) -> None:
        self.errors.append(str(error))
        assert len(self.errors) < 20, self.errors
        self._mend()


def test_every_step_outlives_a_server_that_was_away(study: HandDrivenStudy, server: PostgreSQL, tmp_path: Path) -> None:
    remedy = Remedy(server.start)
    study.record.retry_writes_with(remedy)
    steps: list[Callable[[], object]] = [
        lambda: study.suggest("a"),
        lambda: study.record.add_epoch("a", metrics(1, 0.5)),
        lambda: study.record.add_worker_failure("a"),
        lambda: study.record.finish("a", interrupted=True),
        lambda: study.suggest("b"),
        lambda: study.record.add_epoch("b", metrics(2, 0.6)),
        lambda: study.record.add_epoch("b", metrics(3, 0.4)),
        lambda: study.record.finish("b"),
        lambda: study.run_trial(failure=Failure("exception", "ValueError: boom")),
        lambda: study.record.update(code={"loop": "another"}),
    ]
    for number, step in enumerate(steps, start=1):
        server.stop()
        step()
        assert len(remedy.errors) == number
    record = StudyRecord.open(tmp_path, open_server(server.address()))
    assert [trial.status for trial in record.trials] == ["completed", "failed"]
    assert record.trials == study.record.trials
    assert record.metadata.code == {"loop": "another"}
    with impatient(), pytest.raises(RecordUnwritableError):
        open_server(server.address()).lock(tmp_path.name)


def test_study_is_refused_while_another_process_has_it(study: HandDrivenStudy, server: PostgreSQL) -> None:
    name = study.record.folder.name
    other = open_server(server.address())
    expected = f"^study {name} is being run by process {os.getpid()} on "
    with impatient(), pytest.raises(RecordUnwritableError, match=expected):
        other.lock(name)
    other.lock("another one")
    storage_of(study).engine.dispose()  # its process ends
    other.lock(name)


def test_study_that_another_process_took_over_is_not_written(
    study: HandDrivenStudy, server: PostgreSQL, tmp_path: Path
) -> None:
    study.record.retry_writes_with(Remedy(server.start))
    study.suggest("a")
    server.stop()
    server.start()
    other = open_server(server.address())
    other.lock(tmp_path.name)
    with impatient(), pytest.raises(RecordUnwritableError, match="is being run by"):
        study.record.add_epoch("a", metrics(1, 0.5))
    assert StudyRecord.open(tmp_path, other).trials[0].epochs == []


def test_study_waits_for_its_own_lock_when_only_the_network_failed(study: HandDrivenStudy) -> None:
    study.suggest("a")
    storage = storage_of(study)
    lost = storage.engine.raw_connection()
    lost.detach()  # for the server it is still there
    remedy = Remedy(lost.close)
    study.record.retry_writes_with(remedy)
    study.record.add_epoch("a", metrics(1, 0.5))
    (error,) = remedy.errors
    assert "the server still waits for the last connection" in error


def test_answers_that_are_lost_change_nothing(study: HandDrivenStudy, server: PostgreSQL, tmp_path: Path) -> None:
    study.record.retry_writes_with(Remedy(lambda: None))
    commits = itertools.count()

    def lose_every_other_answer(connection: Any) -> None:
        if next(commits) % 2 == 0:
            connection.connection.commit()
            raise OperationalError(None, None, ConnectionError("the answer is lost"))

    event.listen(storage_of(study).engine, "commit", lose_every_other_answer)
    for _ in range(2):
        study.run_trial(0.5, 0.6, 0.7)
    read = StudyRecord.open(tmp_path, open_server(server.address()))
    assert read.trials == study.record.trials
    assert [trial.state for trial in read.study.trials] == [TrialState.COMPLETE] * 2


def test_reader_sees_one_moment_of_a_study_that_is_being_written(
    study: HandDrivenStudy, server: PostgreSQL, tmp_path: Path
) -> None:
    study.suggest("a")
    reader = open_server(server.address())
    epochs = itertools.count(1)

    def write_meanwhile(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM trial_user_attributes" in statement:
            study.record.add_epoch("a", metrics(next(epochs), 0.5))

    event.listen(reader.engine, "after_cursor_execute", write_meanwhile)
    assert StudyRecord.open(tmp_path, reader).trials[0].epochs == []
    assert len(StudyRecord.open(tmp_path, open_server(server.address())).trials[0].epochs) == next(epochs) - 1 > 0


def test_record_without_patience_tells_that_it_cannot_be_used(study: HandDrivenStudy, server: PostgreSQL) -> None:
    server.stop()
    with pytest.raises(RecordUnwritableError, match=r"^the record cannot be used \(.*Connection refused.*\)$"):
        study.suggest("a")
    server.start()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (
            "postgresql://{user}:wrong" + SECRET + "@127.0.0.1:{port}/postgres",
            "storage cannot be used: .*password auth",
        ),
        ("postgresql://{user}@127.0.0.1:{port}/postgres", "storage cannot be used: .*no password supplied"),
        ("postgresql://{user}:{password}@127.0.0.1:{port}/missing", 'storage cannot be used: .*database "missing"'),
        ("postgresql://{user}:{password}@127.0.0.1:1/postgres", "storage cannot be used: .*Connection refused"),
        ("postgresql://{user}:{password}@127.0.0.1:{port}/postgres?colour=red", "storage cannot be used: .*colour"),
        ("postgresql://{user}:{password}@unknown.invalid/postgres", "storage cannot be used: .*'unknown.invalid'"),
        ("postgresql://{user}:a@" + SECRET + "@127.0.0.1/postgres", "storage must be an address like postgresql://"),
        ("postgresql://{user}:" + SECRET, "storage must be an address like postgresql://"),
        ("mysql://{user}:{password}@127.0.0.1/postgres", "storage must be an address like postgresql://"),
        ("nonsense " + SECRET, "storage must be an address like postgresql://"),
        ("", "storage must be an address like postgresql://"),
        ("sqlite:///study.db", "storage must be a PostgreSQL server; leave it out to have the record in sqlite"),
    ],
)
def test_address_that_cannot_be_used_is_refused_without_its_password(
    server: PostgreSQL, address: str, sentence: str
) -> None:
    filled = address.format(user=USER, password=quote(PASSWORD, safe=""), port=server.port)
    with pytest.raises(ValueError, match=sentence) as refusal:
        open_server(filled)
    assert SECRET not in str(refusal.value)


def test_user_without_rights_is_refused(server: PostgreSQL) -> None:
    with psycopg.connect(server.address(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE foreign_one")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    address = server.address("foreign_one", user="guest", password="guest")
    with pytest.raises(ValueError, match="storage cannot be used: permission denied for schema public"):
        open_server(address)


def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"^storage needs a driver \(.*psycopg.*\): pip install 'psycopg\[binary\]'$"):
        open_server("postgresql://user@127.0.0.1/database")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("postgresql://user:a@b/c:d e@host:5432/database", "postgresql://user:***@host:5432/database"),
        ("--storage=postgresql://host/d?password=secret&x=1", "--storage=postgresql://host/d?password=***&x=1"),
        ("postgresql://user@host:5432/database", "postgresql://user@host:5432/database"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
    ],
)
def test_passwords_are_shown_as_stars(word: str, shown: str) -> None:
    assert mask_password(word) == shown


class WholeStudy:
    """A study of 2 trials on digits, called `whole`, by `python search/run.py` in another process, with Ray."""

    def __init__(self, results: Path, server: PostgreSQL) -> None:
        """Start it.

        Args:
            results: Folder for its files.
            server: What keeps its record.
        """
        self._folder = results / "whole"
        self._server = server
        self._output = results / "output"
        options = ["--dataset", "digits", "--num-samples", "2", "--epochs", str(EPOCHS), "--scheduler", "none"]
        options += ["--max-concurrent", "1", "--no-dashboard", "--results-dir", str(results), "--name", "whole"]
        command = [sys.executable, "search/run.py", *options, "--storage", server.address()]
        with self._output.open("w") as stream:
            self.process = subprocess.Popen(
                command, cwd=PROJECT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_for(self, words: str) -> None:
        """Wait until it has printed this."""
        self._wait(lambda: words in self._output.read_text(), words)

    def wait_for_epochs(self, number: int) -> None:
        """Wait until so many epochs are recorded."""
        storage = open_server(self._server.address())
        self._wait(
            lambda: sum(len(trial.epochs) for trial in StudyRecord.open(self._folder, storage).trials) >= number,
            f"{number} epochs",
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for: {what}"
            assert self.process.poll() is None, self._output.read_text()
            time.sleep(0.1)


@contextmanager
def impatient() -> Iterator[None]:
    """While this lasts, a lock that another process holds is not waited for: nobody is about to release it."""
    with mock.patch("search.record.postgresql.TAKE_OVER_SECONDS", 0.0):
        yield


def start(script: str, *options: str, **variables: str) -> CompletedRun:
    run = run_command(f"search/{script}", *options, cwd=None, **variables)
    assert SECRET not in run.stdout + run.stderr
    return run


def refused(script: str, results: Path, *options: str) -> str:
    """The sentence by which a command is refused, having written nothing."""
    run = start(script, *options, "--results-dir", str(results))
    assert (run.status, run.stdout, run.stderr.count("\n")) == (2, "", 1), run.stdout + run.stderr
    assert list(results.iterdir()) == []
    return run.stderr


def files_with_the_password(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if SECRET.encode() in file.read_bytes()]


def test_study_of_optuna_on_a_server_is_imported(server: PostgreSQL, tmp_path: Path) -> None:
    """The tables are read in a transaction that only reads; no password is in a sentence or a file."""
    address = server.address()
    theirs = optuna.create_study(storage=address.replace("://", "+psycopg://"), study_name="theirs")
    theirs.optimize(lambda trial: trial.suggest_float("x", -1.0, 1.0) ** 2, n_trials=4)
    words = ("search/report.py", "--import", address, "--study", "theirs", "--results-dir", str(tmp_path))
    done = run_command(*words)
    assert done.status == 0, done.stderr
    record = StudyRecord.open(tmp_path / "theirs")
    assert [trial.best_value for trial in record.trials] == pytest.approx([trial.value for trial in theirs.trials])
    assert record.metadata.settings.task.name == f"imported from Optuna {optuna.__version__}"
    wrong = run_command(words[0], "--import", server.address(password=f"{SECRET}x"), "--results-dir", str(tmp_path))
    assert wrong.status == 2
    assert "the server cannot be used" in wrong.stderr
    written = "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert SECRET not in done.stdout + done.stderr + wrong.stderr + written


@pytest.fixture(scope="module")
def killed(server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A study that saw its server go away and come back, and then was killed, and its folder removed."""
    results, nothing = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("nothing")
    study = WholeStudy(results, server)
    try:
        study.wait_for("Ended trials")
        study.wait_for_epochs(5)
        server.stop()
        study.wait_for("the study waits until this is possible")
        server.start()
        study.wait_for("the record can be written again")
        study.process.send_signal(signal.SIGSTOP)  # it has the lock still
        for words in (["--resume", "whole"], ["--name", "whole", "--dataset", "digits"]):
            with impatient():
                sentence = refused("run.py", nothing, *words, "--storage", server.address())
            assert sentence.startswith(f"error: study whole is being run by process {study.process.pid} on ")
    finally:
        study.process.kill()
        study.process.wait()
    assert files_with_the_password(results) == []
    assert not (results / "whole" / "study.db").exists()
    shutil.rmtree(results)
    yield
    optuna.delete_study(study_name="whole", storage=open_server(server.address()))


@pytest.fixture(scope="module")
def resumed(server: PostgreSQL, killed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the killed study, resumed as if on another machine."""
    results = tmp_path_factory.mktemp("resumed")
    words = ["--resume", "whole", "--storage", server.address(password=None), "--results-dir", str(results)]
    run = start("run.py", *words, PGPASSWORD=PASSWORD)
    assert run.status == 0, run.stdout + run.stderr
    assert f"record     {server.address(password=None)}" in run.stdout
    assert "0 ended trials; 2 to run\n" in run.stdout  # the checkpoints were in the folder that is gone
    return results / "whole"


@pytest.mark.ray
def test_files_are_rebuilt_from_the_server_alone(server: PostgreSQL, killed: None, tmp_path: Path) -> None:
    run = start("report.py", "whole", "--storage", server.address(), "--results-dir", str(tmp_path))
    assert run.status == 0, run.stdout + run.stderr
    assert "1 interrupted" in run.stdout
    assert {"trials.csv", "epochs.csv", "study.json"} <= {file.name for file in (tmp_path / "whole").iterdir()}
    assert len(pd.read_csv(tmp_path / "whole" / "epochs.csv")) >= 5
    assert files_with_the_password(tmp_path) == []


@pytest.mark.ray
def test_killed_study_goes_on_where_its_folder_never_was(resumed: Path, digits: ImageData) -> None:
    trials = pd.read_csv(resumed / "trials.csv")
    assert sorted(trials["trial_number"]) == [0, 1]
    assert (trials["status"] == "completed").all()
    epochs = pd.read_csv(resumed / "epochs.csv")
    recorded = epochs.loc[epochs["trial_number"] == 0, NUMBERS].reset_index(drop=True)
    alone = pd.DataFrame([asdict(metrics) for metrics in train(TrialConfig(epochs=EPOCHS, seed=0), digits)])
    pd.testing.assert_frame_equal(recorded, alone[NUMBERS], rtol=1e-12)
    commands = [begun["command"] for begun in json.loads((resumed / "study.json").read_text())["sessions"]]
    assert f"{USER}:***@127.0.0.1" in commands[0]
    assert files_with_the_password(resumed) == []


@pytest.fixture(scope="module")
def small(server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study of 2 trials, called `small`, without Ray."""
    results = tmp_path_factory.mktemp("small")
    options = ["--storage", server.address(), "--results-dir", str(results)]
    run = start("run.py", "--dataset", "digits", "--num-samples", "2", "--epochs", "2", "--name", "small", *options)
    assert run.status == 0, run.stdout + run.stderr
    return results / "small"


def test_fork_takes_its_evidence_from_the_server(server: PostgreSQL, small: Path, tmp_path: Path) -> None:
    words = ["--resume", small.name, "--fork", "--storage", server.address(), "--results-dir", str(tmp_path)]
    study = prepare_study(read_settings(words))
    with closing(study.folder), closing(study.record):
        assert study.record.metadata.warm_start == [WarmStart(study="small", trials=2, of=2)]
        assert study.record.folder.name.startswith("digits-")
        assert open_server(server.address()).has_study(study.record.folder.name)


def test_study_on_a_server_is_confirmed_and_reproduced(server: PostgreSQL, small: Path) -> None:
    options = ["--storage", server.address(), "--results-dir", str(small.parent)]
    run = start("confirm.py", small.name, "--top", "2", "--seeds", "2", "--no-dashboard", *options)
    assert run.status == 0, run.stdout + run.stderr
    assert len(pd.read_csv(small / "confirm.csv")) == 2
    assert (small / "model" / "model.safetensors").is_file()
    record = StudyRecord.open(small, open_server(server.address()))
    assert len(record.trials) == 2  # those of the confirmation have a record of their own
    assert record.metadata.confirmation is not None
    assert record.metadata.confirmation.final is not None
    assert record.metadata.confirmation.final.training_images == 1438
    run = start("reproduce.py", small.name, "1", *options)
    assert run.status == 0, run.stdout + run.stderr
    assert files_with_the_password(small) == []


def test_name_that_the_server_knows_is_refused(server: PostgreSQL, small: Path, tmp_path: Path) -> None:
    words = ["--name", small.name, "--dataset", "digits", "--storage", server.address()]
    assert refused("run.py", tmp_path, *words) == f"error: name small is taken: {server.address(password=None)}\n"


def test_study_that_the_server_does_not_know_is_refused(server: PostgreSQL, tmp_path: Path) -> None:
    sentence = f"error: there is no study missing in {server.address(password=None)}\n"
    assert refused("run.py", tmp_path, "--resume", "missing", "--storage", server.address()) == sentence
    assert refused("report.py", tmp_path, "missing", "--storage", server.address()) == sentence


def test_study_of_another_program_is_refused(server: PostgreSQL, tmp_path: Path) -> None:
    optuna.create_study(storage=open_server(server.address()), study_name="foreign")
    sentence = f"error: study foreign in {server.address(password=None)} is not a study of Tunesmith\n"
    assert refused("run.py", tmp_path, "--resume", "foreign", "--storage", server.address()) == sentence


def test_record_on_a_server_is_not_sought_without_its_address(tmp_path: Path) -> None:
    sentence = refused("run.py", tmp_path, "--resume", "whole")
    assert sentence.startswith(f"error: there is no study whole: no study.db is in {tmp_path / 'whole'} or whole")
    assert sentence.endswith("; if its record is on a server, add --storage\n")


def test_wrong_password_is_refused_in_one_sentence(server: PostgreSQL, tmp_path: Path) -> None:
    address = server.address(password=f"wrong{SECRET}")
    for words in (["--dataset", "digits"], ["--resume", "whole"]):
        sentence = refused("run.py", tmp_path, *words, "--storage", address)
        assert sentence.startswith("error: the server of storage cannot be used: ")


def test_study_with_a_study_db_is_not_sought_on_a_server(server: PostgreSQL, tmp_path: Path) -> None:
    HandDrivenStudy(tmp_path)
    with pytest.raises(ValueError, match="leave out --storage"):
        StudyRecord.open(tmp_path, open_server(server.address()))
