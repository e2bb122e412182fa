"""Studies and trainings on a GPU; these tests need one, and run in a minute."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from serial_ray import run_command
from studies import without_seconds

from training import loop
from training.checkpoint import Checkpoint
from training.config import PROJECT, TrialConfig
from training.images.image_data import ImageData, ImageSplit
from training.networks.network_config import config_type
from training.networks.networks import NeuralNetwork

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

EXAMPLE = f"{PROJECT}/examples/own_network"
Options = dict[str, Any]
ADAM: Options = {"optimizer": "adam", "learning_rate": 1e-3}
SGD: Options = {"optimizer": "sgd", "momentum": 0.9}
OUT_OF_MEMORY = """
import torch

def train(config):
    blocks = []
    for epoch in range(1, 3):
        if config["size"] > 0.5:
            blocks += [torch.empty(2**30, device="cuda") for _ in range(1000)]
        yield {"loss": config["size"] + len(torch.zeros(8, device="cuda")) / epoch}
"""
VISIBLE = """
import torch

def train(config):
    for epoch in range(3):
        yield {"loss": config["x"], "gpus": torch.cuda.device_count()}
"""
PROGRAM = """
import json, sys, time, torch
x = torch.ones(int(float(sys.argv[1]) * 2**28), device="cuda")
torch.cuda.synchronize()
time.sleep(1.5)
print(json.dumps({"loss": float(x[0])}), flush=True)
"""


@pytest.fixture
def on_gpu(digits: ImageData) -> ImageData:
    return digits.to("cuda")


def configured(network: str = "mlp", **options: Any) -> TrialConfig:
    return config_type(network)(network=network, **options)


def run_to_end(training: loop.Training) -> None:
    while training.epoch < training.config.epochs:
        for _ in training.train_epoch():
            pass
        training.measure_epoch()


def study_of(folder: Path, *options: str, trials: int = 4) -> pd.DataFrame:
    where = ["--results-dir", f"{folder}/out", "--name", "study", "--no-dashboard", "--num-samples", str(trials)]
    run = run_command("search/run.py", *options, *where)
    assert run.status == 0, run.stdout + run.stderr
    return pd.read_csv(folder / "out/study/trials.csv")


@pytest.mark.parametrize("options", [ADAM, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_training_on_a_gpu_measures_what_it_measures_on_a_processor(
    digits: ImageData, on_gpu: ImageData, network: str, options: Options
) -> None:
    config = configured(network, epochs=3, batch_size=32, dropout=0.0, **options)  # drawn in another way on a GPU
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # convolutions with 10 bits of mantissa, which is how torch begins
    try:
        for here, there in zip(loop.train(config, digits), loop.train(config, on_gpu), strict=True):
            assert there.train_loss == pytest.approx(here.train_loss, rel=0.005)
            assert there.val_loss == pytest.approx(here.val_loss, rel=0.02)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


OF_GRAPHS = [
    *(ADAM, SGD, SGD | {"momentum": 0.0}, ADAM | {"optimizer": "rmsprop"}, ADAM | {"optimizer": "adamw"}),
    *(ADAM | {"weight_decay": 0.01}, ADAM | {"precision": "bf16"}, ADAM | {"dropout": 0.3}),
    *(SGD | {"lr_schedule": "onecycle"}, ADAM | {"lr_schedule": "cosine"}, ADAM | {"shift": 2, "flip": True}),
    ADAM | {"optimizer": "rmsprop", "lr_schedule": "cosine"},
]


@pytest.mark.parametrize("options", OF_GRAPHS, ids=str)
def test_replayed_steps_give_the_same_numbers(on_gpu: ImageData, options: Options) -> None:
    config = configured(epochs=3, batch_size=64, seed=3, **options)
    replayed = loop.Training(config, on_gpu)
    assert replayed.graph is not None
    usual = loop.Training(config, on_gpu)
    usual.graph = None
    for training in (replayed, usual):
        torch.manual_seed(5)
        run_to_end(training)
    assert replayed.graph.is_captured
    assert without_seconds(replayed.metrics) == without_seconds(usual.metrics)


def test_step_that_cannot_be_captured_is_taken_as_usual(on_gpu: ImageData) -> None:
    class Waiting(torch.nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return logits * (1.0 if logits.sum().item() < 1e9 else 0.0)

    config = configured(epochs=2, batch_size=64, dropout=0.2, seed=3, **ADAM)
    training = loop.Training(config, on_gpu)
    assert isinstance(training.model, NeuralNetwork)
    training.model.linear_relu_stack.append(Waiting())
    usual = loop.Training(config, on_gpu)
    usual.graph = None
    for one in (training, usual):
        torch.manual_seed(5)
        run_to_end(one)
    assert training.graph is not None
    assert not training.graph.is_captured
    assert without_seconds(training.metrics) == without_seconds(usual.metrics)


INTERRUPTED = [
    *(ADAM, SGD, ADAM | {"precision": "bf16"}, SGD | {"lr_schedule": "onecycle"}),
    ADAM | {"optimizer": "rmsprop", "momentum": 0.5, "lr_schedule": "cosine"},
]


@pytest.mark.parametrize("options", INTERRUPTED, ids=str)
@pytest.mark.parametrize("steps", [0, 5])
def test_interrupted_training_goes_on_on_a_gpu_with_the_same_numbers(
    on_gpu: ImageData, tmp_path: Path, options: Options, steps: int
) -> None:
    config = configured(epochs=3, batch_size=64, dropout=0.2, seed=3, **options)
    whole = without_seconds(list(loop.train(config, on_gpu)))
    first, checkpoint = loop.Training(config, on_gpu), Checkpoint(tmp_path / "trial.pt")
    for _ in first.train_epoch():
        pass
    first.measure_epoch()
    for _, _ in zip(range(steps), first.train_epoch(), strict=False):
        pass
    checkpoint.save(first.epoch - (steps > 0), **first.objects)
    torch.rand(9, device="cuda")  # whoever draws in between changes nothing
    second = loop.Training(config, on_gpu)
    checkpoint.load(**second.objects)
    run_to_end(second)
    assert without_seconds(second.metrics) == whole


def test_batch_that_does_not_fit_into_the_gpu_is_divided() -> None:
    images, labels = torch.randint(0, 256, (4096, 1, 28, 28), dtype=torch.uint8), torch.arange(4096) % 10
    split = ImageSplit(images, labels)
    data = ImageData(name="noise", classes=tuple("0123456789"), train=split, val=split, test=split, sha256="")
    config = configured("cnn", channels=64, batch_size=4096, epochs=1, optimizer="adam")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 600e6) / total)
    try:
        training = loop.Training(config, data.to("cuda"))
        for _ in training.train_epoch():
            pass
        metrics = training.measure_epoch()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert training.micro_batch.size is not None
    assert training.micro_batch.size < 4096
    assert metrics.train_loss < 10


def test_study_of_images_runs_and_is_reproduced_on_a_gpu(tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--epochs", "3", "--gpus-per-trial", "0.5", "--scheduler", "none"]
    table = study_of(tmp_path, *options)
    assert list(table["status"]) == ["completed"] * 4
    assert (table["peak_gpu_memory_mb"] > 0).all()
    where = ["--results-dir", f"{tmp_path}/out"]
    run = run_command("search/reproduce.py", "study", "0", *where)
    assert run.status == 0, run.stdout + run.stderr
    run = run_command("search/confirm.py", "study", "--top", "2", "--seeds", "2", *where)
    assert run.status == 0, run.stdout + run.stderr


def test_own_network_is_trained_on_a_gpu_as_it_is(tmp_path: Path) -> None:
    network = [
        "--network",
        f"{PROJECT}/examples/own_network.py:build",
        "--space",
        f"{PROJECT}/examples/own_network.toml",
    ]
    options = ["--dataset", "digits", "--epochs", "2", "--gpus-per-trial", "1", "--set", "lr_schedule=cosine"]
    table = study_of(tmp_path, *network, *options)
    assert set(table["status"]) <= {"completed", "stopped_early"}
    assert (table["peak_gpu_memory_mb"] > 0).all()


def test_gpu_memory_of_a_program_is_what_the_driver_says(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "space.toml").write_text("[size]\nchoices = [1.0, 4.0]\n")
    command = f"{sys.executable} {tmp_path}/program.py {{size}}"
    options = ["--command", command, "--space", f"{tmp_path}/space.toml", "--metric", "loss", "--gpus-per-trial", "1"]
    table = study_of(tmp_path, *options, trials=2).set_index("size")["peak_gpu_memory_mb"]
    assert table[4.0] - table[1.0] == pytest.approx(3 * 2**30 / 1e6, rel=0.05)
    assert 2**30 / 1e6 < table[1.0] < 3000, "the context of CUDA belongs to it"


@pytest.mark.ray
def test_functions_have_the_gpus_that_they_ask_for_and_one_that_runs_out_of_memory_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(OUT_OF_MEMORY)
    (tmp_path / "visible.py").write_text(VISIBLE)
    (tmp_path / "size.toml").write_text("[size]\nchoices = [0.25, 0.75]\n")
    (tmp_path / "x.toml").write_text("[x]\nlow = 0.0\nhigh = 1.0\n")

    def run(code: str, space: str, gpus: str, table: str) -> pd.DataFrame:
        where = ["--results-dir", f"{tmp_path}/out", "--name", f"{code}-{gpus}", "--no-dashboard"]
        task = ["--train-function", f"{code}.py:train", "--space", f"{space}.toml", "--metric", "loss", "--epochs", "3"]
        command = [sys.executable, f"{PROJECT}/search/run.py", *task, *where, "--gpus-per-trial", gpus]
        command += ["--num-samples", "4"]
        ended = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "GPU" in ended.stdout
        return pd.read_csv(
            tmp_path / f"out/{code}-{gpus}/epochs.csv"
            if code == "visible"
            else tmp_path / f"out/{code}-{gpus}/trials.csv"
        )

    assert (run("visible", "x", "0.5", "epochs")["gpus"] == 1).all()
    hidden = torch.cuda.device_count() - run("visible", "x", "0", "epochs")["gpus"]
    assert (hidden == 0).all(), "Ray hides none from trials that have asked for none"
    table = run("greedy", "size", "0.5", "trials")
    small = table["size"] == 0.25
    assert (table["status"][small] == "completed").all()
    assert (table["status"][~small] == "failed").all()
    assert table["error"][~small].str.contains("CUDA out of memory").all()
