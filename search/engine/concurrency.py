"""Finds the machines of a study, and computes how many trials run on them at the same time."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.engine import cluster
from search.engine.cluster import Cluster, Node, this_machine
from search.engine.running_studies import RunningStudy, find_running_studies
from search.settings import StudySettings
from training.console.terminal import counted


@dataclass(frozen=True)
class Machines:
    """What runs the trials of a study."""

    cluster: Cluster | None
    """None if this machine runs them."""
    running_studies: list[RunningStudy]
    """Other studies that run on this machine; empty on a cluster."""
    capacity: int
    """For how many trials there are cores, GPUs and memory."""
    max_concurrent_trials: int
    """How many trials run at the same time."""

    @property
    def largest_memory_mb(self) -> float:
        """The memory of the largest machine."""
        nodes = [*self.cluster.nodes.values()] if self.cluster else [this_machine()]
        return max(node.memory_mb for node in nodes)


def find_machines(settings: StudySettings) -> Machines:
    """Join the cluster that the settings name, or find what is free on this machine.

    Raises:
        ValueError: There is no such cluster, or a trial needs more than a machine has.
    """
    joined = cluster.join(settings.address).with_labels(settings.node_labels) if settings.address else None
    running_studies = [] if joined else find_running_studies()
    capacity = find_capacity(settings, joined, running_studies)
    return Machines(joined, running_studies, capacity, max_concurrent_trials(settings, capacity))


def max_concurrent_trials(settings: StudySettings, capacity: int) -> int:
    """How many trials run at the same time: those that the settings allow and the free cores and GPUs fit.

    `capacity` is what `find_capacity` has found.
    """
    return min(capacity, settings.num_samples, settings.max_concurrent or capacity)


def find_capacity(settings: StudySettings, joined: Cluster | None, running_studies: list[RunningStudy]) -> int:
    """Find for how many trials there are cores, GPUs and memory; at least one. What other studies take does not count.

    Raises:
        ValueError: A trial needs more cores, GPUs or memory than a machine has.
    """
    if joined:
        nodes, machine, library = [*joined.nodes.values()], "the largest node of the cluster", "Ray"
    else:
        nodes, machine, library = [this_machine()], "this machine", "torch"
    cpus, gpus = max(node.cpus for node in nodes), max(node.gpus for node in nodes)
    if settings.cpus_per_trial > cpus:
        raise ValueError(f"cpus_per_trial is {settings.cpus_per_trial}, but {machine} has {counted(cpus, 'core')}")
    if settings.gpus_per_trial > gpus:
        raise ValueError(
            f"gpus_per_trial is {settings.gpus_per_trial:g}, but {library} finds {counted(gpus, 'GPU')} on {machine}"
        )
    memory, needed = max(node.memory_mb for node in nodes), settings.memory_per_trial_mb or 0.0
    if needed > memory:
        raise ValueError(
            f"memory_per_trial is {settings.memory_per_trial}, but {machine} has {memory / 1000:.1f} GB for trials"
        )
    capacity = sum(node_capacity(node, settings, running_studies) for node in nodes)
    if joined and capacity == 0:
        raise ValueError(
            f"no node of the cluster has enough of everything for a trial: cpus_per_trial is "
            f"{settings.cpus_per_trial}, gpus_per_trial is {settings.gpus_per_trial:g}, memory_per_trial is "
            f"{settings.memory_per_trial or 'not set'}"
        )
    return max(1, capacity)


def node_capacity(node: Node, settings: StudySettings, others: Sequence[RunningStudy] = ()) -> int:
    """For how many trials a machine has cores, GPUs and memory beside other studies."""
    capacity = (node.cpus - sum(other.cpus for other in others)) // settings.cpus_per_trial
    if settings.memory_per_trial_mb is not None:
        memory = node.memory_mb - sum(other.memory_mb for other in others)
        capacity = int(min(capacity, memory // settings.memory_per_trial_mb))
    gpus = round(node.gpus - sum(other.gpus for other in others), 6)
    if settings.gpus_per_trial >= 1:
        return min(capacity, int(gpus // settings.gpus_per_trial))
    if settings.gpus_per_trial > 0:  # a fraction does not span two GPUs
        whole, part = divmod(gpus, 1)
        return min(capacity, int(whole) * int(1 / settings.gpus_per_trial) + int(part / settings.gpus_per_trial))
    return capacity
