"""Measure what a search costs besides training: from command to exit, per trial of a long study, and in memory."""

import argparse
import fcntl
import itertools
import os
import re
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from idle_search import idle_trainable, train_nothing
from processes import descendants

from search.engine import tuner
from search.engine.study import prepare_study
from search.engine.trainable import trainable
from search.record import provenance
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.run import run_study
from search.settings import StudySettings
from training.config import PROJECT, TrialConfig
from training.images.image_data import load_data

EPOCHS = 10
STEPS = 10
"""Lines about the long study."""
PARTS = ("start", "trials", "memory")
PEER = "peer"
"""Ray Tune with OptunaSearch instead, with the trials of the long study."""


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
    workers = [
        process.pid
        for process in descendants(os.getpid())
        if process.title.startswith(("ray::TrialWorker", "ray::ImplicitFunc"))
    ]
    shared = sum(memory(pid, "plasma") for pid in [os.getpid(), *workers])
    return Moment(wall, cpu, memory(os.getpid()), sum(map(memory, workers)), shared)


def run_noting(
    settings: StudySettings, trainable: Callable[..., None], marks: list[int], *, in_terminal: bool = False
) -> list[Moment]:
    """Run a study in this process, perhaps with its live view; returns the moments when so many trials had ended."""
    finish, ended, moments = StudyRecord.finish, itertools.count(1), {}

    def finish_and_note(record: StudyRecord, trial_id: str, **how: bool) -> TrialRecord:
        trial = finish(record, trial_id, **how)
        number = next(ended)
        if number in marks:
            moments[number] = now(with_memory=True)
        return trial

    StudyRecord.finish = finish_and_note  # type: ignore[method-assign, assignment]
    tuner.__dict__["trainable"] = trainable
    with terminal() if in_terminal else redirect_stdout(StringIO()):
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


def long_study(trials: int, concurrent: int | None, folder: Path) -> Path:
    """Run many idle trials that report 9 or 10 epochs each; print what they cost along the way; returns the study."""
    marks = marks_of(trials)
    settings = StudySettings(
        dataset="digits",
        sampler="tpe",
        num_samples=trials,
        epochs=EPOCHS,
        grace_period=EPOCHS - 1,
        max_concurrent=concurrent,
        dashboard=False,
        results_dir=folder,
        name="long",
    )
    moments = run_noting(settings, idle_trainable, marks, in_terminal=True)
    title = f"{trials} trials x {EPOCHS} epochs, digits, TPE, ASHA from epoch {EPOCHS - 1}, live view"
    show_moments(title, marks, moments)
    return folder / "long"


def plain_ray_tune(trials: int, concurrent: int, folder: Path) -> None:
    """Run trials that report the same with Ray Tune, OptunaSearch and ASHA as their documentation shows them."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    marks, ended = marks_of(trials), itertools.count(1)
    moments = {}

    class Noting(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, **_: Any) -> None:
            if (number := next(ended)) in marks:
                moments[number] = now(with_memory=True)

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        plain_trainable,
        param_space={
            "learning_rate": tune.loguniform(1e-4, 1e-1),
            "batch_size": tune.choice([32, 64, 128, 256, 512]),
            "optimizer": tune.choice(["sgd", "rmsprop", "adam"]),
        },
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            num_samples=trials,
            max_concurrent_trials=concurrent,
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(time_attr="epoch", max_t=EPOCHS, grace_period=EPOCHS - 1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(name="plain", storage_path=str(folder), callbacks=[Noting()], verbose=0),
    ).fit()
    ray.shutdown()
    show_moments(f"Ray Tune with OptunaSearch: {trials} trials x {EPOCHS} epochs", marks, [*moments.values()])


def plain_trainable(config: dict[str, Any]) -> None:
    """Report what `train_nothing` reports."""
    from ray import tune

    settings = TrialConfig(learning_rate=config["learning_rate"], epochs=EPOCHS)
    for metrics in train_nothing(settings, None, None):  # type: ignore[arg-type]
        tune.report(asdict(metrics))


def marks_of(trials: int) -> list[int]:
    """The numbers of ended trials after which something is noted."""
    return [round(1 + step * (trials - 1) / STEPS) for step in range(STEPS + 1)]


def show_moments(title: str, marks: list[int], moments: list[Moment]) -> None:
    """Print what trials cost along the way; the memory for each is that since the first tenth of them."""
    print(f"\n{title}")
    print(" trials  ms of wall  ms of the driver's CPU  MB of the driver  kB a trial  MB of the workers")
    for (start, before), (stop, after) in itertools.pairwise(zip(marks, moments, strict=True)):
        wall, cpu = (1000 * seconds / (stop - start) for seconds in (after.wall - before.wall, after.cpu - before.cpu))
        more = 1000 * (after.driver - moments[1].driver) / max(1, stop - marks[1])
        cells = f"{stop:>7}  {wall:>10.1f}  {cpu:>22.1f}  {after.driver:>16.0f}  {more:>10.1f}  {after.workers:>17.0f}"
        print(cells, flush=True)


@contextmanager
def terminal() -> Iterator[None]:
    """While this lasts, standard output is a terminal of our own, so that the live view is drawn."""
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    screen = subprocess.Popen(["cat"], stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(writer, 1)
    try:
        with mock.patch.dict(os.environ, {"TERM": "xterm-256color"}):
            yield
    finally:
        os.dup2(before, 1)
        for descriptor in (reader, writer, before):
            os.close(descriptor)
        screen.terminate()
        screen.wait()


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
    parser.add_argument("--parts", choices=[*PARTS, PEER], nargs="+", default=PARTS, help="what is measured")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes from command to exit")
    parser.add_argument("--dataset", default="fashion-mnist", help="data that they load")
    parser.add_argument("--trials", type=int, default=1000, help="trials of the long study")
    parser.add_argument("--max-concurrent", type=int, help="trials of the long study that run at a time")
    parser.add_argument("--keep", type=Path, help="an empty folder in which the studies stay")
    options = parser.parse_args()
    print(f"{provenance.command()}\n{provenance.machine()}\n{provenance.versions()}")
    with nullcontext(options.keep) if options.keep else TemporaryDirectory() as folder:
        if "start" in options.parts:
            command_to_exit(options.runs, options.dataset, Path(folder))
        if "trials" in options.parts:
            long_study(options.trials, options.max_concurrent, Path(folder))
        if PEER in options.parts:
            plain_ray_tune(options.trials, options.max_concurrent or 2, Path(folder).absolute())
        if "memory" in options.parts:
            memory_of_data(Path(folder))


if __name__ == "__main__":
    main()
