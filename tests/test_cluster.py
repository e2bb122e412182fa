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
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import faulty
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from s3_server import BUCKET, S3Server, is_installed

from search.api import load_best
from search.engine import cluster
from training.config import PROJECT

EPOCHS = 40
TRIALS = ["--dataset", "digits", "--num-samples", "4", "--epochs", str(EPOCHS), "--scheduler", "none"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
DOCUMENT = PROJECT / "docs" / "cluster.md"
CAN_MOUNT = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
DRIVER = (
    "import sys, faulty; from search import run; from search.engine import tuner; "
    "tuner.trainable = faulty.notes_its_node; sys.exit(run.main())"
)


THIRD = "127.0.0.3"
STORED_FUNCTION = """
import os, time
from pathlib import Path
import torch

def train(config, checkpoint):
    model = torch.nn.Linear(3, 1)
    start = checkpoint.load(model=model)
    if start:
        print("goes on after", start)
    for epoch in range(start + 1, 9):
        with open(Path(__file__).with_name("epochs"), "a") as begun:
            begun.write(f"{config['seed']} {epoch} {os.getsid(0)}\\n")
        while epoch == 3 and not Path(__file__).with_name(f"go-on-{os.getsid(0)}").exists():
            time.sleep(0.05)  # until each node trains; on the one that is killed until its worker has noticed this
        checkpoint.save(epoch, model=model)
        yield {"loss": config["lr"] / epoch}
"""
DRAIN = """
import sys, time, ray
address, node = sys.argv[1:]
ray.init(address, log_to_driver=False)
(id_,) = [one["NodeID"] for one in ray.nodes() if one["NodeManagerAddress"] == node]
gcs, deadline = ray._private.worker.global_worker.gcs_client, int((time.time() + 60) * 1000)
assert gcs.drain_node(id_, 2, "it will be switched off", deadline)[0]
"""
"""Two is the number of the reason: the machine is taken back."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} seconds"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        return int(stream.getsockname()[1])


def documented(beginning: str) -> list[str]:
    """Words of the command in the document that begins with this, up to its comment."""
    text = DOCUMENT.read_text().replace("\\\n", " ")
    (command,) = re.findall(rf"^    ({re.escape(beginning)}.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    return str(command).split()


@dataclass(frozen=True)
class TwoNodes:
    """A cluster whose nodes and their workers are two sessions of processes."""

    folder: Path
    address: str
    dashboard: str
    environment: dict[str, str]
    head: subprocess.Popen[bytes]
    second: subprocess.Popen[bytes]

    @property
    def hidden(self) -> Path:
        """A folder that the second node does not share."""
        return self.folder / "hidden"

    def here(self, words: list[str]) -> list[str]:
        """Words of a command of the document, with the paths and the address that are meant here."""
        meant = {
            "python": sys.executable,
            "/shared/tunesmith/.venv/bin/python": sys.executable,
            "/shared/tunesmith/search/run.py": str(PROJECT / "search" / "run.py"),
            "/shared/results": str(self.folder),
            "/shared/results/first": str(self.folder / "first"),
            "HEAD:6379": self.address,
        }
        return [meant.get(word, word) for word in words]

    def driver(self, documented: list[str], *options: str, **changes: str) -> subprocess.Popen[str]:
        """Start `search/run.py` as the document says; its trials note where they run.

        Its temporary folder is not shared with the second node.
        """
        _, script, *words = documented
        assert script == "search/run.py"
        changes = {"TMPDIR": str(self.hidden), "PYTHONPATH": f"{PROJECT}:{Path(__file__).parent}", **changes}
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, *self.here(words), *options],
            cwd=PROJECT,
            env=self.environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *documented: str) -> str:
        """Run a command of the document to its end, on the head, and in this folder; returns its output."""
        program, *words = self.here(list(documented))
        command = [*RAY, *words] if program == "ray" else [program, *words]
        dashboard = {"RAY_API_SERVER_ADDRESS": f"http://{self.dashboard}"}
        done = subprocess.run(
            command, cwd=PROJECT, env=self.environment | dashboard, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def third(self, *, hidden: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """In this context, another node with an address of its own is up, which is killed at the end."""
        _, *words, _ = documented("ray start --address HEAD:6379")
        address = ["--node-ip-address", THIRD]
        node = start_node(self.environment, self.folder, [*words, self.address], address, hidden=hidden)
        try:
            yield node
        finally:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()

    def announce_end_of_third(self) -> None:
        """Announce that the third node will be switched off, as a cloud does before it takes a cheap machine back."""
        subprocess.run(
            [sys.executable, "-c", DRAIN, self.address, THIRD], env=self.environment, capture_output=True, check=True
        )

    def takes_job(self, *documented: str) -> bool:
        """Submit a job; Ray asks to try again later until the agent of a node is up."""
        try:
            self.run(*documented)
        except AssertionError as error:
            if "please try again later" not in str(error):
                raise
            return False
        return True

    def notes(self) -> list[tuple[int, int, str]]:
        """Seed, session and code of each trial that was begun."""
        file = Path(self.environment[faulty.NOTES])
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(seed), int(session), code) for seed, session, code in (line.split(" ") for line in lines)]


def start_node(
    environment: dict[str, str], folder: Path, words: list[str], options: list[str], *, hidden: Path | None
) -> subprocess.Popen[bytes]:
    """Start a node by a command of the document, with options that have it share a machine with others."""
    agent = ["--dashboard-agent-listen-port", str(free_port())]  # its usual port may be that of another Ray here
    options = ["--block", "--num-cpus", "1", "--object-store-memory", "100000000", *agent, *options]
    command = [*RAY, *words, *options]
    if hidden and CAN_MOUNT:
        command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *command]
    with (folder / f"{words[1].strip('-')}.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    folder = Path(tempfile.mkdtemp(prefix="tc-", dir="/tmp"))  # Ray's socket paths must stay below 107 bytes
    server = S3Server() if is_installed() else None
    (folder / "hidden").mkdir()
    of_a_user = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    variables = [documented(f"export {name}=")[1].split("=") for name in ("RAY_AUTH_MODE", "RAY_JOB_STOP_WAIT_TIME_S")]
    environment = of_a_user | {
        **{name: value for name, value in variables},
        "HOME": str(folder),  # for the token
        "RAY_TMPDIR": str(folder),
        "RAY_health_check_period_ms": "500",  # a node is dead after five failed checks, by default every 3 seconds
        "PYTHONPATH": str(Path(__file__).parent),
        faulty.NOTES: str(folder / "notes"),
        "TMPDIR": str(folder / "hidden"),
        **(server.environment if server else {}),
    }
    _, *words = documented("ray get-auth-token --generate")
    subprocess.run([*RAY, *words], env=environment, capture_output=True, check=True)
    assert (folder / ".ray" / "auth_token").is_file()
    port, dashboard_port = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    _, *head_words, _ = documented("ray start --head --port 6379")
    _, *node_words, _ = documented("ray start --address HEAD:6379")
    ports = ["--ray-client-server-port", str(free_port()), "--dashboard-port", str(dashboard_port)]
    nodes = [start_node(environment, folder, [*head_words, str(port)], ports, hidden=None)]

    def cores(number: int) -> bool:
        _, *words = documented("ray status")
        command = [*RAY, *words, "--address", address]
        status = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return f"/{number}.0 CPU" in status.stdout

    def runs(node: str) -> bool:
        return "Ray runtime started." in (folder / f"{node}.log").read_text()

    try:
        wait_until(lambda: runs("head"), "the head is up")
        labels = ["--labels", "place=second,ours=yes"]
        nodes.append(start_node(environment, folder, [*node_words, address], labels, hidden=folder / "hidden"))
        wait_until(lambda: runs("address"), "the second node is up")
        wait_until(lambda: cores(2), "the second node has joined")
        yield TwoNodes(folder, address, f"127.0.0.1:{dashboard_port}", environment, *nodes)
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def epochs_recorded(study: Path, trial_number: int) -> int:
    """Epochs of a trial in the record, as another process sees them."""
    query = "SELECT count(*) FROM trial_user_attributes JOIN trials USING (trial_id) WHERE number = ? AND key LIKE ?"
    try:
        with closing(sqlite3.connect(f"file:{study / 'study.db'}?mode=ro", uri=True)) as database:
            return int(database.execute(query, (trial_number, "epoch %")).fetchone()[0])
    except sqlite3.OperationalError:  # not made yet, or being written
        return 0


def state(study: Path, trial_number: int) -> str:
    """The state of a trial in Optuna."""
    with closing(sqlite3.connect(f"file:{study / 'study.db'}?mode=ro", uri=True)) as database:
        return str(database.execute("SELECT state FROM trials WHERE number = ?", (trial_number,)).fetchone()[0])


def widths(study: Path) -> list[int]:
    """How many trials could run at the same time after each change."""
    query = "SELECT value_json FROM study_user_attributes WHERE key = 'widths'"
    try:
        with closing(sqlite3.connect(f"file:{study / 'study.db'}?mode=ro", uri=True)) as database:
            rows = database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
    return [change["max_concurrent_trials"] for row in rows for change in json.loads(row[0])]


def in_the_middle_on(node: subprocess.Popen[bytes], notes: list[tuple[int, int, str]], study: Path) -> bool:
    """Whether the trial that was begun last on a node has finished some of its epochs."""
    begun = [seed for seed, session, _ in notes if session == node.pid]
    return bool(begun) and 5 <= epochs_recorded(study, begun[-1]) <= EPOCHS - 10


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


@pytest.fixture(scope="module")
def refusals(two_nodes: TwoNodes) -> dict[str, str]:
    """What drivers print that are refused, by what is wrong with them; all are started at once."""
    (two_nodes.folder / "wrong").write_text(secrets.token_hex(32))
    *words, _ = documented("python search/run.py --address HEAD:6379")
    drivers = {
        token: two_nodes.driver(words, *TRIALS, "--name", "refused", RAY_AUTH_TOKEN_PATH=str(two_nodes.folder / token))
        for token in ("wrong", "missing")
    }
    needs = {"place": ["--node-label", "place=third"], "memory": ["--memory-per-trial", "999TB"]}
    drivers |= {
        needed: two_nodes.driver(words, *TRIALS, "--name", "refused", *options) for needed, options in needs.items()
    }
    if CAN_MOUNT:
        words = documented("python search/run.py --address auto --results-dir")[:4]
        results = two_nodes.hidden / "results"
        drivers["hidden"] = two_nodes.driver(words, *TRIALS, "--results-dir", str(results))
    return {wrong: refused(driver) for wrong, driver in drivers.items()}


@pytest.mark.skipif(not CAN_MOUNT, reason="only root can hide a folder from a node")
@pytest.mark.ray
def test_results_folder_that_a_node_does_not_share_is_refused(two_nodes: TwoNodes, refusals: dict[str, str]) -> None:
    assert re.fullmatch(
        r"error: node [\d.]+ of the cluster does not share the results folder with this machine "
        rf"\(No such file or directory\): {two_nodes.hidden}\n",
        refusals["hidden"],
    )
    assert not list(two_nodes.hidden.glob("*results*")) + list(two_nodes.hidden.glob(".tunesmith*"))


@pytest.mark.ray
def test_wrong_and_missing_tokens_are_refused_and_not_shown(two_nodes: TwoNodes, refusals: dict[str, str]) -> None:
    for token in ("wrong", "missing"):
        assert f"the Ray cluster at {two_nodes.address} requires its token" in refusals[token]
        assert (two_nodes.folder / "wrong").read_text() not in refusals[token]
    assert not (PROJECT / "results" / "refused").exists()


@pytest.mark.ray
def test_what_no_node_has_is_refused(refusals: dict[str, str]) -> None:
    assert refusals["place"] == "error: node_label is place=third, but no node of the cluster with a core has it\n"
    memory = r"error: memory_per_trial is 999TB, but the largest node of the cluster has [\d.]+ GB for trials\n"
    assert re.fullmatch(memory, refusals["memory"])


@pytest.mark.ray
def test_trials_run_only_on_nodes_with_the_label(two_nodes: TwoNodes) -> None:
    *words, _ = documented("python search/run.py --address HEAD:6379")
    before = len(two_nodes.notes())
    options = ["--num-samples", "3", "--epochs", "2", "--name", "labelled", "--memory-per-trial", "500MB"]
    where = ["--node-label", "place=second", "ours=yes", "--results-dir", str(two_nodes.folder)]
    driver = two_nodes.driver(words, *TRIALS[:2], *options, *where)
    output, errors = driver.communicate(timeout=100)
    assert driver.returncode == 0, output + errors
    assert "1 core on 1 node; 1 trial at a time, 1 core and 500MB each" in output
    assert [session for _, session, _ in two_nodes.notes()[before:]] == [two_nodes.second.pid] * 3


def test_cluster_that_does_not_answer_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"the Ray cluster at {address} does not answer within 1 seconds"):
            cluster.join(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ValueError, match="the Ray cluster of this machine does not answer within 1 seconds"):
            cluster.join("auto")


@pytest.mark.ray
@pytest.mark.cluster
def test_network_of_ones_own_is_searched_and_confirmed_on_all_nodes(two_nodes: TwoNodes) -> None:
    for kind, name in (("python", "my_network.py"), ("toml", "my_space.toml")):
        block, *_ = re.findall(rf"```{kind}\n(.*?)```", (PROJECT / "docs" / "guide.md").read_text(), re.DOTALL)
        (two_nodes.folder / name).write_text(block)
    study, network = two_nodes.folder / "own", ["--network", f"{two_nodes.folder}/my_network.py:build"]
    *words, number = documented("python search/run.py --address auto --results-dir")
    assert number == "100"
    options = ["--name", study.name, "--dataset", "digits", "--epochs", "3", *network]
    output = two_nodes.run(*words, "4", *options, "--space", f"{two_nodes.folder}/my_space.toml")
    assert "  cluster    2 cores on 2 nodes; 2 trials at a time, 1 core each\n" in output
    trials = pd.read_csv(study / "trials.csv")
    assert (len(trials), trials["filters"].isna().sum()) == (4, 0)
    confirm = ["search/confirm.py", str(study), "--top", "2", "--seeds", "2"]
    output = two_nodes.run("python", *confirm, "--address", "HEAD:6379", *network)
    assert "  cluster    2 cores on 2 nodes; 2 trials at a time, 1 core each\n" in output
    assert len(pd.read_csv(study / "confirm.csv")) == 2
    assert len(pd.read_csv(study / "confirm" / "trials.csv")) == 6  # four that choose, two that measure


@pytest.mark.ray
@pytest.mark.cluster
def test_study_that_is_submitted_as_a_job_follows_its_cluster_and_can_be_stopped_in_order(two_nodes: TwoNodes) -> None:
    study = two_nodes.folder / "first-job"
    *words, _ = documented("ray job submit")
    options = ["--dataset", "digits", "--epochs", "5000", "--scheduler", "none"]
    wait_until(lambda: two_nodes.takes_job(*words, study.name, *options), "the cluster takes the job")
    wait_until(lambda: epochs_recorded(study, 0) > 0, "the job's first trial trains")
    with two_nodes.third():
        wait_until(lambda: epochs_recorded(study, 2) > 0, "a trial trains on the node that has joined")
        two_nodes.announce_end_of_third()
        wait_until(lambda: widths(study) == [3, 2], "the node is not counted any more")
        wait_until(lambda: state(study, 2) == "WAITING", "its trial waits to go on")
    two_nodes.run(*documented("ray job stop"))
    output = two_nodes.run(*documented("ray job logs"))
    assert "Interrupted. To continue:" in output
    assert f"node {THIRD} has joined the cluster; 3 trials at a time from now on" in output
    assert f"node {THIRD} will be switched off: its trials go on elsewhere; 2 trials at" in output
    assert "worker" not in output.replace("dashboard", "")
    trials = pd.read_csv(study / "trials.csv")
    assert set(trials["status"]) == {"interrupted"}


@pytest.mark.ray
@pytest.mark.skipif(not CAN_MOUNT, reason="only root can hide a folder from a node")
@pytest.mark.skipif(not is_installed(), reason="moto, the S3 server, is not installed")
@pytest.mark.cluster
def test_trial_moves_to_a_node_that_shares_no_folder(two_nodes: TwoNodes) -> None:
    """Neither node sees the results or the temporary files of the others; one is killed while it trains."""
    results = two_nodes.hidden / "stored"
    code = {"train.py": STORED_FUNCTION, "space.toml": "[lr]\nlow = 0.01\nhigh = 0.1\n"}
    for name, text in code.items():
        (two_nodes.folder / name).write_text(text)
    *words, _ = documented("python search/run.py --address HEAD:6379")
    options = ["--train-function", f"{two_nodes.folder}/train.py:train", "--space", f"{two_nodes.folder}/space.toml"]
    options += ["--metric", "loss", "--scheduler", "none", "--num-samples", "3"]
    options += ["--results-dir", str(results), "--checkpoints-dir", f"s3://{BUCKET}/path", "--name", "moved"]
    with two_nodes.third(hidden=two_nodes.hidden) as node:
        wait_until(lambda: "Ray runtime started." in (two_nodes.folder / "address.log").read_text(), "node 3 is up")
        driver = two_nodes.driver(words, *options)
        begun = two_nodes.folder / "epochs"
        on_node = f" 3 {node.pid}\n"
        wait_until(lambda: begun.exists() and on_node in begun.read_text(), "a trial trains on node 3", seconds=120)
        os.killpg(node.pid, signal.SIGKILL)
        for other in (two_nodes.head, two_nodes.second):
            (two_nodes.folder / f"go-on-{other.pid}").touch()
        output, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, output + errors
    assert "the trial continues after epoch 2" in output, output
    study = results / "moved"
    epochs = pd.read_csv(study / "epochs.csv").sort_values(["trial_number", "epoch"])
    assert epochs["epoch"].tolist() == [*range(1, 9)] * 3
    assert len(begun.read_text().splitlines()) <= 3 * 8 + 1  # the running epoch is trained again, and none before it
    logs = [(study / "trials" / f"{number:04}" / "log.txt").read_text() for number in range(3)]
    assert sum(log.count("goes on after") for log in logs) == 1
    assert load_best(study).states["model"]


@pytest.mark.ray
def test_study_outlives_its_driver_and_a_node(two_nodes: TwoNodes) -> None:
    """The driver is killed, the study resumed, and the second node killed; each trial is run once, to its end."""
    study = two_nodes.folder / "first"
    options = ["--results-dir", str(study.parent), "--name", study.name]
    *at_the_head, _ = documented("python search/run.py --address HEAD:6379")
    driver = two_nodes.driver(at_the_head, *TRIALS, *options)
    wait_until(lambda: in_the_middle_on(two_nodes.second, two_nodes.notes(), study), "a trial trains on node 2")
    driver.kill()
    driver.communicate()

    begun = len(two_nodes.notes())
    resume = documented("python search/run.py --address auto --resume /shared/results/first")
    resumed = two_nodes.driver(resume, "--max-failures", "0")
    wait_until(lambda: in_the_middle_on(two_nodes.second, two_nodes.notes()[begun:], study), "a trial trains on node 2")
    os.killpg(two_nodes.second.pid, signal.SIGKILL)
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output + errors
    assert errors == ""
    assert "after the last epoch" in output
    assert "  cluster    2 cores on 2 nodes; 2 trials at a time, 1 core each\n" in output
    assert "worker lost: its node died or cannot be reached; the trial continues after epoch" in output
    check_every_trial_completed_once(study)
    nodes = {two_nodes.head.pid, two_nodes.second.pid}
    assert {session for _, session, _ in two_nodes.notes()[begun:]} == nodes
    _, session = json.loads((study / "study.json").read_text())["sessions"]
    assert session["cluster"] == {"nodes": 2, "cpus": 2, "gpus": 0}


@pytest.mark.ray
def test_code_travels_to_the_nodes(two_nodes: TwoNodes) -> None:
    """Workers load our code from what was sent to them, though an editable install lies at hand."""
    codes = {Path(code) for _, _, code in two_nodes.notes()}
    assert codes
    for code in codes:
        assert code.is_relative_to(two_nodes.folder / "ray")
        assert not code.is_relative_to(PROJECT)
