"""Checkpoints in an object store: a real S3 server on this machine, and workers that share no folder."""

import json
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from s3_server import BUCKET, SECRET, S3Server, is_installed
from serial_ray import CompletedRun, StartedRun, run_command

from search.api import load_best, run_search
from search.engine import trial_files
from search.engine.time_limit import read_stacks, time_limit, timeout_file
from search.engine.trial_files import TrialFiles
from search.record.checkpoint_store import CHECKS, CheckpointStore, StoreError
from search.run import read_settings
from search.settings import StudySettings
from training.checkpoint import Checkpoint

pytestmark = pytest.mark.skipif(
    not is_installed(),
    reason="moto is not installed; pip install --no-deps --target .venv/s3 -r tests/s3.txt installs it",
)

FUNCTION = """
import os, signal
import torch

def train(config, checkpoint):
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    start = checkpoint.load(model=model, optimizer=optimizer)
    notes = checkpoint.folder / "notes.txt"
    print("goes on after", start, "with", notes.read_text() if notes.exists() else "nothing")
    for epoch in range(start, 5):
        loss = model(torch.randn(8, 3)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        checkpoint.save(epoch + 1, model=model, optimizer=optimizer)
        notes.write_text(f"notes of epoch {epoch + 1}")
        if epoch + 1 == 4 and os.environ.get("KILL") == str(config["seed"]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"loss": loss}
"""
SPACE = "[lr]\nlow = 0.001\nhigh = 0.1\nlog = true\n"
PROGRAM = """
import json, sys, time
from pathlib import Path

lr, folder = float(sys.argv[1]), Path(sys.argv[2])
state = folder / "state.json"
start = json.loads(state.read_text())["epoch"] if state.exists() else 0
print("goes on after", start)
for epoch in range(start + 1, 6):
    draft = folder / "draft"
    draft.write_text(json.dumps({"epoch": epoch, "lr": lr}))
    draft.replace(state)
    print(json.dumps({"epoch": epoch, "loss": lr / epoch}), flush=True)
    if epoch == 3 and start == 0:
        time.sleep(60)
"""


