from pathlib import Path
from subprocess import CompletedProcess

import pytest
from peers import Outcome, run, table
from serial_ray import run_command


def run_here(command: list[str], **_: object) -> CompletedProcess[str]:
    """Run a command of Python in this process, which has imported already what it needs."""
    script, *words = command[1:]
    done = run_command(script, *words)
    return CompletedProcess(command, done.status, done.stdout + done.stderr)


def test_peer_runs_all_trials_on_the_images_it_is_given(
    fashion_mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peers.subprocess.run", run_here)
    size = ["--num-samples=2", "--epochs=1", "--images=600", "--workers=2"]
    outcome = run("peer_optuna.py", *size, f"--data-dir={fashion_mnist_dir}")
    assert outcome.epochs == 2
    assert outcome.val_accuracy in [correct / 100 for correct in range(101)]  # a sixth is for validation
    assert 0 < outcome.test_accuracy < 1


def test_table_has_medians_and_ratios_to_the_first() -> None:
    ours = [Outcome(seconds, 100, 0.88, 0.87) for seconds in (9.0, 10.0, 30.0)]
    lines = table({"ours": ours, "theirs": [Outcome(75.0, 200, 0.89, 0.88)]}).splitlines()
    assert lines[1].split() == ["ours", "10.0", "1.00", "100", "0.8800", "0.8700"]
    assert lines[2].split() == ["theirs", "75.0", "7.50", "200", "0.8900", "0.8800"]
