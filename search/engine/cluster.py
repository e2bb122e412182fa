"""Joins a Ray cluster, and checks that every node can run the trials of a study."""

import math
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import ray
import torch
from ray.autoscaler.sdk import request_resources
from ray.exceptions import GetTimeoutError, RpcError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.engine import local_ray
from search.engine.local_ray import StudyJobConfig
from search.ray_environment import set_ray_environment
from search.record import provenance
from search.record.checkpoint_store import CHECKS, CheckpointStore, StoreError
from search.record.provenance import ClusterSize
from training.config import PROJECT

CONNECT_SECONDS = 5
ANSWER_SECONDS = 20
"""Seconds in which a cluster must answer `ray status`."""
NODE_SECONDS = 120
"""Seconds in which all nodes must have loaded the code and checked the results folder."""
_DECISIVE_PACKAGES = ("python", "torch", "ray", "numpy")
"""Packages that change the metrics of a trial; each node must have the same versions."""


@dataclass(frozen=True)
class Node:
    """A machine that runs trials, with its cores, GPUs and memory."""

    name: str
    cpus: int
    gpus: int
    memory_mb: float = math.inf
    """Megabytes for trials."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those of Ray."""

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether it has all these labels."""
        return labels.items() <= self.labels.items()


def this_machine() -> Node:
    """Describe the cores, the GPUs and the memory of this machine that this process may use."""
    cpus, gpus = provenance.available_cpus(), torch.cuda.device_count()
    return Node("this machine", cpus, gpus, local_ray.machine_memory() / 1e6)


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process has joined."""

    nodes: dict[str, Node]
    """Nodes that had cores when the study started, by Ray's id."""
    dashboard_url: str | None

    def leave(self) -> None:
        """Disconnect from the cluster, which keeps running."""
        ray.shutdown()

    def with_labels(self, labels: Mapping[str, str]) -> "Cluster":
        """The cluster without the nodes that lack one of these labels.

        Raises:
            ValueError: No node has them.
        """
        nodes = {id_: node for id_, node in self.nodes.items() if node.has(labels)}
        if not nodes:
            wanted = " ".join(f"{key}={value}" for key, value in labels.items())
            raise ValueError(f"node_label is {wanted}, but no node of the cluster with a core has it")
        return replace(self, nodes=nodes)

    def size(self) -> ClusterSize:
        """Count the nodes, and sum up their cores and GPUs."""
        nodes = self.nodes.values()
        return ClusterSize(
            nodes=len(nodes), cpus=sum(node.cpus for node in nodes), gpus=sum(node.gpus for node in nodes)
        )

    def check(self, folder: Path, store: str | None) -> None:
        """Refuse a cluster with a node that cannot run trials in the same way as this machine.

        Args:
            folder: The results folder, or the first folder above it that exists; a test file is written and removed.
            store: Address of the store that nodes must be able to use instead; None if they must share the folder.

        Raises:
            ValueError: A node does not share this folder, has other versions or cannot load the code; it is named.
        """
        with SharedPlace(folder, store) as shared:
            nodes = {begin_check(id_, shared): node for id_, node in self.nodes.items()}
            ray.wait(list(nodes), num_returns=len(nodes), timeout=NODE_SECONDS)
            for result, node in nodes.items():
                end_check(result, node, shared)