@pytest.fixture(scope="module")
def running_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def server(running_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in running_server.environment.items():
        monkeypatch.setenv(name, value)
    return running_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a training function, a program and their space."""
    (tmp_path / "my_train.py").write_text(FUNCTION)
    (tmp_path / "my_program.py").write_text(PROGRAM)
    (tmp_path / "my_space.toml").write_text(SPACE)
    return tmp_path


def stored_in(path: str) -> list[str]:
    return [f"--checkpoints-dir=s3://{BUCKET}/{path}"]


def searching(folder: Path, *options: str) -> list[str]:
    """The options of a study of the training function."""
    code = ["--train-function", f"{folder}/my_train.py:train", "--space", f"{folder}/my_space.toml"]
    return [*code, "--metric=loss", f"--results-dir={folder}/results", "--scheduler=none", "--no-dashboard", *options]


def files_of(study: Path) -> Iterator[Path]:
    return (path for path in study.rglob("*") if path.is_file())


def recorded_epochs(study: Path) -> set[str]:
    """The epochs of the first trial in the record, as another process sees them."""
    try:
        with closing(sqlite3.connect(f"file:{study / 'study.db'}?mode=ro", uri=True)) as database:
            return {key for (key,) in database.execute("SELECT key FROM trial_user_attributes")}
    except sqlite3.OperationalError:  # not made yet
        return set()


def check_nothing_secret(run: CompletedRun, folder: Path) -> None:
    for text in (run.stdout, run.stderr, *(file.read_bytes().decode(errors="ignore") for file in files_of(folder))):
        assert SECRET not in text


# Whole studies


def test_killed_study_goes_on_without_any_folder_of_its_worker(
    server: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is this process, too; after the kill, there is another folder for temporary files."""
    study = folder / "results" / "study"
    options = searching(folder, "--num-samples=2", "--name=study", *stored_in("killed"))
    (folder / "first").mkdir()
    with StartedRun("search/run.py", *options, variables={"TMPDIR": f"{folder}/first", "KILL": "1"}) as run:
        status, output = run.end()
    assert status == -signal.SIGKILL, output
    assert re.search(r"  store +s3://bucket/killed/study-[0-9a-f]{8}\n", output)
    assert not list(study.glob("checkpoints/*"))
    last = max(name for name in server.objects("killed") if "trial-0001-last" in name)
    assert last.endswith("trial-0001-last-0003.pt")  # epoch 4 was saved, and not recorded

    (folder / "second").mkdir()
    monkeypatch.setattr("tempfile.tempdir", f"{folder}/second")
    function = ["--train-function", f"{folder}/my_train.py:train"]
    resumed = run_command("search/run.py", "--resume", str(study), *function)
    assert resumed.status == 0, resumed.stderr
    assert "1 of them continues after the last epoch" in resumed.stdout
    trials = pd.read_csv(study / "trials.csv")
    assert trials["status"].tolist() == ["completed"] * 2
    assert (
        pd.read_csv(study / "epochs.csv").groupby("trial_number")["epoch"].apply(list).tolist() == [[*range(1, 6)]] * 2
    )
    log = (study / "trials" / "0001" / "log.txt").read_text()
    assert "goes on after 3" in log
    assert "with notes of epoch 3" in log
    assert (study / "trials" / "0001" / "notes.txt").read_text() == "notes of epoch 5"
    best = int(trials["trial_number"][0])
    kept = [name for name in server.objects("killed") if "/checkpoints/" in name]
    assert len(kept) == 1
    assert f"/trial-{best:04}-epoch-" in kept[0]
    assert {*load_best(study).states} == {"model", "optimizer"}
    check_nothing_secret(resumed, study)


def test_images_are_searched_reproduced_and_confirmed(server: S3Server, tmp_path: Path) -> None:
    results = ["--results-dir", str(tmp_path)]
    options = ["--dataset=digits", "--num-samples=2", "--epochs=1", "--set", "optimizer=adam", "--no-dashboard"]
    run = run_command("search/run.py", *options, *results, "--name=study", "--confirm=1x2", *stored_in("images"))
    assert run.status == 0, run.stderr
    kept = [name for name in server.objects("images") if ".pt" in name]
    assert len(kept) == 2, kept  # the best of the search, and of its confirmation
    assert any(name.startswith("study-confirm-") for name in kept)
    assert (tmp_path / "study" / "model" / "model.safetensors").is_file()
    assert run_command("search/reproduce.py", "study", "0", *results).status == 0
    more = run_command("search/run.py", "--resume", "study", "--num-samples=+1", *results)
    assert more.status == 0
    assert len(pd.read_csv(tmp_path / "study" / "trials.csv")) == 3
    check_nothing_secret(more, tmp_path)


def test_program_goes_on_from_the_folder_that_another_machine_left(
    server: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker is killed while the program waits after epoch 3."""
    study = folder / "results" / "study"
    command = f"{sys.executable} {folder}/my_program.py {{lr}} {{checkpoint}}"
    space = ["--space", f"{folder}/my_space.toml", "--metric=loss", f"--results-dir={folder}/results"]
    options = ["--command", command, *space, "--num-samples=1", "--name=study", "--no-dashboard", *stored_in("program")]
    (folder / "first").mkdir()
    with StartedRun("search/run.py", *options, variables={"TMPDIR": f"{folder}/first"}) as run:
        while "epoch 3" not in recorded_epochs(study):
            assert run.is_running(), run.output
            time.sleep(0.05)
        run.send(signal.SIGKILL)
        run.end()
    names = {name.rpartition("/")[2] for name in server.objects("program")}
    assert names == {"trial-0000.zip", "trial-0000.stdout", "trial-0000.stderr", "trial-0000.epochs", "log.txt"}

    (folder / "second").mkdir()
    monkeypatch.setattr("tempfile.tempdir", f"{folder}/second")
    resumed = run_command("search/run.py", "--resume", str(study), "--command", command)
    assert resumed.status == 0, resumed.stderr
    assert "1 of them continues after the last epoch" in resumed.stdout
    assert pd.read_csv(study / "epochs.csv")["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert "goes on after 3" in (study / "trials" / "0000" / "log.txt").read_text()
    files = load_best(study).files
    assert files is not None
    assert json.loads((files / "state.json").read_text())["epoch"] == 5


# A store that cannot be used


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("s3://missing/path", r"s3://missing/path cannot be used as a store: .*NO_SUCH_BUCKET.*"),
        ("nothing://bucket/path", r"nothing://bucket/path cannot be used as a store: Protocol not known: nothing"),
        ("az://bucket/path", r"az://bucket/path cannot be used as a store: Install adlfs .*"),
        (
            "s3://AKIA:pass/word@bucket/path",
            r"checkpoints_dir must have no user, password or port, .*; got s3://\*\*\*",
        ),
        ("s3://bucket/path?secret_key=word", r"checkpoints_dir must have no secret_key, .*; got s3://\*\*\*"),
        ("file:///tmp/path", r"checkpoints_dir must be an address like s3://bucket/path, got file:///tmp/path"),
        ("s3://", r"checkpoints_dir must be an address like s3://bucket/path, got s3://"),
        ("bucket/path", r"checkpoints_dir must be an address like s3://bucket/path, got bucket/path"),
    ],
)
def test_address_of_no_store_is_refused(server: S3Server, tmp_path: Path, address: str, sentence: str) -> None:
    results = tmp_path / "results"
    run = run_command("search/run.py", f"--checkpoints-dir={address}", f"--results-dir={results}", "--dataset=digits")
    assert run.status == 2
    assert run.stdout == ""
    assert re.fullmatch(rf"error: {sentence}\n", run.stderr)
    assert "word" not in run.stderr.replace("password", "")
    assert not results.exists()


def test_wrong_credentials_are_refused_and_not_shown(server: S3Server, tmp_path: Path) -> None:
    server.refuse_everybody(True)
    try:
        run = run_command("search/run.py", *stored_in("path"), f"--results-dir={tmp_path}/results", "--dataset=digits")
    finally:
        server.refuse_everybody(False)
    assert run.status == 2
    assert re.fullmatch(r"error: s3://bucket/path cannot be used as a store: .*INVALID_ACCESS_KEY_ID.*\n", run.stderr)
    check_nothing_secret(run, tmp_path)


def test_store_that_fails_for_a_moment_is_waited_for_and_then_its_trial_fails(
    server: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_files, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(trial_files, "RETRY_SECONDS", 0.05)
    put, failures = CheckpointStore.put, {"trial-0000-last-0002": 2, "trial-0001-last-0002": 10**9}

    def fail(store: CheckpointStore, name: str, file: Path) -> None:
        of = next((one for one in failures if one in name), "")
        if failures.get(of, 0) > 0:
            failures[of] -= 1
            raise StoreError("s3://bucket/fails cannot be used as a store: it is away")
        put(store, name, file)

    monkeypatch.setattr(CheckpointStore, "put", fail)
    options = searching(folder, "--num-samples=3", "--name=study", *stored_in("fails"))
    run = run_command("search/run.py", *options)
    assert run.status == 0
    assert run.stdout.count("it is away; a trial has waited for it, and goes on") == 1
    trials = pd.read_csv(folder / "results" / "study" / "trials.csv").set_index("trial_number").sort_index()
    assert trials["status"].tolist() == ["completed", "failed", "completed"]
    assert trials["error"][1] == "StoreError: s3://bucket/fails cannot be used as a store: it is away"


def test_machine_that_sees_another_store_is_told(server: S3Server) -> None:
    store, other = (CheckpointStore(f"s3://{BUCKET}/{path}", CHECKS) for path in ("one", "other"))
    name = store.begin_check()
    store.check(name, "node")
    with pytest.raises(StoreError, match="s3://bucket/other leads to another store than on the machine that runs"):
        other.check(name, "node")
    store.end_check(name)
    assert not server.objects("one")


# The settings


def test_address_as_results_dir_leaves_the_record_on_this_machine() -> None:
    settings = read_settings(["--results-dir", "s3://bucket/path", "--dataset=digits"])
    assert settings.checkpoints_dir == "s3://bucket/path"
    assert settings.results_dir == StudySettings().results_dir


def test_address_is_the_same_from_python(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="s3://missing/path cannot be used as a store: AWS Error NO_SUCH_BUCKET"):
        run_search(dataset="digits", results_dir="s3://missing/path")
    assert not list(tmp_path.iterdir())


def test_address_names_no_folder_of_records(tmp_path: Path) -> None:
    run = run_command("search/report.py", "study", "--results-dir=s3://bucket/path")
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr.startswith("error: results_dir must be a folder of this machine, where the records are, got s3:")


def test_study_does_not_change_between_its_folder_and_a_store(server: S3Server, folder: Path) -> None:
    run = run_command("search/run.py", *searching(folder, "--num-samples=1", "--name=study"))
    assert run.status == 0
    function = ["--train-function", f"{folder}/my_train.py:train"]
    moved = run_command("search/run.py", "--resume", f"{folder}/results/study", *function, *stored_in("path"))
    assert moved.status == 2
    assert (
        moved.stderr
        == "error: study study has its checkpoints in its folder: leave checkpoints_dir out, or fork the study\n"
    )


# The files of a trial, by hand


def on_another_machine(store: CheckpointStore, folder: Path) -> TrialFiles:
    study = folder / "study"
    for name in ("checkpoints", "trials/0007"):
        (study / name).mkdir(parents=True)
    return TrialFiles(study / "checkpoints" / "trial-0007.pt", study / "trials" / "0007", store)


def test_folder_of_a_training_is_one_object_and_comes_back_as_it_was(server: S3Server, tmp_path: Path) -> None:
    store = CheckpointStore(f"s3://{BUCKET}/by-hand", "study-1")
    files = on_another_machine(store, tmp_path / "one")
    checkpoint = Checkpoint(files.checkpoint, files.folder)
    (tmp_path / "saved" / "deep").mkdir(parents=True)
    (tmp_path / "saved" / "deep" / "state.bin").write_bytes(b"\0" * 3_000_000)
    for epoch, cost in ((1, 2.0), (2, 1.0), (3, 3.0)):
        (tmp_path / "saved" / "epoch.txt").write_text(str(epoch))
        checkpoint.save_folder(epoch, tmp_path / "saved")
        checkpoint.measured(epoch, cost)
        files.push()
        checkpoint.reported(epoch)
    files.push()
    names = {name.rpartition("/")[2] for name in server.objects("by-hand")}
    assert names == {"trial-0007-last-0003.zip", "trial-0007-epoch-0002.zip"}

    there = on_another_machine(store, tmp_path / "other")
    there.fetch()
    goes_on = Checkpoint(there.checkpoint, there.folder, 3, 1.0)
    folder = goes_on.load_folder()
    assert folder is not None
    assert (folder / "epoch.txt").read_text() == "3"
    assert (folder / "deep" / "state.bin").stat().st_size == 3_000_000
    before = server.objects("by-hand")
    there.push()
    assert server.objects("by-hand") == before


def test_file_that_a_training_removes_meanwhile_is_left_out(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = on_another_machine(CheckpointStore(f"s3://{BUCKET}/removed", "study-1"), tmp_path)
    for name in ("removed.txt", "stays.txt"):
        (files.folder / name).write_text("x")
    signature = trial_files._signature

    def remove(path: Path) -> tuple[object, ...]:
        of_now = signature(path)
        if path.name == "removed.txt":
            path.unlink(missing_ok=True)
        return of_now

    monkeypatch.setattr(trial_files, "_signature", remove)
    files.push()
    assert {*server.objects("removed")} == {"study-1/trials/0007/stays.txt"}


def test_worker_whose_time_is_up_makes_known_where_it_was(tmp_path: Path) -> None:
    known = tmp_path / "known"

    def make_known(file: Path) -> None:
        known.write_bytes(file.read_bytes())

    worker = os.fork()
    if worker == 0:
        with time_limit(0.1, tmp_path / "trial-0007.pt", make_known):
            time.sleep(60)
    _, status = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    timeout_file(tmp_path / "trial-0007.pt").write_bytes(known.read_bytes())
    first = next(line for line in read_stacks(tmp_path / "trial-0007.pt").splitlines() if line.startswith("  File"))
    assert first.endswith("in test_worker_whose_time_is_up_makes_known_where_it_was")


def test_name_from_a_store_does_not_lead_out_of_the_folder(server: S3Server, tmp_path: Path) -> None:
    store = CheckpointStore(f"s3://{BUCKET}/hostile", "study-1")
    server.put("hostile/study-1/trials/0007/../../../../evil.txt")
    server.put("hostile/study-1/trials/0007/good.txt")
    there = on_another_machine(store, tmp_path / "other")
    there.fetch()
    assert [path.name for path in files_of(tmp_path)] == ["good.txt"]
