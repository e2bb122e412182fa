"""How a program ends from outside: by a signal, with its output, without Ray, with too little memory or path."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty
import pandas as pd
import pytest
import ray
from ray import tune
from serial_ray import StartedRun, run_command

from search.engine import tuner
from search.engine.local_ray import LocalRay, check_system
from search.engine.time_limit import read_stacks, time_limit
from search.engine.width import Width
from training.config import PROJECT
from training.console.command_line import run_command as run_as_program
from training.console.terminal import short_path

ONE_TRIAL = ["--dataset=digits", "--num-samples=1", "--epochs=1", "--no-dashboard", "--name=study"]


def started(folder: Path, trainable: Any, *options: str) -> StartedRun:
    """A study of one trial whose trainable is another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner, "trainable", trainable)
        return StartedRun("search/run.py", *ONE_TRIAL, f"--results-dir={folder}", *options)


# SIGTERM


def ends_its_study_and_fails(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    raise ValueError("a process of the training got the signal, too")


def test_failure_after_a_signal_is_an_interrupted_trial(tmp_path: Path) -> None:
    def trainable(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        failure = {"kind": "exception", "error": "ValueError: a process of the training got the signal, too"}
        tune.report({"failure": failure})

    status, output = started(tmp_path, trainable).end()
    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in output
    assert f"Interrupted. To continue: python search/run.py --resume {short_path(tmp_path / 'study')}" in output
    assert pd.read_csv(tmp_path / "study" / "trials.csv")["status"].tolist() == ["interrupted"]


def test_what_fails_on_a_node_that_cannot_run_trials_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    """Twice the trial is on such a node; in the third place its failure counts."""
    places = iter([False, False, True])

    def trainable(*_: object, **__: object) -> None:
        tune.report({"failure": {"kind": "exception", "error": "ModuleNotFoundError: torch"}, "node": ""})
        raise ModuleNotFoundError("torch")

    monkeypatch.setattr(tuner, "trainable", trainable)
    monkeypatch.setattr(Width, "trusts", lambda *_: next(places))
    run = run_command("search/run.py", *ONE_TRIAL, f"--results-dir={tmp_path}", "--max-failures=0")
    assert run.status == 1
    assert next(places, None) is None
    trials = pd.read_csv(tmp_path / "study" / "trials.csv")
    assert trials["error"].tolist() == ["ModuleNotFoundError: torch"]


def test_worker_that_the_signal_ended_does_not_count_as_a_failure(tmp_path: Path) -> None:
    status, output = started(tmp_path, ends_its_study_and_fails, "--max-failures=0").end()
    assert status == 128 + signal.SIGTERM
    assert "worker died" not in output
    assert pd.read_csv(tmp_path / "study" / "trials.csv")["status"].tolist() == ["interrupted"]


def test_sigterm_before_the_first_trial_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        print("loading", flush=True)
        time.sleep(60)

    monkeypatch.setattr("search.engine.runners.load_data", load)
    with StartedRun("search/run.py", *ONE_TRIAL, f"--results-dir={tmp_path / 'results'}") as run:
        while "loading" not in run.output:
            time.sleep(0.01)
        run.send(signal.SIGTERM)
        assert run.end() == (128 + signal.SIGTERM, "loading\n")
    assert not (tmp_path / "results").exists()


def test_processes_of_a_training_can_be_ended(tmp_path: Path) -> None:
    """Ray's workers inherit the blocked signal; a pool of processes ends its own by it, and would wait for ever."""
    (tmp_path / "train.py").write_text(
        "import subprocess, sys\n"
        "def train(config):\n"
        "    child = subprocess.Popen([sys.executable, '-Sc', 'import time; time.sleep(60)'])\n"
        "    child.terminate()\n"
        "    yield {'loss': float(child.wait(10))}\n"
    )
    (tmp_path / "space.toml").write_text("[lr]\nlow = 0.0\nhigh = 1.0\n")
    options = [
        f"--train-function={tmp_path}/train.py:train",
        f"--space={tmp_path}/space.toml",
        "--metric=loss",
        "--mode=min",
    ]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        run = run_command("search/run.py", *ONE_TRIAL[1:], *options, f"--results-dir={tmp_path}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert run.status == 0, run.stdout
    assert pd.read_csv(tmp_path / "study" / "trials.csv")["loss"].tolist() == [-signal.SIGTERM]


# Ray that dies


def test_death_of_a_process_of_ray_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = {name: subprocess.Popen(["sleep", "60"]) for name in ("raylet", "gcs_server")}
    node = SimpleNamespace(all_processes={name: [SimpleNamespace(process=one)] for name, one in processes.items()})
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    session, noticed = LocalRay(dashboard=False), threading.Event()
    died: list[str] = []

    def end(name: str) -> None:
        died.append(name)
        noticed.set()

    session._is_ours = True
    session.on_crash(end)
    processes["gcs_server"].kill()
    assert noticed.wait(10)
    session._is_ours = False  # as when Ray is ended by us
    processes["raylet"].kill()
    processes["raylet"].wait()
    time.sleep(0.1)
    assert died == ["gcs_server"]


def test_study_without_ray_ends_with_the_command_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalRay, "on_crash", lambda _, end: end("raylet"))
    status, output = started(tmp_path, faulty.slow).end()
    assert status == 1
    assert output.endswith(
        "\nStopped: raylet, a process of Ray, has died. What was recorded is safe. "
        f"To continue: python search/run.py --resume {short_path(tmp_path / 'study')}\n"
    )


# Output that cannot be written


def test_full_disk_of_the_output_does_not_end_a_study(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        run = StartedRun("search/run.py", *ONE_TRIAL, f"--results-dir={tmp_path}", stdout=full.fileno())
    assert run.end() == (0, "error: standard output cannot be written: No space left on device\n")
    assert (tmp_path / "study" / "report.html").is_file()


@pytest.mark.parametrize(
    ("redirection", "status", "error"),
    [
        ("> /dev/full", 1, "error: standard output cannot be written: No space left on device\n"),
        (">&- <&-", 0, ""),
        ("> /dev/full 2>&1", 1, ""),
    ],
)
def test_help_that_cannot_be_written(redirection: str, status: int, error: str) -> None:
    command = f"{sys.executable} {PROJECT}/training/run.py --help {redirection}"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (status, error)


def test_report_is_named_only_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("search.outputs.report.write_report", write)
    run = run_command("search/run.py", *ONE_TRIAL, f"--results-dir={tmp_path}")
    assert "the report cannot be written (No space left on device)" in run.stdout
    assert "Report:" not in run.stdout


def test_one_is_singular_and_an_inactive_whole_number_is_an_empty_cell(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[flip]\nchoices = [false, true]\n[shift]\nlow = 1\nhigh = 2\nwhen = { flip = true }\n")
    run = run_command("search/run.py", *ONE_TRIAL, f"--space={space}", f"--results-dir={tmp_path}")
    assert "1 trial of 1 epoch for the highest val_accuracy" in run.stdout
    table = run.stdout[run.stdout.index(" trial_number") :]
    assert "False" in table
    assert "NA" not in table
    assert "of 1 epoch in 1 trial." in " ".join((tmp_path / "study/model/README.md").read_text().split())


# Systems that are too small


def refusal(*options: str) -> str:
    run = run_command("search/run.py", *ONE_TRIAL[:-1], *options)
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    return run.stderr


def test_long_paths_and_names_are_refused(tmp_path: Path) -> None:
    long = tmp_path.joinpath(*["d" * 90] * 6)
    assert "is too long for sqlite" in refusal(f"--results-dir={long}")
    assert not list(tmp_path.iterdir())
    assert "File name too long" in refusal(f"--results-dir={tmp_path / ('n' * 300)}")
    assert "name must be 1 to 100 letters" in refusal(f"--results-dir={tmp_path}", f"--name={'n' * 300}")


def test_system_on_which_ray_would_not_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 << 30, resource.RLIM_INFINITY))
    assert "the limit of virtual memory (ulimit -v) is 4096 MiB" in refusal(f"--results-dir={tmp_path}")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="no folder in PATH has it"):
        check_system()


def test_library_that_does_not_fit_into_the_memory_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 29, resource.RLIM_INFINITY))
    monkeypatch.setattr("training.console.command_line.guard_output", lambda **_: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="1"):
            run_as_program(main, outlive_reader=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == (
        "error: the limit of virtual memory (ulimit -v) of 512 MiB is too small: "
        "libtorch_cpu.so: failed to map segment from shared object\n"
    )


# time that is up


@pytest.mark.parametrize(("seconds", "is_first"), [(0.2, True), (60, False)], ids=["is up", "is not up"])
def test_stack_of_the_training_comes_first_if_its_time_is_up(tmp_path: Path, seconds: float, is_first: bool) -> None:
    worker = os.fork()
    if worker == 0:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        with time_limit(seconds, tmp_path / "trial-0007.pt"):
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(worker, 0)
    lines = [line for line in read_stacks(tmp_path / "trial-0007.pt").splitlines() if line.startswith("  File")]
    name = "test_stack_of_the_training_comes_first_if_its_time_is_up"
    assert [line.endswith(name) for line in lines[:1]] == ([True] if is_first else [])
