"""The processes below one of ours, as /proc shows them (Linux only)."""

import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process; the time of its start tells it from a later one of the same number."""

    pid: int
    parent: int = field(compare=False)  # another one adopts it when its parent dies
    started: int
    """Clock ticks since the machine started."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self in _processes(f"{self.pid}")

    @property
    def is_worker(self) -> bool:
        """Whether it is a Ray worker that has been given something to do: Ray renames those."""
        try:
            title = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:  # it has ended
            return False
        return title.startswith(b"ray::") and not title.startswith(b"ray::IDLE")

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        if self.alive:
            with suppress(ProcessLookupError):  # ended since
                os.kill(self.pid, signal.SIGKILL)


def _processes(pids: str = "[0-9]*") -> list[Process]:
    found = []
    for stat in Path("/proc").glob(f"{pids}/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")  # a name may hold spaces and parentheses
        except OSError:  # it has ended
            continue
        state, parent, *numbers = rest.split()
        if state not in "ZX":
            found.append(Process(int(name.split()[0]), int(parent), int(numbers[17])))
    return found


def descendants(pid: int) -> list[Process]:
    """All processes that a process started, and those that they started in turn."""
    children = defaultdict(list)
    for process in _processes():
        children[process.parent].append(process)
    found: list[Process] = []
    parents = [pid]
    while parents:
        below = children[parents.pop()]
        found += below
        parents += [process.pid for process in below]
    return found


def end(processes: list[Process], grace_seconds: float = 30) -> int:
    """Wait until processes have ended by themselves; kill and count those that have not."""
    deadline = time.monotonic() + grace_seconds
    while (left := [process for process in processes if process.alive]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        process.kill()
    return len(left)
