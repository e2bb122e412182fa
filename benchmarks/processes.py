"""The processes below one of ours, as /proc shows them (Linux only)."""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
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
    def title(self) -> str:
        """Its command line, or what it renamed itself to; empty when it has ended."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        except OSError:
            return ""

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


def end(processes: Iterable[Process], grace_seconds: float = 5) -> list[str]:
    """Wait until processes have ended by themselves; kill those that have not, and return their titles."""
    deadline = time.monotonic() + grace_seconds
    while (left := [process for process in processes if process.alive]) and time.monotonic() < deadline:
        time.sleep(0.1)
    titles = [process.title for process in left]
    for process in left:
        process.kill()
    return titles
