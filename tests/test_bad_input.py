"""Mistakes on the command line: one sentence, exit status 2, and nothing on disk changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serial_ray import run_command

from training.config import PROJECT

MISTAKES = {
    "--num-samples 0": "num_samples must be >= 1, got 0",
    "--num-samples -3": "num_samples must be >= 1, got -3",
    "--num-samples abc": "--num-samples must be a whole number, got 'abc'",
    "--max-concurrent 1.5": "--max-concurrent must be a whole number, got '1.5'",
    "--val-fraction 1,5": "--val-fraction must be a number, got '1,5'",
    "--num-samples": "--num-samples needs a value",
    "--warm-start  --epochs 1": "--warm-start needs a value",
    "--metric=": "--metric needs a value",
    "--epochs 0": "epochs must be >= 1, got 0",
    "--dataset cifar": "dataset must be one of auto, fashion-mnist, mnist, kmnist, cifar10, digits, a folder",
    "--dataset ./nowhere": f"there is no folder {Path.cwd()}/nowhere",
    "--dataset nowhere.py:load": f"dataset {Path.cwd()}/nowhere.py:load cannot be imported: ValueError: there is",
    "--network resnet": "network must be one of mlp, cnn or an import path like path/to/file.py:build, got resnet",
    "--network nowhere.py:build": f"network {Path.cwd()}/nowhere.py:build cannot be imported: ValueError: there is no",
    "--space {file}": "search space {file}: there is no hyperparameter to search",
    "--space {file}.toml": "there is no file {file}.toml to read the search space from",
    "--set learning_rate": "set learning_rate: must be NAME=VALUE",
    "--set width=8 --set depth=3": "--set is given twice: write all its values after one --set",
    "--set momentum=1": "set momentum=1: momentum must be in [0, 1), got 1.0",
    "--train-function json:loads": "train_function needs metric",
    "--mode max": "mode is only for train_function",
    "--image-size 0": "image_size must be between 1 and 1024, got 0",
    "--scheduler pbt": "--scheduler must be one of asha, promotion, median, hyperband, none, got pbt",
    "--prior learning_rate=7": "prior learning_rate=7: the search space has learning_rate",
    "--prior rate=0.1": "prior rate=0.1: rate is not a hyperparameter",
    "--prior learning_rate": "prior learning_rate: must be NAME=VALUE",
    "--prior learning_rate=0.1 --sampler tpe": "prior needs sampler gp, got tpe",
    "--sampler grid": "--sampler must be one of gp, tpe, random, qmc, got grid",
    "--grace-period 11": "grace_period must be at most epochs, 10, got 11",
    "--reduction-factor 1": "reduction_factor must be >= 2, got 1",
    "--grace-epochs 2": "--grace-epochs has another name now: use --grace-period",
    "--reduction 3": "--reduction has another name now: use --reduction-factor",
    "--metric f1": "metric must be one of val_accuracy, val_loss, test_accuracy, test_loss, got f1",
    "--metric test_loss": "metric test_loss would choose by the test images",
    "--val-fraction 1": "val_fraction must be in [0, 1), got 1.0",
    "--val-fraction 0.9999": "val_fraction 0.9999 leaves none of the 1438 images to train on",
    "--num-sample": "unknown option --num-sample",
    "stray": "unknown option stray",
    "--name ../up": "name must be 1 to 100 letters, digits",
    "--name a/b": "name must be 1 to 100 letters, digits",
    "--name ..": "name must be 1 to 100 letters, digits",
    "--name taken": "name taken is taken",
    "--name latest": "name latest is taken",
    "--data-dir {file}": "data_dir must be a folder",
    "--results-dir {file}": "results_dir must be a folder",
    "--results-dir {file}/below": "the results folder cannot be written",
    "--cpus-per-trial 4096": "cpus_per_trial is 4096, but this machine has",
    "--address cluster": "address must be auto or host:port, got 'cluster'",
    "--address ray://127.0.0.1:10001": "address must be auto or host:port",
    "--address 127.0.0.1:1": "nothing answers at address 127.0.0.1:1: Connection refused",
    "--address 127.0.0.1:70000": "nothing answers at address 127.0.0.1:70000",
    "--address nowhere.invalid:6379": "nothing answers at address nowhere.invalid:6379",
    "--memory-per-trial 4000TB": "memory_per_trial is 4000TB, but this machine has",
    "--node-label place=here": "node_label needs address: without a cluster, this machine runs all trials",
    "--gpus-per-trial 64": "gpus_per_trial is 64, but torch finds",
}


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def refused(script: str, *options: str) -> str:
    run = run_command(script, *options)
    assert run.status == 2, run.stdout + run.stderr
    assert run.stdout == ""
    return run.stderr


def refused_by_a_process(script: str, *options: str) -> str:
    command = [sys.executable, str(PROJECT / script), *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    return run.stderr


@pytest.mark.parametrize("options", MISTAKES)
def test_mistake_gets_one_sentence_and_changes_nothing(options: str, tmp_path: Path) -> None:
    (tmp_path / "results" / "taken").mkdir(parents=True)
    file = tmp_path / "file"
    file.touch()
    before = snapshot(tmp_path)
    words = ["--dataset", "digits", "--results-dir", str(tmp_path / "results"), *options.format(file=file).split(" ")]
    sentence = refused("search/run.py", *words)
    assert sentence.count("\n") == 1
    assert sentence.startswith("error: " + MISTAKES[options].replace("{file}", str(file)))
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_forbidden_folders_are_refused(tmp_path: Path) -> None:
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir(mode=0o000)
    results = refused("search/run.py", "--dataset", "digits", "--results-dir", str(forbidden))
    assert "the results folder cannot be written" in results
    data = refused("search/run.py", "--dataset", "fashion-mnist", "--data-dir", str(forbidden))
    assert "Permission denied" in data
    forbidden.chmod(0o700)


def test_current_folder_that_was_removed_is_told(tmp_path: Path) -> None:
    gone, script = tmp_path / "gone", PROJECT / "training/run.py"
    gone.mkdir()
    command = ["sh", "-c", f'rmdir "$1"; exec "{sys.executable}" "{script}" --dataset digits', "sh", str(gone)]
    run = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
    sentence = "error: the current folder does not exist any more: change to another one\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", sentence)


def test_folder_of_a_study_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    assert f"no study.db is in {place}; if" in refused("search/report.py", str(place))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--optimizer lion", "--optimizer must be one of sgd, adam, adamw, rmsprop, got lion"),
        ("--batch-size 0", "batch_size must be >= 1, got 0"),
        ("--momentum 0.9 --optimizer adam", "momentum is for sgd and rmsprop, got momentum 0.9 with adam"),
        ("--threads 0", "threads must be >= 1, got 0"),
        ("--val-fraction 0.9999", "val_fraction 0.9999 leaves none of the 1438 images to train on"),
        ("--split-seed -1", "split_seed must be between 0 and 4294967295, got -1"),
    ],
)
def test_training_refuses_a_mistake_in_one_sentence(options: str, sentence: str) -> None:
    assert refused("training/run.py", "--dataset", "digits", *options.split()) == f"error: {sentence}\n"


@pytest.mark.parametrize(
    ("script", "options", "sentence"),
    [
        ("search/run.py", "--epochs 0", "epochs must be >= 1, got 0"),
        ("training/run.py", "--batch-size 0", "batch_size must be >= 1, got 0"),
    ],
)
def test_mistake_is_the_exit_status_and_the_sentence_of_its_process(
    script: str, options: str, sentence: str, tmp_path: Path
) -> None:
    words = [f"--results-dir={tmp_path}"] if script == "search/run.py" else []
    told = refused_by_a_process(script, "--dataset=digits", *words, *options.split())
    assert told == f"error: {sentence}\n"