class SharedPlace:
    """A place that every node must be able to write: a new folder in the results folder, or one in a store."""

    def __init__(self, folder: Path, store: str | None) -> None:
        """Make the place.

        Args:
            folder: The results folder, or one above or below it.
            store: Address of the store that takes its place; None if there is none.

        Raises:
            ValueError: The store cannot be used.
        """
        self._results = folder
        self._folder = None if store else TemporaryDirectory(prefix=".tunesmith-", dir=folder)
        self._store = CheckpointStore(store, CHECKS) if store else None
        if self._store:
            try:
                self._check = self._store.begin_check()
            except StoreError as error:
                raise ValueError(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def name(self) -> str | tuple[CheckpointStore, str]:
        """What a node gets."""
        return (self._store, self._check) if self._store else str(self._folder and self._folder.name)

    def describe(self, error: str) -> str:
        """What a node cannot do that has met an error, as the end of a sentence."""
        if self._store:
            return f"cannot use the store of the checkpoints ({error})"
        return f"does not share the results folder with this machine ({error}): {self._results}"

    def remove(self) -> None:
        """Remove what this machine and the nodes have written there."""
        if self._folder:
            self._folder.cleanup()
        if self._store:
            self._store.end_check(self._check)


def join(address: str) -> Cluster:
    """Connect to a cluster that runs already, and send it this project's code.

    Args:
        address: `auto` for the cluster of this machine, otherwise `host:port` of its head.

    Raises:
        ValueError: There is no cluster, or it refuses this process; the message says which.
    """
    local_ray.use_known_token()
    set_ray_environment()
    where = "of this machine" if address == "auto" else f"at {address}"
    _check_answers(address, where)
    packages = [str(PROJECT / name) for name in ("search", "training")]
    try:
        context = ray.init(
            address=address,
            runtime_env={"py_modules": packages},
            job_config=StudyJobConfig(None),
            **local_ray.QUIET,
        )
    except ConnectionError:  # it did answer, but Ray found no process of a node for a minute
        raise ValueError(f"the Ray cluster {where} cannot be joined: this machine is not one of its nodes") from None
    except Exception as error:  # whatever Ray raises
        raise ValueError(f"the Ray cluster {where} cannot be joined: {error}") from None
    ray._private.worker._worker_logs_enabled = False  # or Ray prints that a node does not answer, which the study says
    nodes = nodes_with_cores()
    if not nodes:
        raise ValueError(f"no node of the Ray cluster {where} has a core for trials")
    return Cluster(nodes, context.dashboard_url or None)


def _check_answers(address: str, where: str) -> None:
    """Let another process call `ray status`, because `ray.init` waits for minutes and aborts without a token."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise ValueError(
                f"nothing answers at address {address}: {getattr(error, 'strerror', None) or error}"
            ) from None
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        status = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"the Ray cluster {where} does not answer within {ANSWER_SECONDS} seconds") from None
    if status.returncode == 0:
        return
    if re.search("InvalidAuthToken|RAY_AUTH_TOKEN|authentication token", status.stderr):
        raise ValueError(
            f"the Ray cluster {where} requires its token, but this machine has no token or another one: "
            "copy the token file of the head node to ~/.ray/auth_token, or name it in RAY_AUTH_TOKEN_PATH"
        )
    raise ValueError(f"the Ray cluster {where} cannot be joined: {_last_line(status.stderr)}")


def nodes_with_cores() -> dict[str, Node]:
    """The nodes of the joined cluster that are up and can run trials, by Ray's id."""
    alive = {node["NodeID"]: _node(node) for node in ray.nodes() if node["Alive"]}
    return {id_: node for id_, node in alive.items() if node.cpus >= 1}


def draining_nodes() -> set[str]:
    """Ray's ids of the nodes of which it is announced that they will be switched off."""
    return set(ray._private.state.state.get_draining_nodes())


def this_node_drains() -> bool:
    """Whether it is announced that the machine of this worker will be switched off."""
    return ray.get_runtime_context().get_node_id() in draining_nodes()


def ask_for_nodes(trials: int, cpus_per_trial: int, gpus_per_trial: float) -> None:
    """Tell the autoscaler of the cluster, where there is one, for how many trials at a time there is work.

    Without this it would add no node: no trial waits for a core, because the study begins no more than have one. Ray
    keeps the newest number of any process until there is another one.
    """
    resources = {"CPU": cpus_per_trial, "GPU": gpus_per_trial}
    bundle = {name: number for name, number in resources.items() if number}
    with suppress(RpcError):  # the cluster may be gone; then this is noticed elsewhere
        request_resources(bundles=[bundle] * trials)


def begin_check(node_id: str, shared: SharedPlace) -> Any:
    """Let a node say whether it can run trials; `end_check` reads the answer.

    Args:
        node_id: Ray's id of the node.
        shared: Where the node must be able to write.
    """
    place = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(_test_node).options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(shared.name)


def _node(node: dict[str, Any]) -> Node:
    resources = node["Resources"]
    return Node(
        node["NodeManagerAddress"],
        int(resources.get("CPU", 0)),
        int(resources.get("GPU", 0)),
        resources.get("memory", 0.0) / 1e6,
        node.get("Labels") or {},
    )


def _test_node(place: str | tuple[CheckpointStore, str]) -> tuple[dict[str, str], str | None]:
    """Return the versions of a node, and the error if it cannot write to a place; a worker on the node runs this."""
    import search.engine.trainable  # noqa: F401 (trials import it)

    node_id = ray.get_runtime_context().get_node_id()
    try:
        if isinstance(place, str):
            (Path(place) / node_id).touch()
        else:
            store, name = place
            store.check(name, node_id)
    except OSError as error:
        return provenance.versions(), error.strerror or str(error)
    return provenance.versions(), None


def end_check(result: Any, node: Node, shared: SharedPlace) -> None:
    """Raise a ValueError that says why a node cannot run trials, for example because it has not answered in time.

    `shared` is where it must be able to write.
    """
    try:
        node_versions, write_error = ray.get(result, timeout=1)
    except GetTimeoutError:
        raise ValueError(f"node {node.name} of the cluster has not answered within {NODE_SECONDS} seconds") from None
    except Exception as error:  # any error means that the node cannot run our code
        raise ValueError(f"node {node.name} of the cluster cannot run trials: {_last_line(str(error))}") from None
    if write_error:
        raise ValueError(f"node {node.name} of the cluster {shared.describe(write_error)}")
    versions = provenance.versions()
    for package in _DECISIVE_PACKAGES:
        if node_versions[package] != versions[package]:
            raise ValueError(
                f"node {node.name} of the cluster has {package} {node_versions[package]}, but this machine has "
                f"{versions[package]}, so the trials would not be comparable"
            )


def _last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[::-1]), "Ray gave no reason")
