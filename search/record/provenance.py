"""What a study ran on: versions, commit, machine and command."""

import ast
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import torch

from training.config import PROJECT
from training.console.command_line import without_password
from training.networks.network_config import load_function
from training.networks.networks import network_checksum

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "pandas", "numpy", "scikit-learn")
_DECISIVE_FILES = (
    *("config.py", "loop.py", "images/augmentation.py", "images/image_data.py", "networks/network_config.py"),
    *("networks/networks.py", "optimization/lr_schedule.py", "optimization/optimizers.py", "optimization/precision.py"),
)
"""Files in `training/` that decide what a trial measures."""


def available_cpus() -> int:
    """Cores that this process may use, by its affinity and its container's quota."""
    return int(joblib.cpu_count())


def collect() -> dict[str, Any]:
    """All of it and the time of day, as plain data for `study.json`."""
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command(),
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": machine(),
    }


def command() -> str:
    """The command line that started this process."""
    return shlex.join(["python", project_path(Path(sys.argv[0])), *map(without_password, sys.argv[1:])])


def project_path(path: Path) -> str:
    """A path as seen from the project's folder where it lies inside, otherwise the absolute path."""
    absolute = path.resolve()
    return str(absolute.relative_to(PROJECT) if absolute.is_relative_to(PROJECT) else absolute)


def code(network: str) -> dict[str, str]:
    """Checksums of the code that decides what a trial measures, by the name of its module without the folder.

    That of a network from a file, which is imported, stands under the network's name.
    """
    files = [PROJECT / "training" / name for name in _DECISIVE_FILES]
    checksum = network_checksum(network)
    return {
        **{file.stem: code_checksum(file.read_text()) for file in files},
        **({network: checksum} if checksum else {}),
    }


def code_checksum(source: str) -> str:
    """SHA-256 of a Python module without its imports and blank lines, so that a file can be moved to another folder."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            lines[first:last] = [""] * (last - first)
    return hashlib.sha256("\n".join(filter(str.strip, lines)).encode()).hexdigest()


def own_code(train_function: str) -> dict[str, str]:
    """The checksum of the file of a training function, under its place."""
    module = sys.modules[load_function("train_function", train_function).__module__]
    return {train_function: hashlib.sha256(Path(module.__file__ or "").read_bytes()).hexdigest()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def git_commit() -> str | None:
    """The project's commit, with `+changes` where files differ from it; None outside a git checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPUs; no name and no address, so that it can be shown to anyone."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": available_cpus(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


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
