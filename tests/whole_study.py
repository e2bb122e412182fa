"""One whole study by command with the real Ray, watched while it runs; the tests about it share it."""

import ipaddress
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from training.config import PROJECT

SIX_TRIALS = ["--dataset", "digits", "--num-samples", "6", "--epochs", "3", "--max-concurrent", "1"]
TOKEN = "c0ffee" * 10


@dataclass
class WatchedStudy:
    """A study called `first`, of six trials, one at a time, and what was seen of it."""

    results: Path
    status: int = -1
    stdout: str = ""
    stderr: str = ""
    listening: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Addresses on which its processes accepted connections, by name of the process."""
    command_lines: str = ""
    environments: str = ""


def run_whole_study(folder: Path) -> WatchedStudy:
    """Run it with a known token, from a folder that has a `training` and a `search` of its own."""
    token, elsewhere = folder / "token", folder / "elsewhere"
    token.write_text(TOKEN)
    token.chmod(0o600)
    for package in ("training", "search"):
        (elsewhere / package).mkdir(parents=True)
        (elsewhere / package / "__init__.py").write_text("raise ImportError('somebody else's')")
    seen = WatchedStudy(folder / "results")
    words = [*SIX_TRIALS, "--name", "first", "--results-dir", str(seen.results)]
    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
        driver = subprocess.Popen(
            [sys.executable, str(PROJECT / "search" / "run.py"), *words],
            cwd=elsewhere,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | {"RAY_AUTH_TOKEN_PATH": str(token)},
        )
        while driver.poll() is None:
            for process in processes_below(driver.pid):
                with suppress(OSError):  # it has ended meanwhile
                    seen.listening[Path(f"/proc/{process}/comm").read_text().strip()] |= listening(process)
                    seen.command_lines += Path(f"/proc/{process}/cmdline").read_text()
                    seen.environments += Path(f"/proc/{process}/environ").read_text(errors="replace")
            time.sleep(0.5)
    seen.status = driver.returncode
    seen.stdout, seen.stderr = ((folder / name).read_text() for name in ("stdout", "stderr"))
    return seen


def processes_below(ancestor: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for process in found:
        found.extend(child for child, parent in parents.items() if parent == process)
    return found


def listening(process: int) -> set[str]:
    """The addresses on which a process accepts connections."""
    sockets = {os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = columns = line.split()
            if state == "0A" and f"socket:[{columns[9]}]" in sockets:
                words = bytes.fromhex(local.partition(":")[0])
                address = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
                found.add(str(ipaddress.ip_address(address)))
    return found
