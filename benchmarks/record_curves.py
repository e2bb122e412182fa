"""Record the learning curves of the tasks of `curve_tasks.py`, on which ways to search are compared.

    python benchmarks/record_curves.py --minutes 60
    python benchmarks/record_curves.py regression digits --seeds 2

Every configuration of a task is trained in full, one thread a training: first the starting points of a study and 300
random configurations from seed 0, then the same from seed 1. The metric is measured after 1/8, 1/4 and 1/2 of the first
epoch, on validation examples, and after each epoch, on test examples, too. Where the learning rate has a schedule, the
training is also run with a schedule that is made for 1 epoch, and for 3: a part of a longer training is not that.

A table is written every minute, and a recording that was ended or killed goes on where it was.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from curve_tasks import TASKS, CurveTask

from search.record import provenance
from search.space.search_space import describe
from training.atomic_file import write_atomically
from training.loop import TrainingDivergedError

FOLDER = Path(__file__).parent / "tables" / "tasks"
PARTS = (0.125, 0.25, 0.5)
"""Parts of the first epoch after which the metric is measured."""
SHORT_SCHEDULES = (1, 3)
"""Numbers of epochs for which a schedule is made, beside that of a training in full."""
COLUMNS = ("configuration", "seed", "made_for", "epoch", "val", "test", "seconds", "val_seconds", "test_seconds")
SECONDS_BETWEEN_WRITES = 60

Training = tuple[str, int, int, int]
"""The name of a task, the number of a configuration, the seed, and the epochs for which the schedule is made."""
Row = dict[str, float | int | None]


def trainings(task: CurveTask, seeds: int) -> Iterator[Training]:
    """All trainings of a task, seed by seed, first those in full, which alone are needed to replay a search."""
    points = dict(enumerate(task.configurations()))
    with_schedule = {number for number, point in points.items() if point.get("lr_schedule", "none") != "none"}
    for seed in range(seeds):
        for made_for, numbers in (
            (task.epochs, points.keys()),
            *((epochs, with_schedule) for epochs in SHORT_SCHEDULES),
        ):
            yield from ((task.name, number, seed, made_for) for number in sorted(numbers))


def record(training: Training) -> tuple[Training, list[Row]]:
    """Run one training; the seconds are CPU seconds, which other processes of the machine change little.

    Returns:
        The training, and a row for each measurement. A training that diverged ends with a row without a value.
    """
    name, number, seed, made_for = training
    task, rows = TASKS[name], list[Row]()
    key = {"configuration": number, "seed": seed, "made_for": made_for}
    task.load()
    clock = time.process_time()
    try:
        running = task.train(task.configurations()[number], seed, made_for)
        for epoch in range(1, made_for + 1):
            parts = iter((*PARTS, math.inf) if epoch == 1 else (math.inf,))
            due = next(parts)
            for done in running.train_epoch():
                if done < due or done == 1.0:
                    continue
                seconds, clock = time.process_time() - clock, time.process_time()
                val = _finite(running.measure("val"))
                val_seconds, clock = time.process_time() - clock, time.process_time()
                rows.append(
                    {**key, "epoch": due, "val": val, "test": None, "seconds": seconds, "val_seconds": val_seconds}
                )
                while due <= done:
                    due = next(parts)
            seconds, clock = time.process_time() - clock, time.process_time()
            val = _finite(running.measure("val"))
            val_seconds, clock = time.process_time() - clock, time.process_time()
            test = _finite(running.measure("test"))
            test_seconds, clock = time.process_time() - clock, time.process_time()
            rows.append({**key, "epoch": epoch, "val": val, "test": test, "seconds": seconds})
            rows[-1] |= {"val_seconds": val_seconds, "test_seconds": test_seconds}
    except TrainingDivergedError:
        rows.append({**key, "epoch": epoch, "val": None, "test": None, "seconds": time.process_time() - clock})
    return training, rows


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise TrainingDivergedError(f"the metric is {value}")
    return value


class Table:
    """The recorded rows of one task, in a file that is written anew now and then."""

    def __init__(self, task: CurveTask) -> None:
        """Read what has been recorded."""
        self._task = task
        self._file = FOLDER / f"{task.name}.csv.gz"
        self._table = pd.read_csv(self._file) if self._file.exists() else pd.DataFrame(columns=[*COLUMNS])
        keys = self._table[["configuration", "seed", "made_for"]].drop_duplicates().to_numpy(dtype=int).tolist()
        self.done: set[Training] = {(task.name, number, seed, made_for) for number, seed, made_for in keys}
        self._new: list[Row] = []

    def add(self, training: Training, rows: list[Row]) -> None:
        """Add the rows of a training that has ended."""
        self.done.add(training)
        self._new += rows

    def write(self, seeds: int) -> None:
        """Write the table, and what is known of it into a JSON file beside it."""
        if not self._new:
            return
        new = pd.DataFrame(self._new, columns=[*COLUMNS])
        self._table = pd.concat([self._table, new], ignore_index=True) if len(self._table) else new
        self._new = []
        self._table = self._table.astype({"val": float, "test": float, "seconds": float, "test_seconds": float})
        self._table = self._table.sort_values([*COLUMNS[:4]], ignore_index=True)
        decimals = {"val": 5, "test": 5, "seconds": 4, "val_seconds": 4, "test_seconds": 4}
        self._table.round(decimals).to_csv(self._file, index=False, compression={"method": "gzip", "mtime": 0})
        write_atomically(self._file.with_name(f"{self._task.name}.json"), json.dumps(self._describe(seeds)))

    def _describe(self, seeds: int) -> dict[str, Any]:
        task = self._task
        return {
            "sha256": hashlib.sha256(self._file.read_bytes()).hexdigest(),
            "trainings": len(self.done),
            "trainings_of_all": sum(1 for _ in trainings(task, seeds)),
            "epochs": task.epochs,
            "mode": task.mode,
            "starting_points": len(task.starting_points()),
            "command": provenance.command(),
            "versions": provenance.versions(),
            "git_commit": provenance.git_commit(),
            "machine": asdict(provenance.machine()),
            "space": describe(task.space),
            "configurations": task.configurations(),
        }


def prepare() -> None:
    """Prepare a worker process."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="dropout option adds dropout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "tasks", nargs="*", choices=[[], *TASKS], help="tasks to record, one after the other; without a name all"
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after so many minutes")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.minutes * 60
    tables = {name: Table(TASKS[name]) for name in options.tasks or TASKS}
    every = [training for name in tables for training in trainings(TASKS[name], options.seeds)]
    to_do = [training for training in every if training not in tables[training[0]].done]
    written, count = time.monotonic(), len(every) - len(to_do)
    with multiprocessing.get_context("fork").Pool(options.workers, prepare) as workers:
        for training, rows in workers.imap_unordered(record, to_do):
            tables[training[0]].add(training, rows)
            count += 1
            print(f"{count} of {len(every)} trainings", end="\r", flush=True)
            if time.monotonic() > min(end, written + SECONDS_BETWEEN_WRITES):
                written = time.monotonic()
                for table in tables.values():
                    table.write(options.seeds)
            if time.monotonic() > end:
                break
    for table in tables.values():
        table.write(options.seeds)
    print(f"{count} of {len(every)} trainings")


if __name__ == "__main__":
    main()
