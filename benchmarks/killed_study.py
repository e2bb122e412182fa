"""A short study whose processes are killed at random moments, and which is resumed until it is done."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audit import Audit, Tally
from begun_epochs import read_notes
from observed_training import NOTES_FILE
from processes import Process, descendants

from training.config import PROJECT

BENCHMARKS = PROJECT / "benchmarks"
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
    kept: Callable[[Path], list[str] | None] = lambda _: None
    """Folder -> configurations that it says have finished when all is done; None for those in its record."""
    notes: Callable[[Path], Path] = lambda folder: folder.with_suffix(".notes")
    """Folder -> where the trainings note the epochs that begin."""


def images_command(folder: Path, size: StudySize, seed: int, retries: int) -> list[str]:
    """`search/run.py` as a user would start it for images, or go on with what was interrupted."""
    return ["benchmarks/observed_search.py", *_options(folder, size, seed, retries, new=["--dataset=digits"])]


def own_command(folder: Path, size: StudySize, seed: int, retries: int) -> list[str]:
    """The same for a training function."""
    function = f"--train-function={BENCHMARKS / 'observed_function.py'}:train"
    return ["search/run.py", function, *_options(folder, size, seed, retries, new=OF_LOSS)]


def program_command(folder: Path, size: StudySize, seed: int, retries: int) -> list[str]:
    """The same for a program that is run as it is."""
    names = ("learning_rate", "batch_size", "optimizer", "epochs", "seed", "trial_folder", "checkpoint")
    program = [sys.executable, str(BENCHMARKS / "observed_program.py"), *(f"--{name}={{{name}}}" for name in names)]
    command = f"--command={shlex.join(program)}"
    return ["search/run.py", command, *_options(folder, size, seed, retries, new=OF_LOSS)]


OF_LOSS = [f"--space={BENCHMARKS / 'observed_space.toml'}", "--metric=loss"]
"""What a study of one's own training searches, and by which metric."""


def _options(folder: Path, size: StudySize, seed: int, retries: int, *, new: list[str]) -> list[str]:
    """Options that begin a study, together with those in `new`, or resume it."""
    common = [f"--results-dir={folder.parent}", "--no-dashboard"]
    if (folder / "study.db").exists():
        return [*common, f"--resume={folder.name}"]
    return [
        *(*common, *new, f"--name={folder.name}", f"--seed={seed}", "--scheduler=none"),
        *(f"--num-samples={size.num_samples}", f"--epochs={size.epochs}", f"--max-concurrent={size.workers}"),
        *([f"--max-failures={retries}"] if retries else []),
    ]


def plain_command(folder: Path, size: StudySize, seed: int, retries: int) -> list[str]:
    """`plain_search.py`, which finds out by itself whether there is something to restore."""
    return [
        *("benchmarks/plain_search.py", str(folder), f"--seed={seed}", f"--max-failures={retries}"),
        *(f"--num-samples={size.num_samples}", f"--epochs={size.epochs}", f"--workers={size.workers}"),
    ]


def plain_results(folder: Path) -> list[str]:
    """The configurations that finished, by what `fit()` returned in the end."""
    return list(json.loads((folder / "results.json").read_text()))


IMAGES = Tool("Tunesmith", images_command)
PLAIN = Tool("Tuner.restore", plain_command, plain_results)
OWN = Tool("own", own_command, notes=lambda folder: folder / "trials")
COMMAND = Tool("command", program_command, notes=OWN.notes)


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

    def __init__(self, tool: Tool, size: StudySize, folder: Path, seed: int, *, worker_kills: bool) -> None:
        self.folder = folder
        self.processes: set[Process] = set()
        self._tool = tool
        self._size = size
        self._seed = seed
        self._worker_kills = worker_kills
        self._chance = random.Random(f"{tool.name} {seed}")
        self._notes = tool.notes(folder)
        self._log = folder.with_suffix(".log")
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
        command = words(self._tool, self.folder, self._size, self._seed, retries)
        with self._log.open("a") as log:
            log.write(f"\n{command}\n")
            log.flush()
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env=environment(self._notes),
                start_new_session=True,  # so that its processes are a group that can be killed
            )

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
        """Kill the driver, alone or with its process group, or one of its workers that have trained, by chance."""
        below = descendants(driver.pid)
        self.processes |= set(below)
        workers = _workers(below, {note.process for note in read_notes(self._notes)})
        victim: Literal["driver", "worker"] = "driver"
        if self._worker_kills and workers and self._chance.random() < 0.5:
            victim = "worker"
            self._chance.choice(workers).kill()
        else:
            if self._chance.random() < 0.5:
                driver.kill()
            else:
                os.killpg(driver.pid, signal.SIGKILL)
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


def _workers(below: list[Process], trained: set[int]) -> list[Process]:
    """Ray's workers among the processes of a driver: those that have trained, or that run programs which have."""
    by_pid = {process.pid: process for process in below}

    def worker(process: Process | None) -> Process | None:
        if process is None or process.title.startswith("ray::"):
            return process
        return worker(by_pid.get(process.parent))

    found = {worker(by_pid.get(pid)) for pid in trained}
    return sorted((process for process in found if process), key=lambda process: process.pid)


def words(tool: Tool, folder: Path, size: StudySize, seed: int, retries: int) -> list[str]:
    """What starts a study, or goes on with it."""
    script, *options = tool.command(folder, size, seed, retries)
    return [sys.executable, str(PROJECT / script), *options]


def environment(notes: Path) -> dict[str, str]:
    """Ours without options of Ray, which are each tool's own affair, and with the folder of Ray's files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    paths = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    return kept | {
        "RAY_TMPDIR": os.environ["RAY_TMPDIR"],
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        NOTES_FILE: str(notes),
    }
