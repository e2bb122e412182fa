"""How many trials run at the same time."""

from search.engine.cluster import Cluster, Node, this_machine
from search.engine.running_studies import RunningStudy
from search.settings import StudySettings


def max_concurrent_trials(settings: StudySettings, joined: Cluster | None, running_studies: list[RunningStudy]) -> int:
    """Trials that can run at the same time, as many as asked for or as many as fit beside other studies.

    Raises:
        ValueError: A trial asks for more than there is.
    """
    if joined:
        nodes, place, finder, taken = list(joined.nodes.values()), "the largest node of the cluster", "Ray", 0
    else:
        nodes = [this_machine()]
        place, finder, taken = "this machine", "torch", sum(neighbour.cpus for neighbour in running_studies)
    cpus, gpus = max(node.cpus for node in nodes), max(node.gpus for node in nodes)
    if settings.cpus_per_trial > cpus:
        raise ValueError(f"cpus_per_trial is {settings.cpus_per_trial}, but {place} has {cpus}")
    if settings.gpus_per_trial > gpus:
        raise ValueError(f"gpus_per_trial is {settings.gpus_per_trial:g}, but {finder} finds {gpus} on {place}")
    room = sum(_room_on(node, settings, taken) for node in nodes)
    if joined and room == 0:
        wanted = f"{settings.cpus_per_trial} cores and {settings.gpus_per_trial:g} GPUs"
        raise ValueError(f"no node of the cluster has {wanted} for a trial")
    room = max(1, room)
    return min(room, settings.num_samples, settings.max_concurrent or room)


def _room_on(node: Node, settings: StudySettings, cpus_taken: int) -> int:
    room = (node.cpus - cpus_taken) // settings.cpus_per_trial
    if settings.gpus_per_trial >= 1:
        return min(room, node.gpus // int(settings.gpus_per_trial))
    if settings.gpus_per_trial > 0:
        return min(room, node.gpus * int(1 / settings.gpus_per_trial))  # a fraction does not span two GPUs
    return room
