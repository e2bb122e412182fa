"""A cluster that grows and shrinks while a study runs; each node is a network namespace with an address of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import faulty
import pandas as pd
import pytest
from test_cluster import RAY, documented, wait_until, widths

from search.engine.width import Width
from training.config import PROJECT

EPOCHS = 15
TRIALS = 8
BATCH_SIZE = 64
STEPS = -(-1198 // BATCH_SIZE)
"""Optimizer steps for the training images of digits."""
DRIVER = (
    "import sys, faulty, test_growing_cluster as test; from search import run; from search.engine import tuner; "
    "tuner.trainable = faulty.notes_its_steps; test.let_fifth_node_answer_last(); sys.exit(run.main())"
)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def can_make_networks() -> bool:
    """Whether this user may make a network namespace."""
    makes_one = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return shutil.which("ip") is not None and makes_one.returncode == 0


pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.skipif(not can_make_networks(), reason="only root can make network namespaces, by iproute2"),
]


def let_fifth_node_answer_last() -> None:
    """Let the study hear that the fifth node cannot run trials only when all others run them."""
    answered = Width._answered

    def answered_in_order(width: Width) -> list[str]:
        fifth = Network.address(5)
        return [id_ for id_ in answered(width) if width._checks[id_][0].name != fifth or len(width._nodes) == 4]

    Width._answered = answered_in_order  # type: ignore[assignment, method-assign]


class Network:
    """Machines on one switch; each has a core, and shares the disk, but not the network, with the others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._prefix = f"ts-{os.getpid()}"
        self.switch = f"{self._prefix}-switch"
        self._machines: list[str] = [self.switch]
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")

    @staticmethod
    def address(number: int) -> str:
        return f"10.77.0.{number}"

    def add(self, number: int) -> None:
        """Connect a new machine to the switch."""
        machine, port = f"{self._prefix}-{number}", f"port{number}"
        ip("netns", "add", machine)
        self._machines.append(machine)
        ip("-n", machine, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.switch)
        ip("-n", machine, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        for place, name in ((machine, "lo"), (machine, "eth0"), (self.switch, port)):
            ip("-n", place, "link", "set", name, "up")
        ip("-n", self.switch, "link", "set", port, "master", "bridge")

    def cut_off(self, number: int) -> None:
        """Take the cable out of the switch."""
        ip("-n", self.switch, "link", "set", f"port{number}", "down")

    def start(self, number: int, command: list[str]) -> subprocess.Popen[str]:
        """Start a command on a machine; its temporary folder is there, and its output in a file."""
        own = self.folder / str(number)
        own.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
        name, value = documented("export RAY_AUTH_MODE=")[1].split("=")
        environment |= {
            name: value,
            "HOME": str(self.folder),  # for the token
            "RAY_TMPDIR": str(own),
            # a node without an answer is dead within seconds, by default within a minute
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_worker_niceness": "0",  # trials get their share of a busy machine
            "PYTHONPATH": f"{PROJECT}:{Path(__file__).parent}",
            faulty.NOTES: str(self.folder / "notes"),
        }
        with (own / "output").open("a") as output:
            return subprocess.Popen(
                ["ip", "netns", "exec", f"{self._prefix}-{number}", *command],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def start_node(self, number: int, *, hidden: Path | None = None) -> subprocess.Popen[str]:
        """Start Ray on a new machine as the document says; the first one is the head. `hidden` is empty there."""
        self.add(number)
        _, *words = documented("ray start --head --port" if number == 1 else "ray start --address HEAD:6379")
        words = [word.replace("HEAD", self.address(1)) for word in words if word != "#"]
        options = ["--block", "--num-cpus", "1", "--object-store-memory", "100000000"]
        options += ["--include-dashboard", "false"] if number == 1 else []  # it takes seconds to start
        options += ["--node-ip-address", self.address(number), "--temp-dir", str(self.folder / str(number))]
        command = [*RAY, *words, *options]
        if hidden:
            command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *command]
        return self.start(number, command)

    def output(self, number: int) -> str:
        return (self.folder / str(number) / "output").read_text()

    def close(self) -> None:
        """End all that runs on the machines, and remove them."""
        for machine in self._machines:
            for pid in ip("netns", "pids", machine).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for machine in self._machines:
            ip("netns", "delete", machine)


@pytest.fixture
def network() -> Iterator[Network]:
    folder = Path(tempfile.mkdtemp(prefix="tn-", dir="/tmp"))  # Ray's socket paths must stay below 107 bytes
    network = Network(folder)
    try:
        yield network
    finally:
        network.close()
        shutil.rmtree(folder, ignore_errors=True)


def notes(folder: Path) -> list[tuple[str, int, int]]:
    """Address of the node, seed and epoch of each optimizer step."""
    file = folder / "notes"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(node, int(seed), int(epoch)) for node, seed, epoch in (line.split() for line in lines)]


