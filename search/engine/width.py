"""Decides how many trials of a study run at the same time, and follows a cluster that grows and shrinks."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray

from search.algorithms.stopping import StudyStopper
from search.engine.cluster import (
    NODE_SECONDS,
    Node,
    SharedPlace,
    ask_for_nodes,
    begin_check,
    draining_nodes,
    end_check,
    nodes_with_cores,
)
from search.engine.concurrency import max_concurrent_trials, node_capacity
from search.engine.study import Study
from search.record.provenance import WidthChange
from training.console.terminal import counted, show_event

SECONDS_BETWEEN_LOOKS = 2.0
"""How often the nodes of a cluster are looked at."""
MOST_NODES = 1000
"""No autoscaler is asked for cores of more trials at a time."""


class Width:
    """How many trials of a study may run at the same time: what its settings and its machines allow.

    A node that joins the cluster of the study is checked, and then runs trials. If Ray announces that a node will be
    switched off, its trials end with their epoch, or before, and go on elsewhere, and no other trial begins there.
    """

    def __init__(self, study: Study, stopper: StudyStopper) -> None:
        """Set the width of a study that begins to run.

        Args:
            study: The study.
            stopper: Gets the width.
        """
        self._study = study
        self._stopper = stopper
        self._nodes = dict(study.machines.cluster.nodes) if study.machines.cluster else {}
        self._refused: set[str] = set()
        """Ray's ids of the nodes that cannot run trials of this study."""
        self._checks: dict[str, tuple[Node, Any, SharedPlace]] = {}
        """The nodes that have joined and have not answered yet, by Ray's id."""
        self._late = 0.0
        """When those nodes must have answered, by `time.monotonic`."""
        self._draining: set[str] = set()
        self._asked_for = 0
        """For how many trials the autoscaler of the cluster was asked for cores."""
        self._next_look = 0.0
        self.capacity = study.machines.capacity
        """For how many trials there are cores, GPUs and memory."""
        session = study.record.metadata.sessions[-1]
        self._cpus = session.cpus
        self._recorded = session.max_concurrent_trials, self.capacity, self._cpus
        self.set()

    def set(self) -> None:
        """Allow what the settings of the study and the machines allow now.

        If the settings allow fewer trials than run, those that began last end with their epoch.
        """
        record, settings = self._study.record, self._study.record.metadata.settings
        self._stopper.max_concurrent = max_concurrent_trials(settings, self.capacity)
        running = record.running_ids()
        self._stopper.held_back = set(running[settings.max_concurrent :]) if settings.max_concurrent else set()
        width = 0 if self._stopper.is_paused else self._stopper.max_concurrent
        if self._recorded != (width, self.capacity, self._cpus):
            self._recorded = width, self.capacity, self._cpus
            change = WidthChange(
                session=len(record.metadata.sessions) - 1,
                seconds=round(time.monotonic() - self._study.began, 3),
                max_concurrent_trials=width,
                capacity=self.capacity,
                cpus=self._cpus,
            )
            record.update(widths=[*record.metadata.widths, change])

    def follow_cluster(self, *, at_once: bool = False) -> None:
        """Look for nodes that have joined or left, or will be switched off.

        Args:
            at_once: Whether to look also if that was done a moment ago.
        """
        if self._study.machines.cluster is None or (time.monotonic() < self._next_look and not at_once):
            return
        self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        labels, draining = self._study.settings.node_labels, draining_nodes()
        alive = {id_: node for id_, node in nodes_with_cores().items() if node.has(labels)}
        for id_ in self._nodes.keys() - alive.keys():
            self._tell(self._nodes.pop(id_), "has left the cluster")
        for id_ in draining & self._nodes.keys():
            node = self._nodes.pop(id_)
            self._draining.add(id_)
            self._tell(node, "will be switched off: its trials go on elsewhere")
        for id_ in alive.keys() - self._nodes.keys() - self._checks.keys() - self._refused - self._draining:
            try:
                shared = SharedPlace(self._study.record.folder, self._study.record.metadata.settings.checkpoints_dir)
            except ValueError:  # the store does not answer; the trials say so, and the next look tries it again
                break
            self._checks[id_] = alive[id_], begin_check(id_, shared), shared
            self._late = self._next_look + NODE_SECONDS
        for id_ in self._answered():
            self._end_check(id_)
        self._avoid_nodes(alive)
        self._ask_for_nodes(self._work())

    def trusts(self, node: str) -> bool:
        """Whether what fails on the node with this id would fail on others, too."""
        return self._study.machines.cluster is None or node in self._nodes

    def close(self) -> None:
        """Need no more nodes."""
        self._ask_for_nodes(0)

    def _work(self) -> int:
        """How many trials could run at the same time if there were enough machines."""
        record, settings = self._study.record, self._study.record.metadata.settings
        if self._stopper.is_paused or self._stopper.starts_no_trial():
            return len(record.running_ids())
        left = record.num_samples - record.standings.num_ended
        return max(0, min(left, settings.max_concurrent or left, MOST_NODES))

    def _ask_for_nodes(self, trials: int) -> None:
        if trials != self._asked_for:
            self._asked_for, settings = trials, self._study.settings
            ask_for_nodes(trials, settings.cpus_per_trial, settings.gpus_per_trial)

    def _answered(self) -> list[str]:
        """Ray's ids of the nodes that have joined and have answered."""
        results = {result: id_ for id_, (_, result, _) in self._checks.items()}
        if not results:
            return []
        finished, late = ray.wait([*results], num_returns=len(results), timeout=0)
        if time.monotonic() > self._late:
            finished = [*finished, *late]
        return [results[result] for result in finished]

    def _end_check(self, id_: str) -> None:
        node, result, shared = self._checks.pop(id_)
        try:
            end_check(result, node, shared)
        except ValueError as error:
            self._refused.add(id_)
            show_event(f"{error}; no trial runs there")
        else:
            self._nodes[id_] = node
            self._tell(node, "has joined the cluster")
        finally:
            with suppress(OSError):
                shared.remove()

    def _avoid_nodes(self, alive: Mapping[str, Node]) -> None:
        """Let trials begin only on nodes that can run them, and change nothing for nodes that are gone.

        Each change costs trials the workers of those before them.
        """
        avoided = alive.keys() - self._nodes.keys()
        if avoided != self._stopper.nodes_avoided & alive.keys():
            self._stopper.nodes_avoided = avoided

    def _tell(self, node: Node, what: str) -> None:
        settings = self._study.settings
        self.capacity = max(1, sum(node_capacity(one, settings) for one in self._nodes.values()))
        self._cpus = sum(one.cpus for one in self._nodes.values())
        self.set()
        trials = counted(self._stopper.max_concurrent, "trial")
        show_event(f"node {node.name} {what}; {trials} at a time from now on")
