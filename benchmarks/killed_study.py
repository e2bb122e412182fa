"""A short study whose processes are killed at random moments, and which is resumed until it is done."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audit import Audit, Tally
from observed_training import NOTES, read_notes
from processes import Process, descendants

from training.config import PROJECT

NO_PROGRESS_SECONDS = 120
"""A study hangs when no epoch begins for so long and its process does not end."""


@dataclass(frozen=True, kw_only=True)
class StudySize:
    """How much there is to do in a study."""

    num_samples: int = 8
    epochs: int = 30
    workers: int = 2


@dataclass(frozen=True)
class Tool:
    """A way to search hyperparameters."""

    name: str
    command: Callable[[Path, StudySize, int, int], list[str]]
    """(folder, size, seed, retries of a trial whose worker died) -> what starts the study, or goes on with it."""
    kept: Callable[[Path], list[str] | None]
    """Folder -> configurations that it says have finished when all is done; None for those in its record."""


def tunesmith_command(folder: Path, size: StudySize, seed: int, retries: int) -> list[str]:
    """`search/run.py` as a user would start it, or go on with what was interrupted."""
    script = ["observed_search.py", f"--results-dir={folder.parent}", "--no-dashboard"]
    if (folder / "study.db").exists():
        return [*script, f"--resume={folder.name}"]
    return [
        *(*script, f"--name={folder.name}", f"--seed={seed}", "--dataset=digits", "--scheduler=none"),
        *(f"--num-samples={size.num_samples}", f"--epochs={size.epochs}", f"--max-concurrent={size.workers}"),
        *([f"--max-failures={retries}"] if retries else []),
    ]


def plain_command(folder: Path, size: StudySize, seed: int, retries: int) -> list[str]:
    """`plain_search.py`, which finds out by itself whether there is something to restore."""
    return [
        *("plain_search.py", str(folder), f"--seed={seed}", f"--max-failures={retries}"),
        *(f"--num-samples={size.num_samples}", f"--epochs={size.epochs}", f"--workers={size.workers}"),
    ]


def plain_results(folder: Path) -> list[str]:
    """The configurations that finished, by what `fit()` returned in the end."""
    return list(json.loads((folder / "results.json").read_text()))


TUNESMITH = Tool("Tunesmith", tunesmith_command, lambda _: None)
PLAIN = Tool("Tuner.restore", plain_command, plain_results)


@dataclass(frozen=True)
class Moment:
    """When to kill: as soon as so many epochs of the study have begun, and then so many seconds later."""

    epochs: int
    seconds: float


def draw_moment(chance: random.Random, size: StudySize, epochs_begun: int, *, just_started: bool) -> Moment:
    """Draw a moment of any phase: while a process imports and starts Ray, in and between trials, or at the end."""
    all_epochs = size.num_samples * size.epochs
    weights = {"starting": 0.3 if just_started else 0, "training": 0.5, "ending": 0.2}
    phase = chance.choices(list(weights), list(weights.values()))[0]
    if just_started and epochs_begun >= all_epochs:
        return Moment(0, chance.uniform(0, 24))  # about half of these studies are let end
    if phase == "starting":
        return Moment(0, chance.uniform(0, 12))
    if phase == "training":
        more = chance.randint(1, all_epochs // 3)
        return Moment(min(epochs_begun + more, all_epochs), chance.uniform(0, 0.3))
    return Moment(all_epochs, chance.uniform(0, 3))


class KilledStudy:
    """A study in a folder of its own, and the processes that run it one after the other."""

    def __init__(self, tool: Tool, size: StudySize, results: Path, seed: int, *, worker_kills: bool) -> None:
        self.folder = results / f"study-{seed}"
        self.processes: set[Process] = set()
        self._tool = tool
        self._size = size
        self._seed = seed
        self._worker_kills = worker_kills
        self._chance = random.Random(f"{tool.name} {seed}")
        self._notes = results / f"study-{seed}.notes"
        self._log = results / f"study-{seed}.log"
        self._audit = Audit(self.folder, self._notes, size.epochs)
        self._kills = Tally()
        self._epochs_at_start = 0

    def run(self, max_kills: int) -> Tally:
        """Start, kill and resume until the study is done, fails or hangs; returns what became of it."""
        started = time.monotonic()
        while (outcome := self._run_once(max_kills)) == "killed":
            self._audit.look()
        self._audit.look()
        if outcome != "done" and self._kills == Tally():
            raise RuntimeError(f"a study {outcome} before its first kill; what it printed is in {self._log}")
        tally = self._audit.tally(self._tool.kept(self.folder) if outcome == "done" else [])
        tally.add(self._kills)
        tally.failed, tally.hung = int(outcome == "failed"), int(outcome == "hung")
        tally.seconds = time.monotonic() - started
        return tally

    def _run_once(self, max_kills: int) -> Literal["killed", "done", "failed", "hung"]:
        """Start the study or go on with it, until it ends or its driver is killed."""
        driver = self._start()
        self._epochs_at_start = self._epochs_begun()
        just_started = True
        try:
            while self._kills.driver_kills + self._kills.worker_kills < max_kills:
                moment = draw_moment(self._chance, self._size, self._epochs_begun(), just_started=just_started)
                if not self._reach(moment, driver):
                    break
                if self._kill_one(driver) == "driver":
                    return "killed"
                just_started = False
            else:
                self._reach(Moment(sys.maxsize, 0), driver)
            if driver.poll() is None:
                return "hung"
            return "done" if driver.returncode == 0 else "failed"
        finally:
            if driver.poll() is None:
                self.processes |= set(descendants(driver.pid))
                driver.kill()
            driver.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        retries = 1000 if self._worker_kills else 0
        script, *options = self._tool.command(self.folder, self._size, self._seed, retries)
        command = [sys.executable, str(PROJECT / "benchmarks" / script), *options]
        with self._log.open("a") as log:
            log.write(f"\n{command}\n")
            log.flush()
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=PROJECT, env=_environment(self._notes))

    def _epochs_begun(self) -> int:
        """Epochs of the study that have begun, each counted once."""
        return len(set(read_notes(self._notes)))

    def _reach(self, moment: Moment, driver: subprocess.Popen[bytes]) -> bool:
        """Wait for a moment; False if the driver ends first, or hangs."""
        begun, last_progress = 0, time.monotonic()
        while begun < moment.epochs:
            if driver.poll() is not None or time.monotonic() - last_progress > NO_PROGRESS_SECONDS:
                return False
            time.sleep(0.01)
            if (now := self._epochs_begun()) != begun:
                begun, last_progress = now, time.monotonic()
        try:
            driver.wait(moment.seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _kill_one(self, driver: subprocess.Popen[bytes]) -> Literal["driver", "worker"]:
        """Kill the driver or one of its workers that have trained, as chance will have it."""
        below = descendants(driver.pid)
        self.processes |= set(below)
        trained = {note.worker for note in read_notes(self._notes)}
        workers = [process for process in below if process.pid in trained]
        victim: Literal["driver", "worker"] = "driver"
        if self._worker_kills and workers and self._chance.random() < 0.5:
            victim = "worker"
            self._chance.choice(workers).kill()
        else:
            driver.kill()
            driver.wait()
        self._audit.note_kill()
        begun = self._epochs_begun()
        self._kills.add(
            Tally(
                driver_kills=int(victim == "driver"),
                worker_kills=int(victim == "worker"),
                kills_starting=int(begun == self._epochs_at_start),
                kills_ending=int(self._epochs_at_start < begun >= self._size.num_samples * self._size.epochs),
            )
        )
        return victim


def _environment(notes: Path) -> dict[str, str]:
    """Ours without options of Ray, which are each tool's own affair, and with the folder of Ray's files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    paths = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    return kept | {
        "RAY_TMPDIR": os.environ["RAY_TMPDIR"],
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        NOTES: str(notes),
    }