def test_study_uses_the_nodes_that_there_are(network: Network) -> None:
    """One node, then four, then two: one is disconnected, another one is asked to end. A fifth cannot run trials."""
    folder, study = network.folder, network.folder / "results" / "first"
    _, *words = documented("ray get-auth-token --generate")
    subprocess.run([*RAY, *words], env=os.environ | {"HOME": str(folder)}, capture_output=True, check=True)
    network.start_node(1)
    wait_until(lambda: "Ray runtime started." in network.output(1), "the head is up")
    options = ["--dataset", "digits", "--num-samples", str(TRIALS), "--epochs", str(EPOCHS), "--scheduler", "none"]
    options += ["--set", f"batch_size={BATCH_SIZE}"]
    place = ["--address", f"{network.address(1)}:6379", "--results-dir", str(study.parent), "--name", study.name]
    driver = network.start(1, [sys.executable, "-c", DRIVER, *place, *options])

    def trained_on(number: int) -> bool:
        return any(node == network.address(number) for node, *_ in notes(folder))

    wait_until(lambda: trained_on(1), "the first node trains")
    network.start_node(5, hidden=study.parent)
    nodes = {number: network.start_node(number) for number in (2, 3, 4)}
    for number in nodes:
        wait_until(lambda number=number: trained_on(number), f"node {number} trains", seconds=150)  # type: ignore[misc]
    wait_until(lambda: widths(study)[-1:] == [4], "the study counts on four nodes")
    refused = f"node {network.address(5)} of the cluster does not share the results folder"
    wait_until(lambda: refused in network.output(1), "the fifth node is refused")
    network.cut_off(4)
    nodes[3].send_signal(signal.SIGTERM)
    wait_until(lambda: widths(study)[-1:] == [2], "the study counts on two nodes")
    wait_until(lambda: nodes[3].poll() is not None, "the third node has ended")
    (folder / "hurry").touch()
    assert driver.wait(timeout=120) == 0, network.output(1)

    assert widths(study) == [2, 3, 4, 3, 2]
    for number in (2, 3, 4):
        assert f"node {network.address(number)} has joined the cluster;" in network.output(1)
    assert f"node {network.address(3)} will be switched off:" in network.output(1)
    assert f"node {network.address(4)} has left the cluster;" in network.output(1)
    assert not trained_on(5)
    assert "(raylet)" not in network.output(1)
    trials = pd.read_csv(study / "trials.csv")
    assert trials["status"].tolist() == ["completed"] * TRIALS
    epochs = pd.read_csv(study / "epochs.csv").groupby("trial_number")["epoch"].apply(list)
    assert epochs.tolist() == [[*range(1, EPOCHS + 1)]] * TRIALS
    taken = Counter((seed, epoch) for _, seed, epoch in notes(folder))
    assert taken.keys() == {(seed, epoch) for seed in range(TRIALS) for epoch in range(1, EPOCHS + 1)}
    again = {epoch for epoch, steps in taken.items() if steps > STEPS}
    lost = {(seed, epoch) for node, seed, epoch in notes(folder) if node == network.address(4)}
    assert len(again) <= 1, "more than the epoch in progress on the disconnected node was trained again"
    assert again <= lost, "a node that ended in order has lost something"
