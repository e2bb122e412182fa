"""What happens to workers, disks and machines, caused for real: the study goes on, says so, and has the right row."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Self

import faulty
import pandas as pd
import pytest
from serial_ray import StartedRun, Variables, run_command
from studies import NUMBERS
from test_time_accounting import parts

from search.engine import tuner
from search.engine.cluster import Node
from search.engine.header import header_lines
from search.engine.running_studies import RunningStudy, announce
from search.engine.study import prepare_study
from search.record.lookup import stored_settings
from search.record.study_record import StudyRecord
from search.run import run_study
from search.settings import StudySettings
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.loop import train

SMALL = ["--dataset", "digits", "--no-dashboard", "--scheduler", "none"]


Run = Callable[..., tuple[int, pd.DataFrame, str]]


@pytest.fixture
def run_serially(
    without_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Runs a study with a faulty trainable without Ray; returns exit status, trials by number and output."""

    def run(trainable: Any, **options: Any) -> tuple[int, pd.DataFrame, str]:
        monkeypatch.setattr(tuner, "trainable", trainable)
        settings = {"dataset": "digits", "num_samples": 3, "epochs": 4, "scheduler": "none", "results_dir": tmp_path}
        study = prepare_study(StudySettings(**{**settings, **options}))
        status = run_study(study)
        trials = pd.read_csv(study.record.folder / "trials.csv").set_index("trial_number").sort_index()
        return status, trials, capfd.readouterr().out

    return run


def curve(folder: Path, trial_number: int) -> pd.DataFrame:
    epochs = pd.read_csv(folder / "epochs.csv")
    return epochs.loc[epochs["trial_number"] == trial_number, NUMBERS]


def test_same_error_three_times_in_a_row_ends_the_study(run_serially: Run) -> None:
    status, trials, output = run_serially(faulty.always_raises, num_samples=10, max_concurrent=1)
    assert status == 1
    assert trials["status"].tolist() == ["failed"] * 3
    assert "3 trials in a row raised the same error, so the study ended early. Correct the cause of this" in output
    assert "first. To continue: " in output


def test_batch_that_cannot_fit_is_a_failed_row(run_serially: Run, tmp_path: Path) -> None:
    status, trials, output = run_serially(faulty.asks_for_too_much, name="study")
    assert status == 0
    assert trials["status"].tolist() == ["completed", "failed", "completed"]
    assert "can't allocate memory" in str(trials.loc[1, "error"])
    assert "; the trial" not in output
    failure = StudyRecord.open(tmp_path / "study").trials[1].failure
    assert failure is not None
    assert failure.kind == "out_of_memory"


def test_time_budget_ends_the_study_softly_and_it_can_go_on(run_serially: Run, tmp_path: Path) -> None:
    status, trials, output = run_serially(faulty.slow, name="study", epochs=30, num_samples=4, time_budget="2s")
    assert "The time budget is used up. To continue: " in output
    assert status == 1  # none completed
    assert trials["status"].tolist() == ["interrupted"]
    assert (trials["epochs"] > 0).all()
    resumed = prepare_study(stored_settings(tmp_path / "study"))
    assert resumed.settings.time_budget is None
    assert resumed.trials_to_run == 4


