"""Checksums of the code that decides what a trial measures."""

import ast
import hashlib
from functools import cache

from search.task.command_template import CommandTemplate
from training.config import PROJECT
from training.networks.networks import network_checksum
from training.program_files import checksum, meaning
from training.user_code import code_of

_DECISIVE_FILES = (
    *("config.py", "loop.py", "micro_batch.py", "images/augmentation.py", "images/image_data.py"),
    *(
        "networks/network_config.py",
        "networks/networks.py",
        "optimization/lr_schedule.py",
        "optimization/optimizers.py",
        "optimization/precision.py",
    ),
)
"""Files in `training/` that decide what a trial measures."""


def code(network: str) -> dict[str, str]:
    """Checksums of the code that decides what a trial measures, by name of the module without the folder.

    The file of a user's network is imported; the checksum of its files has the network's name.
    """
    files = [PROJECT / "training" / name for name in _DECISIVE_FILES]
    of_network = network_checksum(network)
    return {
        **{file.stem: code_checksum(file.read_text()) for file in files},
        **({network: of_network} if of_network else {}),
    }


@cache
def code_checksum(source: str) -> str:
    """SHA-256 of a Python module without imports and blank lines, which change when files move to other folders."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            lines[first:last] = [""] * (last - first)
    return hashlib.sha256("\n".join(filter(str.strip, lines)).encode()).hexdigest()


def custom_code(train_function: str) -> dict[str, str]:
    """The checksums of the code of a training function, by file; that of a passed one by its import path."""
    checksums = code_of("train_function", train_function).checksums
    return {name or train_function: checksum for name, checksum in checksums.items()}


def command_code(template: CommandTemplate) -> dict[str, str]:
    """The checksums of the scripts that a command names and of what they import, by file."""
    files = {name: file for script in template.files().values() for name, file in script.items()}
    return {name: checksum({name: meaning(file.read_bytes())}) for name, file in files.items()}
