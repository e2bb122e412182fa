import re
from pathlib import Path

from serial_ray import CompletedRun, become_command, run_command
from terminal_emulator import Terminal

from training.config import PROJECT


def run_training(*options: str, cwd: Path = PROJECT) -> CompletedRun:
    return run_command("training/run.py", *options, cwd=cwd)


def test_prints_what_the_tutorial_prints(tmp_path: Path) -> None:
    run = run_training("--dataset", "digits", "--epochs", "2", "--batch-size", "8", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert run.stdout.startswith("digits: 1198 training, 240 validation, 359 test images\n")
    assert re.findall(r"Epoch \d+\n-{31}\n", run.stdout) == [f"Epoch {n}\n{'-' * 31}\n" for n in (1, 2)]
    assert re.findall(r"loss: \d\.\d{6}  \[ *(\d+)/ 1198\]", run.stdout) == ["8", "808"] * 2
    assert len(re.findall(r"Test Error: \n Accuracy: \d+\.\d%, Avg loss: \d\.\d{6} \n", run.stdout)) == 2
    assert run.stdout.endswith("Done!\n")


def test_divergence_is_said_in_one_line() -> None:
    run = run_training("--dataset", "digits", "--learning-rate", "1e20")
    assert run.status == 1
    assert re.fullmatch(r"Diverged: train_loss is .* in epoch 1 after \d+ images; .*\n", run.stderr)


def test_want_of_memory_is_said_in_one_line() -> None:
    run = run_training("--dataset", "digits", "--width", "1000000")
    assert run.status == 2
    assert run.stderr.startswith("error: this training needs more memory than is available: ")
    assert run.stderr.count("\n") == 1


def test_terminal_has_a_bar_for_each_epoch_which_leaves_nothing() -> None:
    words = ["--dataset", "digits", "--epochs", "2", "--batch-size", "1"]
    terminal = Terminal(100, lambda: become_command("training/run.py", *words))
    terminal.wait_for(lambda: any(line.startswith("Epoch 2 of 2 ━") and "loss: " in line for line in terminal.lines))
    assert terminal.wait() == 0
    assert "━" not in terminal.text
    assert terminal.text.count("Test Error:") == 2
