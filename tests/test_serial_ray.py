"""Commands run in the process of the tests: what they return, and that they leave no traces in it."""

import os
import signal
import sys
from pathlib import Path

import optuna
from serial_ray import run_command
from threadpoolctl import threadpool_info


def test_command_in_this_process_leaves_it_as_it_was(tmp_path: Path) -> None:
    def state() -> list[object]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        outputs = [sys.stdout, sys.stderr, *(os.fstat(descriptor).st_ino for descriptor in (1, 2))]
        threads = {library["user_api"]: library["num_threads"] for library in threadpool_info()}
        settings = [threads, optuna.logging.get_verbosity(), sys.argv, Path.cwd()]
        return [*handlers, *outputs, *settings, os.environ.get("TERM")]

    before = state()
    words = ["--dataset=digits", "--num-samples=1", "--epochs=1", "--results-dir=results"]
    run = run_command("search/run.py", *words, cwd=tmp_path, TERM="dumb")
    assert run.status == 0, run.stdout + run.stderr
    assert state() == before
    assert (tmp_path / "results" / "latest").is_dir()


def test_mistake_on_a_command_line_is_its_status_and_its_sentence() -> None:
    run = run_command("search/run.py", "--epochs", "0")
    assert (run.status, run.stdout, run.stderr) == (2, "", "error: epochs must be >= 1, got 0\n")
