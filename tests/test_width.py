"""How many trials run at the same time, in a cluster whose nodes come and go; without Ray."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from studies import SESSION, metadata

from search.algorithms.stopping import StudyStopper
from search.engine import width
from search.engine.cluster import Cluster, Node
from search.engine.concurrency import find_capacity, node_capacity
from search.engine.running_studies import RunningStudy
from search.engine.width import Width
from search.record.study_record import StudyRecord
from search.settings import StudySettings


def cluster_of(*nodes: Node) -> Cluster:
    return Cluster({node.name: node for node in nodes}, None)


MIXED = cluster_of(
    Node("without", 64, 0, 100_000.0, {"kind": "cpu"}),
    Node("small", 8, 1, 16_000.0, {"kind": "gpu"}),
    Node("large", 16, 4, 64_000.0, {"kind": "gpu", "rack": "b"}),
)


@pytest.mark.parametrize(
    ("options", "trials"),
    [
        ({}, 3),
        ({"gpus_per_trial": 1}, 1),
        ({"gpus_per_trial": 0.25}, 3),
        ({"gpus_per_trial": 0.8}, 1),
        ({"memory_per_trial": "4GB"}, 2),
    ],
)
def test_other_studies_of_the_machine_keep_what_they_have(options: dict[str, Any], trials: int) -> None:
    others = [RunningStudy("one", 4, 0.3, 4000.0), RunningStudy("another", 1, 0.2, 3000.0)]
    assert node_capacity(Node("this machine", 8, 2, 16_000.0), StudySettings(**options), others) == trials


@pytest.mark.parametrize(
    ("settings", "capacity"),
    [
        ({}, 64 + 8 + 16),
        ({"gpus_per_trial": 1}, 0 + 1 + 4),
        ({"gpus_per_trial": 0.5}, 0 + 2 + 8),
        ({"gpus_per_trial": 2}, 0 + 0 + 2),
        ({"gpus_per_trial": 1, "cpus_per_trial": 8}, 0 + 1 + 2),
        ({"memory_per_trial": "10GB"}, 10 + 1 + 6),
        ({"memory_per_trial": "20GB", "gpus_per_trial": 1}, 0 + 0 + 3),
        ({"gpus_per_trial": 1, "node_label": ("rack=b",)}, 4),
        ({"node_label": ("kind=gpu",)}, 8 + 16),
    ],
)
def test_only_nodes_that_have_what_a_trial_needs_are_counted(settings: dict[str, Any], capacity: int) -> None:
    chosen = StudySettings(dataset="digits", address="auto", **settings)
    assert find_capacity(chosen, MIXED.with_labels(chosen.node_labels), []) == capacity


def test_what_no_machine_has_is_refused_in_one_sentence() -> None:
    def refuse(joined: Cluster | None, **settings: Any) -> str:
        with pytest.raises(ValueError, match=r" has | node") as error:
            find_capacity(StudySettings(dataset="digits", address="auto", **settings), joined, [])
        return str(error.value)

    largest = "but the largest node of the cluster has"
    assert refuse(MIXED, memory_per_trial="101GB") == f"memory_per_trial is 101GB, {largest} 100.0 GB for trials"
    assert refuse(MIXED, gpus_per_trial=8).startswith("gpus_per_trial is 8, but Ray finds 4 GPUs on the largest node")
    assert refuse(MIXED, gpus_per_trial=1, memory_per_trial="80GB") == (
        "no node of the cluster has enough of everything for a trial: cpus_per_trial is 1, gpus_per_trial is 1, "
        "memory_per_trial is 80GB"
    )
    assert "memory_per_trial is 9TB, but this machine has" in refuse(None, memory_per_trial="9TB")
    with pytest.raises(ValueError, match="node_label is rack=c, but no node of the cluster with a core has it"):
        MIXED.with_labels({"rack": "c"})


class FakeCluster:
    """A cluster whose nodes have two cores each, and answer at once, apart from those that are silent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: Any) -> None:
        self.nodes = {"first": Node("10.0.0.1", 2, 0)}
        self.draining: set[str] = set()
        self.refuses: dict[str, str] = {}
        self.silent: set[str] = set()
        monkeypatch.setattr(width, "nodes_with_cores", lambda: dict(self.nodes))
        monkeypatch.setattr(width, "draining_nodes", lambda: set(self.draining))
        monkeypatch.setattr(width, "begin_check", lambda id_, _: id_)
        monkeypatch.setattr(width, "end_check", self._end_check)
        self.asked_for: list[tuple[int, int, float]] = []
        """Trials for which the autoscaler was asked for cores and GPUs, with those of each trial."""
        monkeypatch.setattr(width, "ask_for_nodes", lambda *trials: self.asked_for.append(trials))
        monkeypatch.setattr("ray.wait", self._wait)
        chosen = StudySettings(dataset="digits", num_samples=50, resume="no new one", **settings)
        known = metadata()
        record = StudyRecord.create(folder, known)
        record.update(settings=chosen, sessions=[SESSION])
        machines = SimpleNamespace(capacity=2, cluster=SimpleNamespace(nodes=dict(self.nodes)))
        study: Any = SimpleNamespace(record=record, settings=chosen, began=0.0, machines=machines)
        self.record, self.stopper = record, StudyStopper()
        self.width = Width(study, self.stopper)

    def _wait(self, results: list[str], **_: Any) -> tuple[list[str], list[str]]:
        return [node for node in results if node not in self.silent], [node for node in results if node in self.silent]

    def _end_check(self, result: str, node: Node, _: Path) -> None:
        if result in self.refuses:
            raise ValueError(f"node {node.name} of the cluster {self.refuses[result]}")

    def look(self) -> int:
        """Look at the nodes; returns how many trials can run at the same time."""
        self.width._next_look = 0.0
        self.width.follow_cluster()
        return self.stopper.max_concurrent


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    return FakeCluster(monkeypatch, tmp_path)


