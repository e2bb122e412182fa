"""Confirm a study: train its best configurations again from fresh seeds, and the winner once on all training images."""

import gc
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from search.record.lookup import check_code_named, check_is_of_images, find_study, stored_settings
from search.settings import StudySettings, check_size
from training.config import PROJECT
from training.console.command_line import parse, refuse
from training.console.terminal import guard_output


@dataclass(frozen=True, kw_only=True)
class ConfirmSettings:
    """Options of `python search/confirm.py`."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The study: its name, its folder or latest."""
    top: int = 3
    """Configurations that are trained again: the best by validation; >= 1."""
    seeds: int = 5
    """Fresh seeds, the same for each configuration; the winner is then trained from as many others; >= 2."""
    results_dir: Path = field(default_factory=lambda: PROJECT / "results")
    """Folder that holds the studies' folders."""
    data_dir: Path | None = None
    """Folder of the images; by default that of the study."""
    max_concurrent: int | None = None
    """Trainings at the same time; by default as in the study, or as many as the machine has room for."""
    time_budget: str | None = None
    """End softly after this time, for example 30m; the same command goes on."""
    quiet: bool = False
    """Print a line for each ended training instead of a live view, as where the output is no terminal."""
    dashboard: bool = True
    """Start the Ray dashboard on this machine, or say where that of the cluster is."""
    network: str | None = None
    """The study's network, if it is a function of yours: its code is run only when it is named again."""
    dataset: str | None = None
    """The study's data set, if a function of yours loads it, likewise."""
    storage: str | None = None
    """PostgreSQL server that holds the study's record, if it was run with this option."""
    address: str | None = None
    """Ray cluster to join instead of starting Ray here, as for search/run.py."""

    def __post_init__(self) -> None:
        """Check what can be checked without the study."""
        check_size(self.top, self.seeds)
        StudySettings(max_concurrent=self.max_concurrent, time_budget=self.time_budget, address=self.address)


def main() -> int:
    """Confirm as the command line says; returns the exit status."""
    began = time.monotonic()
    options = parse(ConfirmSettings, __doc__ or "")
    try:
        folder = find_study(options.study, options.results_dir, options.storage)
        stored = stored_settings(folder, options.storage)
        check_is_of_images(folder.name, stored)
        check_code_named(folder.name, stored, {"--network": options.network, "--dataset": options.dataset})

        from search.retraining.confirm_study import Wanted, confirm, prepare  # torch and Ray take seconds

        wanted = Wanted(
            top=options.top,
            seeds=options.seeds,
            command=shlex.join(["python", "search/confirm.py", *sys.argv[1:]]),
            data_dir=options.data_dir,
            storage=options.storage,
            address=options.address,
            max_concurrent=options.max_concurrent,
            time_budget=options.time_budget,
            quiet=options.quiet,
            dashboard=options.dashboard,
        )
        confirming = prepare(folder, wanted, began)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        return 130
    return confirm(confirming)


if __name__ == "__main__":
    guard_output(outlive_reader=True)
    status = main()
    gc.freeze()  # nothing is looked for in what is left: that would take Python a second
    sys.exit(status)
