"""Studies on a real Ray cluster: two nodes on this machine, each with a core, started as `docs/cluster.md` says."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import faulty
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from search import cluster
from training.config import PROJECT

EPOCHS = 40
TRIALS = ["--dataset", "digits", "--num-samples", "4", "--epochs", str(EPOCHS), "--scheduler", "none"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
CAN_MOUNT = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
DRIVER = (
    "import sys, faulty; from search import run, tuning; tuning.trainable = faulty.notes_its_node; sys.exit(run.main())"
)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} seconds"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        return int(stream.getsockname()[1])


@dataclass(frozen=True)
class TwoNodes:
    """A cluster whose nodes and their workers are two sessions of processes."""

    folder: Path
    address: str
    environment: dict[str, str]
    head: subprocess.Popen[bytes]
    second: subprocess.Popen[bytes]

    @property
    def hidden(self) -> Path:
        """A folder that the second node does not share."""
        return self.folder / "hidden"

    def driver(self, *options: str, **changes: str) -> subprocess.Popen[str]:
        """A study that has trials note where they run; its temporary folder is not shared with the second node."""
        changes = {"TMPDIR": str(self.hidden), "PYTHONPATH": f"{PROJECT}:{Path(__file__).parent}", **changes}
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, "--address", self.address, *options],
            cwd=PROJECT,
            env=self.environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def notes(self) -> list[tuple[int, int, str]]:
        """Seed, session and code of each trial that was begun."""
        file = Path(self.environment[faulty.NOTES])
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(seed), int(session), code) for seed, session, code in (line.split(" ") for line in lines)]


def start_node(
    environment: dict[str, str], folder: Path, *options: str, hidden: Path | None
) -> subprocess.Popen[bytes]:
    command = [*RAY, "start", "--block", "--num-cpus", "1", "--object-store-memory", "100000000", *options]
    if hidden and CAN_MOUNT:
        command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *command]
    with (folder / f"{options[0].strip('-')}.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    folder = Path(tempfile.mkdtemp(prefix="tc-", dir="/tmp"))  # Ray's socket paths must stay below 107 bytes
    (folder / "hidden").mkdir()
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(secrets.token_hex(32))
    of_a_user = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    environment = of_a_user | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "PYTHONPATH": str(Path(__file__).parent),
        faulty.NOTES: str(folder / "notes"),
    }
    port = free_port()
    ports = ["--port", str(port), "--ray-client-server-port", str(free_port()), "--include-dashboard", "false"]
    address = f"127.0.0.1:{port}"
    nodes = [start_node(environment, folder, "--head", *ports, "--temp-dir", str(folder / "ray"), hidden=None)]

    def cores(number: int) -> bool:
        command = [*RAY, "status", "--address", address]
        status = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return f"/{number}.0 CPU" in status.stdout

    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "the head listens")
        wait_until(lambda: cores(1), "the head is up")
        nodes.append(start_node(environment, folder, "--address", address, hidden=folder / "hidden"))
        wait_until(lambda: cores(2), "the second node has joined")
        yield TwoNodes(folder, address, environment, *nodes)
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def epochs_recorded(study: Path, trial_number: int) -> int:
    """Epochs of a trial in the record, as another process sees them."""
    query = "SELECT count(*) FROM trial_user_attributes JOIN trials USING (trial_id) WHERE number = ? AND key LIKE ?"
    try:
        with closing(sqlite3.connect(f"file:{study / 'study.db'}?mode=ro", uri=True)) as database:
            return int(database.execute(query, (trial_number, "epoch %")).fetchone()[0])
    except sqlite3.OperationalError:  # not made yet, or being written
        return 0


def in_the_middle_on(two_nodes: TwoNodes, node: subprocess.Popen[bytes], study: Path) -> bool:
    """Whether the trial that was begun last on a node has finished some of its epochs."""
    begun = [seed for seed, session, _ in two_nodes.notes() if session == node.pid]
    return bool(begun) and 5 <= epochs_recorded(study, begun[-1]) <= EPOCHS - 15


def check_every_trial_completed_once(study: Path) -> None:
    trials = pd.read_csv(study / "trials.csv").set_index("trial_number").sort_index()
    assert trials.index.tolist() == [0, 1, 2, 3]
    assert (trials["status"] == "completed").all()
    for _, epochs in pd.read_csv(study / "epochs.csv").groupby("trial_number")["epoch"]:
        assert epochs.tolist() == list(range(1, EPOCHS + 1))
    stored = optuna.load_study(study_name=study.name, storage=f"sqlite:///{study / 'study.db'}").trials
    assert [trial.state for trial in stored] == [TrialState.COMPLETE] * 4


def refused(driver: subprocess.Popen[str]) -> str:
    output, errors = driver.communicate(timeout=100)
    assert driver.returncode == 2, output + errors
    assert output == ""
    assert errors.count("\n") == 1
    return errors


@pytest.mark.skipif(not CAN_MOUNT, reason="only root can hide a folder from a node")
def test_results_folder_that_a_node_does_not_share_is_refused(two_nodes: TwoNodes) -> None:
    results = two_nodes.hidden / "results"
    sentence = refused(two_nodes.driver(*TRIALS, "--results-dir", str(results)))
    assert re.fullmatch(
        r"error: node [\d.]+ of the cluster does not share the results folder with this machine "
        rf"\(No such file or directory\): {two_nodes.hidden}\n",
        sentence,
    )
    assert not list(two_nodes.hidden.glob("*results*")) + list(two_nodes.hidden.glob(".tunesmith*"))


def test_wrong_and_missing_tokens_are_refused_and_not_shown(two_nodes: TwoNodes) -> None:
    wrong = two_nodes.folder / "wrong-token"
    wrong.write_text(secrets.token_hex(32))
    files = (wrong, two_nodes.folder / "no-token")
    drivers = [two_nodes.driver(*TRIALS, "--name", "refused", RAY_AUTH_TOKEN_PATH=str(file)) for file in files]
    for sentence in map(refused, drivers):
        assert f"the Ray cluster at {two_nodes.address} asks for its token" in sentence
        assert wrong.read_text() not in sentence
    assert not (PROJECT / "results" / "refused").exists()


def test_cluster_that_does_not_answer_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 3)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"the Ray cluster at {address} does not answer within 3 seconds"):
            cluster.join(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ValueError, match="the Ray cluster of this machine does not answer within 3 seconds"):
            cluster.join("auto")


def test_study_whose_driver_was_killed_is_resumed_on_the_cluster(two_nodes: TwoNodes) -> None:
    study = two_nodes.folder / "driver-killed"
    driver = two_nodes.driver(*TRIALS, "--results-dir", str(study.parent), "--name", study.name)
    wait_until(lambda: in_the_middle_on(two_nodes, two_nodes.second, study), "a trial trains on the second node")
    driver.kill()
    driver.communicate()
    resumed = two_nodes.driver("--resume", str(study))
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output + errors
    assert "from their last epoch" in output
    check_every_trial_completed_once(study)


def test_study_outlives_a_node_and_its_trial_goes_on_on_another(two_nodes: TwoNodes) -> None:
    study = two_nodes.folder / "node-killed"
    options = [*TRIALS, "--results-dir", str(study.parent), "--name", study.name, "--max-failures", "0"]
    Path(two_nodes.environment[faulty.NOTES]).unlink(missing_ok=True)
    driver = two_nodes.driver(*options)
    wait_until(lambda: in_the_middle_on(two_nodes, two_nodes.second, study), "a trial trains on the second node")
    os.killpg(two_nodes.second.pid, signal.SIGKILL)
    output, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, output + errors
    assert errors == ""
    assert "  cluster  2 at once, 1 of 2 cores each, 2 nodes\n" in output
    assert "worker lost: its node died or cannot be reached; it will go on after epoch" in output
    check_every_trial_completed_once(study)
    assert {session for _, session, _ in two_nodes.notes()} == {two_nodes.head.pid, two_nodes.second.pid}
    (start,) = json.loads((study / "study.json").read_text())["starts"]
    assert start["cluster"] == {"nodes": 2, "cpus": 2, "gpus": 0}


def test_code_travels_to_the_nodes(two_nodes: TwoNodes) -> None:
    """Workers load our code from what was sent to them, though an editable install lies at hand."""
    codes = {Path(code) for _, _, code in two_nodes.notes()}
    assert codes
    for code in codes:
        assert code.is_relative_to(two_nodes.folder / "ray")
        assert not code.is_relative_to(PROJECT)
