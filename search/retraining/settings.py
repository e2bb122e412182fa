"""The options of a confirmation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from search.settings import StudySettings, check_size
from training.config import base_folder


@dataclass(frozen=True, kw_only=True)
class ConfirmSettings:
    """Options of `python search/confirm.py`."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The study: its name, its folder, or latest for the newest study."""
    top: int = 3
    """Number of configurations that are trained again, the best by validation; >= 1."""
    seeds: int = 5
    """Number of new seeds from which each configuration is trained; the winner is then trained from the same number of
    further seeds; >= 2."""
    results_dir: Path = field(default_factory=lambda: base_folder() / "results")
    """Folder of all studies."""
    data_dir: Path | None = None
    """Folder of the data sets; by default that of the study."""
    max_concurrent: int | None = None
    """Largest number of trainings that run at the same time; by default as in the study."""
    time_budget: str | None = None
    """Time after which no new training starts, for example 30m; the same command continues later."""
    quiet: bool = False
    """Print one line for each ended training instead of the live view. If the output is not a terminal, this is always
    so."""
    dashboard: bool = True
    """Start the Ray dashboard on this machine; on a cluster, print the address of its dashboard."""
    network: str | None = None
    """Import path of the study's network, if you wrote it. Its code runs only if you name it again."""
    dataset: str | None = None
    """Import path of the function that loads the study's images, if you wrote it. Its code runs only if you name it
    again."""
    train_function: str | None = None
    """Import path of the study's training function. Its code runs only if you name it again."""
    command: str | None = None
    """The command that runs the study's program, as you typed it for the study. It runs only if you name it again."""
    storage: str | None = None
    """PostgreSQL server that stores the record, if the study was run with this option."""
    address: str | None = None
    """Ray cluster to join instead of starting Ray on this machine: auto, or host:port of the head node."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""

    def __post_init__(self) -> None:
        check_size(self.top, self.seeds)
        StudySettings(max_concurrent=self.max_concurrent, time_budget=self.time_budget, address=self.address)
