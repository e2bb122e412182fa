"""The origin of a study's numbers: versions, commit, machine and command."""

import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import distribution, version
from pathlib import Path

import joblib
import torch

from search.record.lookup import project_path
from search.record.trial import MOST_SECONDS
from training.config import IS_INSTALLED, PROJECT
from training.console.command_line import PROGRAM, command_of_program, mask_password
from training.console.notebook import in_notebook

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "pandas", "numpy", "scikit-learn")


def available_cpus() -> int:
    """Number of cores that this process may use, by its affinity and the quota of its container."""
    return int(joblib.cpu_count())


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine of a session without name and address, so that anyone may see it."""

    system: str
    processor: str
    cpus: int
    memory_gib: float
    gpus: list[str]


@dataclass(frozen=True, kw_only=True)
class ClusterSize:
    """The Ray cluster that a session joined."""

    nodes: int
    cpus: int
    gpus: int


@dataclass(frozen=True, kw_only=True)
class Session:
    """When, how and on what a study was started or resumed."""

    time: str
    command: str
    versions: dict[str, str]
    git_commit: str | None
    machine: Machine
    cluster: ClusterSize | None = None
    max_concurrent_trials: int
    cpus_per_trial: int
    seconds: float | None = None
    """Wall clock from the command to the summary; None if the process was killed."""

    def __post_init__(self) -> None:
        """Refuse numbers with which the time accounting cannot compute."""
        if not all(0 < number <= 10**6 for number in (self.cpus, self.max_concurrent_trials, self.cpus_per_trial)):
            raise ValueError(
                f"{self.cpus} cores cannot run {self.max_concurrent_trials} trials on {self.cpus_per_trial} cores each"
            )
        if not 0 <= (self.seconds or 0) <= MOST_SECONDS:
            raise ValueError(f"seconds cannot be {self.seconds}")

    @property
    def cpus(self) -> int:
        """Number of cores of the cluster, or else of the machine."""
        return (self.cluster or self.machine).cpus


@dataclass(frozen=True, kw_only=True)
class WidthChange:
    """From some time on, another number of trials could run at the same time than before."""

    session: int
    """Number of the session of the study, from 0."""
    seconds: float
    """Since the session began."""
    max_concurrent_trials: int
    """0 while the study is paused."""
    capacity: int
    """For how many trials there were cores and GPUs; a cluster may grow and shrink."""
    cpus: int
    """Cores of the cluster, or else of the machine."""

    def __post_init__(self) -> None:
        """Refuse numbers with which the time accounting cannot compute."""
        numbers = (self.session, self.max_concurrent_trials, self.capacity, self.cpus)
        if not (all(0 <= number <= 10**6 for number in numbers) and 0 <= self.seconds <= MOST_SECONDS):
            raise ValueError(f"a change of the width cannot be {self}")


def new_session(cluster: ClusterSize | None, *, max_concurrent_trials: int, cpus_per_trial: int) -> Session:
    """The session that this process begins now."""
    return Session(
        time=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=command(),
        versions=versions(),
        git_commit=git_commit(),
        machine=machine(),
        cluster=cluster,
        max_concurrent_trials=max_concurrent_trials,
        cpus_per_trial=cpus_per_trial,
    )


def command() -> str:
    """The command line that started this process; that of a notebook says nothing."""
    if in_notebook():
        return "run_search in a notebook"
    started, words = command_of_program(), map(mask_password, sys.argv[1:])
    return shlex.join([*([PROGRAM, started] if started else ["python", project_path(Path(sys.argv[0]))]), *words])


def format_field(value: object) -> str:
    """A field of `Machine` as text; an empty list is `none`."""
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages on which the numbers depend."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def git_commit() -> str | None:
    """The project's commit, with `+changes` where files differ from it; None if nobody knows it."""
    if IS_INSTALLED:  # a git checkout around the environment would be that of the user's own project
        return _installed_commit()
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def _installed_commit() -> str | None:
    """The commit that pip has installed, as in `pip install git+https://...`; None for a wheel or a folder."""
    origin = json.loads(distribution(PROGRAM).read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None


def machine() -> Machine:
    """The machine of this process."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cpus=available_cpus(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpus=[torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    )


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(PROJECT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