def test_clock_that_jumps_back_changes_nothing(run_serially: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real_time, started = time.time, time.monotonic()

    def jumping() -> float:
        return real_time() - 86400 * (time.monotonic() - started > 0.7)

    monkeypatch.setattr(time, "time", jumping)
    trainable = partial(faulty.slow, seconds=0.1)
    status, trials, output = run_serially(trainable, time_budget="10m", trial_timeout="10m")
    assert time.monotonic() - started > 0.7
    assert status == 0
    assert trials["status"].tolist() == ["completed"] * 3
    assert (trials["seconds"] > 0).all()
    assert re.search(r"3 of 3 trials in \d+ s:", output)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


class RunningSearch:
    """A study on digits of which each trial is faulty, watched while it runs in a copy of this process."""

    def __init__(
        self, trainable: Any, folder: Path, *options: str, real: bool = False, variables: Variables | None = None
    ) -> None:
        """Start it, by default without Ray."""
        words = [*SMALL, "--results-dir", str(folder.parent), "--name", folder.name, *options]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tuner, "trainable", trainable)
            self._run = StartedRun("search/run.py", *words, real=real, variables=variables)
        self.folder = folder
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing that still runs."""
        self._run.__exit__()

    @property
    def output(self) -> str:
        """All that it has printed by now."""
        return self._run.output

    def wait_for_output(self, text: str) -> None:
        """Wait until it prints the text, behind what was waited for before."""
        wait_for(lambda: text in self.output[self._read :], text)
        self._read = self.output.index(text, self._read) + len(text)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._run.send(number)

    def end(self) -> int:
        """Wait for the end; returns the exit status."""
        return self._run.end()[0]

    def trials(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "trials.csv").set_index("trial_number").sort_index()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB of our own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no space on a disk, also when a checkpoint that could not be written gives its space back."""
    filler, ended = disk / "filler", threading.Event()

    def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while not ended.is_set():
                try:
                    file.write(bytes(4096))
                except OSError:
                    ended.wait(0.01)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Lay a read-only view over a disk."""
    subprocess.run(["mount", "-o", "bind,ro", disk, disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="module")
def study_of_failures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSearch]:
    """A study that has ended, in which trials 1 to 5 failed, each in its own way."""
    folder = tmp_path_factory.mktemp("failures") / "study"
    options = ["--num-samples", "7", "--epochs", "4", "--trial-timeout", "20s"]
    with RunningSearch(faulty.fails_in_every_way, folder, *options, real=True) as search:
        assert search.end() == 0, search.output
        yield search


@pytest.mark.ray
def test_study_goes_on_when_trials_fail(study_of_failures: RunningSearch) -> None:
    trials, output = study_of_failures.trials(), study_of_failures.output
    assert trials["status"].tolist() == [
        "completed",
        "failed",
        "diverged",
        "completed",
        "failed",
        "failed",
        "completed",
    ], f"{trials['error'].tolist()}\n{output}"
    assert "digits: 7 of 7 trials" in output
    assert "3 completed, 3 failed, 1 diverged" in output
    assert "Traceback" not in output
    assert "A worker died" not in output  # in Ray's words
    ranked = pd.read_csv(study_of_failures.folder / "trials.csv")["trial_number"]
    assert sorted(ranked[-4:]) == [1, 2, 4, 5]
    assert trials.loc[1, "error"] == "ValueError: optimizer must be one of sgd, adam, adamw, rmsprop, got unknown"
    assert "Traceback" in (study_of_failures.folder / "errors" / "trial-0001.txt").read_text()
    assert re.fullmatch(r"train_loss is (nan|inf) in epoch 1 after \d+ images", str(trials.loc[2, "error"]))


@pytest.mark.ray
def test_trial_whose_worker_was_killed_goes_on_from_its_checkpoint(
    study_of_failures: RunningSearch, digits: ImageData
) -> None:
    assert re.search(r"! trial 3: worker died: .*; the trial continues after epoch 2\n", study_of_failures.output)
    record = StudyRecord.open(study_of_failures.folder)
    assert parts(record)["lost"] > 0
    died = record.trials[3]
    assert (died.status, died.failure, died.worker_failures) == ("completed", None, 1)
    config = TrialConfig(**died.hyperparameters, epochs=4, seed=3)  # type: ignore[arg-type]
    alone = pd.DataFrame([asdict(metrics) for metrics in train(config, digits)])[NUMBERS]
    pd.testing.assert_frame_equal(curve(study_of_failures.folder, 3).reset_index(drop=True), alone, rtol=1e-12)


@pytest.mark.ray
def test_trial_whose_worker_dies_too_often_fails(study_of_failures: RunningSearch) -> None:
    assert str(study_of_failures.trials().loc[4, "error"]).startswith("worker died: ")
    assert study_of_failures.output.count("! trial 4: ") == 1
    assert study_of_failures.output.count("the trial starts again") == 1


@pytest.mark.ray
def test_trial_that_hangs_is_ended(study_of_failures: RunningSearch) -> None:
    assert re.fullmatch(
        r'took longer than trial_timeout; it was at File ".*faulty.py", line \d+ in .*',
        str(study_of_failures.trials().loc[5, "error"]),
    )


@pytest.mark.ray
def test_study_outlives_a_full_a_read_only_and_a_removed_folder(small_disk: Path) -> None:
    """It also runs without a home, where Ray keeps its token, and beside the remains of a cluster."""
    remains = Path(os.environ["RAY_TMPDIR"]) / "ray" / "ray_current_cluster"
    remains.parent.mkdir(exist_ok=True)
    remains.write_text("192.0.2.1:6379")
    study, epochs = small_disk / "study", 15
    options = ["--num-samples", "4", "--epochs", str(epochs)]
    with RunningSearch(faulty.slow, study, *options, real=True, variables={"HOME": "/proc/1"}) as search:
        search.wait_for_output("Ended trials")
        wait_for(lambda: any(study.glob("checkpoints/*")), "the first epoch")

        with full(small_disk):
            search.wait_for_output(
                "! the record cannot be written (database or disk is full); the study waits until this"
            )
        search.wait_for_output("! the record can be written again")

        with read_only(small_disk):
            search.wait_for_output("! the record cannot be written")
        search.wait_for_output("! the record can be written again")

        shutil.rmtree(study)
        search.wait_for_output("! the record cannot be written")
        search.wait_for_output("! the record can be written again")

        assert search.end() == 0
    assert search.trials()["status"].tolist() == ["completed"] * 4
    assert search.trials()["error"].isna().all()
    for number in range(4):
        assert curve(study, number)["epoch"].tolist() == list(range(1, epochs + 1))
    assert [trial.status for trial in StudyRecord.open(study).trials] == ["completed"] * 4
    assert not list(Path("/proc/1").glob(".ray"))
    assert not list(Path("/tmp").glob("ray-token-*"))


def test_interrupt_ends_a_study_that_waits_for_its_disk(small_disk: Path) -> None:
    with RunningSearch(faulty.slow, small_disk / "study", "--num-samples", "1", "--epochs", "50") as search:
        wait_for(lambda: any((small_disk / "study").glob("checkpoints/*")), "the first epoch")
        with read_only(small_disk):
            search.wait_for_output("! the record cannot be written")
            search.send(signal.SIGINT)
            assert search.end() == 130
    assert "Stopped: the record cannot be written" in search.output
    assert "Traceback" not in search.output
    assert {trial.status for trial in StudyRecord.open(small_disk / "study").trials} == {"interrupted"}


def test_second_interrupt_ends_the_process_at_once(tmp_path: Path) -> None:
    trainable = partial(faulty.slow, seconds=20)  # what ends in order ends after the epoch
    with RunningSearch(trainable, tmp_path / "study", "--num-samples", "1", "--epochs", "50") as search:
        wait_for(lambda: any((tmp_path / "study").glob("checkpoints/*")), "the first epoch")
        search.send(signal.SIGINT)
        time.sleep(0.3)
        search.send(signal.SIGINT)
        interrupted = time.monotonic()
        assert search.end() == 130
    assert time.monotonic() - interrupted < 5
    assert search.output.endswith("Stopped immediately; what was recorded is safe.\n")
    assert {trial.status for trial in StudyRecord.open(tmp_path / "study").trials} == {"interrupted"}


@pytest.mark.ray
def test_worker_killed_for_memory_does_not_end_the_study(tmp_path: Path) -> None:
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(meminfo[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    limit = (total - available + 4_000_000) / total
    variables = {"RAY_memory_usage_threshold": f"{limit:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    options = ["--num-samples", "3", "--epochs", "3", "--max-failures", "0"]
    options += ["--max-concurrent", "1"]  # Ray may end another worker than the one that takes the memory
    with RunningSearch(faulty.fills_the_memory, tmp_path / "study", *options, real=True, variables=variables) as search:
        assert search.end() == 0, search.output
    trials = search.trials()
    assert trials["status"].tolist() == ["completed", "failed", "completed"]
    assert re.fullmatch(
        r"the memory was full, and Ray ended its worker(, which used \d+\.\d+GB)?", str(trials.loc[1, "error"])
    )
    assert "Traceback" not in search.output


def stay_announced(study: RunningStudy, is_announced: Event) -> None:
    """Be this study, until somebody ends this process."""
    with announce(study):
        is_announced.set()
        time.sleep(60)


@contextmanager
def neighbour(cpus: int, gpus: float = 0.0) -> Iterator[ForkProcess]:
    processes = get_context("fork")
    is_announced = processes.Event()
    process = processes.Process(target=stay_announced, args=[RunningStudy("study first", cpus, gpus), is_announced])
    process.start()
    try:
        assert is_announced.wait(timeout=30)
        yield process
    finally:
        process.kill()
        process.join()


def test_second_study_on_a_machine_leaves_the_first_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("search.engine.concurrency.this_machine", lambda: Node("this machine", 8, 0))
    settings = StudySettings(dataset="digits", results_dir=tmp_path)
    with neighbour(6):
        beside = prepare_study(settings)
    assert "  also runs  study first, on 6 cores of this machine" in header_lines(beside)
    assert beside.machines.max_concurrent_trials == 2
    with neighbour(1, 0.5):
        header = header_lines(prepare_study(settings))
    assert "  also runs  study first, on 1 core and 0.5 GPU of this machine" in header
    with neighbour(8) as process:
        assert prepare_study(settings).machines.max_concurrent_trials == 1  # at least one
        process.kill()
        process.join()
        alone = prepare_study(settings).machines  # a killed study takes no cores
    assert (alone.max_concurrent_trials, alone.running_studies) == (8, [])


def test_data_that_is_damaged_while_a_study_runs_harms_it_not(fashion_mnist_dir: Path, tmp_path: Path) -> None:
    """The images are read once; who resumes the study is told about the file."""
    data = tmp_path / "data" / "FashionMNIST" / "raw"
    shutil.copytree(fashion_mnist_dir / "FashionMNIST" / "raw", data)
    where = ["--dataset", "fashion-mnist", "--data-dir", str(tmp_path / "data"), "--val-fraction", "0.9"]
    options = [*where, "--num-samples", "1", "--epochs", "1"]
    with RunningSearch(faulty.slow, tmp_path / "study", *options) as search:
        search.wait_for_output("Ended trials")
        damaged = data / "train-images-idx3-ubyte"
        damaged.chmod(0o644)
        with damaged.open("r+b") as stream:
            stream.seek(1000)
            stream.write(b"damage")
        assert search.end() == 0
    assert search.trials()["status"].tolist() == ["completed"]
    again = run_command("search/run.py", "--resume", str(tmp_path / "study"), "--num-samples", "+1")
    assert again.status == 2
    assert again.stderr.startswith("error: corrupt file of fashion-mnist: ")
