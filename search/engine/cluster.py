"""A Ray cluster that a study joins: it answers, lets us in, and every node is fit to run trials."""

import re
import socket
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.engine import local_ray
from search.ray_environment import set_ray_environment
from search.record import provenance
from search.record.provenance import ClusterSize
from training.config import PROJECT

CONNECT_SECONDS = 5
ANSWER_SECONDS = 20
"""How long a cluster may take to say that it is one."""
NODE_SECONDS = 120
"""How long all nodes together may take to load the code and look at the results folder."""
_DECISIVE_PACKAGES = ("python", "torch", "ray", "numpy")
"""What the numbers of a trial depend on: the same version on every node."""


@dataclass(frozen=True)
class Node:
    """What a machine has to give to trials."""

    name: str
    cpus: int
    gpus: int


def this_machine() -> Node:
    """The machine of this process, as far as this process may use it."""
    return Node("this machine", provenance.available_cpus(), torch.cuda.device_count())


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process has joined."""

    nodes: dict[str, Node]
    """By Ray's id; only those with cores to give, as they were when the study started."""
    dashboard_url: str | None

    def leave(self) -> None:
        """Disconnect; the cluster runs on."""
        ray.shutdown()

    def size(self) -> ClusterSize:
        """What all nodes together have to give to trials."""
        nodes = self.nodes.values()
        return ClusterSize(
            nodes=len(nodes), cpus=sum(node.cpus for node in nodes), gpus=sum(node.gpus for node in nodes)
        )

    def check(self, folder: Path) -> None:
        """Refuse a cluster with a node that could not run trials as this machine would.

        Args:
            folder: Where checkpoints are to go, or the first folder above it that exists; nothing is left behind there.

        Raises:
            ValueError: A node does not see this folder, has other versions or cannot load our code; it is named.
        """
        with TemporaryDirectory(prefix=".tunesmith-", dir=folder) as shared:
            asked = {
                ray.remote(_try_out)
                .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(id_, soft=False))
                .remote(shared): node
                for id_, node in self.nodes.items()
            }
            answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
            for answer, node in asked.items():
                if answer not in answered:
                    raise ValueError(f"node {node.name} of the cluster has not answered within {NODE_SECONDS} seconds")
                _check_answer(answer, node, folder)


def join(address: str) -> Cluster:
    """Connect to a cluster that runs already, and send it this project's code.

    Args:
        address: `auto` for the cluster of this machine, otherwise `host:port` of its head.

    Raises:
        ValueError: There is no cluster, or it does not let us in; the message says which.
    """
    local_ray.use_known_token()
    set_ray_environment()
    where = "of this machine" if address == "auto" else f"at {address}"
    _ask(address, where)
    packages = [str(PROJECT / name) for name in ("search", "training")]
    try:
        # Workers import from the driver's current folder first, which may hold an older copy of our code on some node
        with TemporaryDirectory() as nowhere, chdir(nowhere):
            context = ray.init(address=address, runtime_env={"py_modules": packages}, **local_ray.QUIET)
    except ConnectionError:  # it did answer; Ray looks for a minute for processes of a node of it
        raise ValueError(f"the Ray cluster {where} cannot be joined: this machine is not one of its nodes") from None
    except Exception as error:  # whatever Ray raises
        raise ValueError(f"the Ray cluster {where} cannot be joined: {error}") from None
    found = {node["NodeID"]: _node(node) for node in ray.nodes() if node["Alive"]}
    nodes = {id_: node for id_, node in found.items() if node.cpus >= 1}
    if not nodes:
        raise ValueError(f"no node of the Ray cluster {where} has a core for trials")
    return Cluster(nodes, context.dashboard_url or None)


def _ask(address: str, where: str) -> None:
    """Have another process ask the cluster how it is: Ray itself waits for minutes, and aborts without a token."""
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
        asked = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"the Ray cluster {where} does not answer within {ANSWER_SECONDS} seconds") from None
    if asked.returncode == 0:
        return
    if re.search("InvalidAuthToken|RAY_AUTH_TOKEN|authentication token", asked.stderr):
        raise ValueError(
            f"the Ray cluster {where} asks for its token, and here is none or another one: RAY_AUTH_TOKEN_PATH or "
            "~/.ray/auth_token must be the token file of its head"
        )
    raise ValueError(f"the Ray cluster {where} cannot be joined: {_last_line(asked.stderr)}")


def _node(node: dict[str, Any]) -> Node:
    resources = node["Resources"]
    return Node(node["NodeManagerAddress"], int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _try_out(folder: str) -> tuple[dict[str, str], str | None]:
    """What is installed on a node, and why it cannot write into a folder, if it cannot."""
    import search.engine.trainable  # noqa: F401 (what trials need)

    try:
        (Path(folder) / ray.get_runtime_context().get_node_id()).touch()
    except OSError as error:
        return provenance.versions(), error.strerror
    return provenance.versions(), None


def _check_answer(answer: Any, node: Node, folder: Path) -> None:
    try:
        there, warning = ray.get(answer)
    except Exception as error:  # whatever keeps a node from running our code
        raise ValueError(f"node {node.name} of the cluster cannot run trials: {_last_line(str(error))}") from None
    if warning:
        raise ValueError(
            f"node {node.name} of the cluster does not share the results folder with this machine ({warning}): {folder}"
        )
    here = provenance.versions()
    for package in _DECISIVE_PACKAGES:
        if there[package] != here[package]:
            raise ValueError(
                f"node {node.name} of the cluster has {package} {there[package]}, this machine {here[package]}, "
                "so the trials would not be comparable"
            )


def _last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[::-1]), "no word from Ray")
