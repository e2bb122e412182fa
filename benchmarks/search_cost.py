"""Measure what a search costs besides training: from command to exit, per trial of a long study, and in memory."""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from idle_search import idle_trainable
from processes import descendants

from search.engine import tuner
from search.engine.study import prepare_study
from search.engine.trainable import trainable
from search.record import provenance
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.run import run_study
from search.settings import StudySettings
from training.config import PROJECT
from training.images.image_data import load_data

EPOCHS = 10
PARTS = ("start", "trials", "memory")


@dataclass(frozen=True)
class Moment:
    """What a study has used when one of its trials ended; memory in MB, shared pages in equal parts (PSS)."""

    wall: float
    cpu: float
    """Seconds of the driver's CPU."""
    driver: float
    workers: float
    """All of them together."""
    object_store: float
    """Of that, and of the driver's, the shared memory in which Ray keeps the data."""


def memory(process: int, mapping: str = "") -> float:
    """MB that a process has in mappings whose name holds this."""
    blocks = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{process}/smaps").read_text())
    sizes = [re.findall(r"(?m)^Pss: +(\d+)", block) for block in blocks if mapping in block.partition("\n")[0]]
    return sum(int(size) for (size,) in filter(None, sizes)) * 1024 / 1e6


def now(*, with_memory: bool) -> Moment:
    """What the study that this process runs has used until now."""
    wall, cpu = time.perf_counter(), time.process_time()
    if not with_memory:
        return Moment(wall, cpu, 0, 0, 0)
    workers = [process.pid for process in descendants(os.getpid()) if process.title.startswith("ray::ImplicitFunc")]
    shared = sum(memory(pid, "plasma") for pid in [os.getpid(), *workers])
    return Moment(wall, cpu, memory(os.getpid()), sum(map(memory, workers)), shared)


def run_noting(settings: StudySettings, trainable: Callable[..., None], marks: list[int]) -> list[Moment]:
    """Run a study in this process; returns the moments at which so many trials had ended."""
    finish, ended, moments = StudyRecord.finish, itertools.count(1), {}

    def finish_and_note(record: StudyRecord, trial_id: str, *, interrupted: bool = False) -> TrialRecord:
        trial = finish(record, trial_id, interrupted=interrupted)
        number = next(ended)
        if number in marks:
            moments[number] = now(with_memory=True)
        return trial

    StudyRecord.finish = finish_and_note  # type: ignore[method-assign, assignment]
    tuner.__dict__["trainable"] = trainable
    with redirect_stdout(StringIO()):
        run_study(prepare_study(settings))
    StudyRecord.finish = finish  # type: ignore[method-assign]
    return [moments[mark] for mark in marks]


def command_to_exit(runs: int, dataset: str, folder: Path) -> None:
    """Run 20 idle trials in a fresh process each time; print the seconds from the command on."""
    print(f"\n20 trials x {EPOCHS} epochs, {dataset}\n seconds to the first epoch  to the exit")
    rows = []
    for run in range(runs):
        options = [f"--dataset={dataset}", "--num-samples=20", f"--epochs={EPOCHS}", "--scheduler=none"]
        options += [f"--results-dir={folder}", f"--name=run-{run}"]
        start = time.perf_counter()
        command = [sys.executable, str(PROJECT / "benchmarks" / "idle_search.py"), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        end = time.perf_counter()
        trials = StudyRecord.open(folder / f"run-{run}").trials
        rows.append((min(trial.timings[1].reported for trial in trials), end - start))
        print("{:>27.1f}  {:>11.1f}".format(*rows[-1]), flush=True)
    print("{:>27.1f}  {:>11.1f}  medians".format(*map(statistics.median, zip(*rows, strict=True))))


def long_study(trials: int, folder: Path) -> None:
    """Run many idle trials; print what they cost along the way."""
    steps = 10
    marks = [round(1 + step * (trials - 1) / steps) for step in range(steps + 1)]
    settings = StudySettings(
        dataset="digits", num_samples=trials, epochs=EPOCHS, scheduler="none", dashboard=False, results_dir=folder
    )
    moments = run_noting(settings, idle_trainable, marks)
    print(f"\n{trials} trials x {EPOCHS} epochs, digits")
    print(" trials  ms of wall  ms of the driver's CPU  MB of the driver  of the workers")
    for (start, before), (stop, after) in itertools.pairwise(zip(marks, moments, strict=True)):
        wall, cpu = (1000 * seconds / (stop - start) for seconds in (after.wall - before.wall, after.cpu - before.cpu))
        print(f"{stop:>7}  {wall:>10.1f}  {cpu:>22.1f}  {after.driver:>16.0f}  {after.workers:>14.0f}")


def memory_of_data(folder: Path) -> None:
    """Train two trials at the same time on Fashion-MNIST and on digits; print how often the images are in memory."""
    used = {}
    for dataset in ("fashion-mnist", "digits"):
        settings = StudySettings(
            dataset=dataset, num_samples=2, epochs=2, scheduler="none", dashboard=False, results_dir=folder
        )
        (used[dataset],) = run_noting(settings, trainable, [2])
    data, _ = load_data(StudySettings(dataset="fashion-mnist"), 0)
    size = sum(part.images.nbytes + part.labels.nbytes for part in (data.train, data.val, data.test)) / 1e6
    shared = used["fashion-mnist"].object_store
    more = used["fashion-mnist"].workers - used["digits"].workers
    print(f"\nFashion-MNIST, {size:.1f} MB, two trials at the same time")
    print(f"  object store in workers and driver: {shared:.1f} MB, {shared / size:.2f} times")
    print(f"  workers, more than with digits: {more:.1f} MB, {more / size:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS, help="what is measured")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes from command to exit")
    parser.add_argument("--dataset", default="fashion-mnist", help="data that they load")
    parser.add_argument("--trials", type=int, default=1000, help="trials of the long study")
    options = parser.parse_args()
    print(f"{provenance.command()}\n{provenance.machine()}\n{provenance.versions()}")
    with TemporaryDirectory() as folder:
        if "start" in options.parts:
            command_to_exit(options.runs, options.dataset, Path(folder))
        if "trials" in options.parts:
            long_study(options.trials, Path(folder))
        if "memory" in options.parts:
            memory_of_data(Path(folder))


if __name__ == "__main__":
    main()