def test_width_follows_the_nodes(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.look() == 2
    cluster.nodes |= {"second": Node("10.0.0.2", 2, 0), "third": Node("10.0.0.3", 2, 0)}
    assert cluster.look() == 6
    del cluster.nodes["second"]
    assert cluster.look() == 4
    assert "node 10.0.0.2 has left the cluster; 4 trials at a time from now on" in capsys.readouterr().out
    changes = [(one.max_concurrent_trials, one.cpus) for one in cluster.record.metadata.widths]
    assert changes[-2:] == [(6, 6), (4, 4)]


def test_nodes_without_gpus_or_without_the_label_do_not_widen_a_study(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = FakeCluster(monkeypatch, tmp_path, gpus_per_trial=1, node_label=("kind=gpu",), address="auto")
    cluster.nodes["first"] = cluster.width._nodes["first"] = Node("10.0.0.1", 2, 2, labels={"kind": "gpu"})
    assert cluster.look() == 2
    cluster.nodes["second"] = Node("10.0.0.2", 32, 0, labels={"kind": "gpu"})
    assert cluster.look() == 2
    cluster.nodes["third"] = Node("10.0.0.3", 32, 8, labels={"kind": "other"})
    assert cluster.look() == 2
    cluster.nodes["fourth"] = Node("10.0.0.4", 32, 8, labels={"kind": "gpu"})
    assert cluster.look() == 10


def test_trials_leave_a_node_that_will_be_switched_off(cluster: FakeCluster) -> None:
    cluster.nodes["second"] = Node("10.0.0.2", 2, 0)
    assert cluster.look() == 4
    cluster.draining = {"second"}
    assert cluster.look() == 2
    assert [cluster.stopper.lets_wait(f"trial on {node}", node) for node in ("first", "second")] == [False, True]
    assert cluster.stopper.interrupts("trial on second")
    del cluster.nodes["second"]
    assert cluster.look() == 2
    assert cluster.stopper.nodes_avoided == {"second"}  # a worker that may go on where it is needs no other one
    cluster.nodes["third"] = Node("10.0.0.2", 2, 0)  # a new machine with the same address
    assert cluster.look() == 4
    assert not cluster.stopper.lets_wait("trial on third", "third")
    cluster.draining = {"third"}
    assert cluster.look() == 2
    assert cluster.stopper.nodes_avoided == {"third"}


def test_node_that_cannot_run_trials_is_named_once_and_not_counted(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.nodes["second"] = Node("10.0.0.2", 2, 0)
    cluster.refuses["second"] = "has torch 1.0"
    assert [cluster.look(), cluster.look()] == [2, 2]
    printed = capsys.readouterr().out
    assert printed.count("node 10.0.0.2 of the cluster has torch 1.0; no trial runs there") == 1
    assert [cluster.stopper.lets_wait(f"trial on {node}", node) for node in ("first", "second")] == [False, True]
    assert [cluster.width.trusts(node) for node in ("first", "second", "not checked yet")] == [True, False, False]
    assert not list(cluster.record.folder.glob(".tunesmith-*"))


def test_no_trial_begins_on_a_node_before_it_is_checked(cluster: FakeCluster) -> None:
    cluster.nodes |= {"second": Node("10.0.0.2", 2, 0), "third": Node("10.0.0.3", 2, 0)}
    cluster.silent = {"second"}
    assert cluster.look() == 4
    assert cluster.stopper.nodes_avoided == {"second"}
    cluster.silent = set()
    assert cluster.look() == 6
    assert not cluster.stopper.nodes_avoided


def test_users_limit_is_a_ceiling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = FakeCluster(monkeypatch, tmp_path, max_concurrent=3)
    widths = [cluster.look()]
    for number in (2, 3, 4):
        cluster.nodes[f"node {number}"] = Node(f"10.0.0.{number}", 2, 0)
        widths.append(cluster.look())
    del cluster.nodes["node 2"], cluster.nodes["node 3"], cluster.nodes["node 4"]
    assert [*widths, cluster.look()] == [2, 3, 3, 3, 2]


def test_autoscaler_is_asked_for_as_many_trials_as_could_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = FakeCluster(monkeypatch, tmp_path, cpus_per_trial=2, gpus_per_trial=0.5)
    for _ in range(2):
        cluster.look()
    assert cluster.asked_for == [(50, 2, 0.5)]  # all trials of the study, once
    cluster.record.update(settings=replace(cluster.record.metadata.settings, max_concurrent=3))
    cluster.look()
    cluster.stopper.is_paused = True
    cluster.look()
    cluster.width.close()
    assert cluster.asked_for[1:] == [(3, 2, 0.5), (0, 2, 0.5)]


def test_no_running_trial_is_held_back_because_a_node_has_left(cluster: FakeCluster) -> None:
    cluster.record.running_ids = lambda: ["a", "b", "c"]  # type: ignore[method-assign]
    cluster.nodes = {"second": Node("10.0.0.2", 1, 0)}
    assert cluster.look() == 1
    assert not cluster.stopper.held_back  # Ray will say which of them were there
