"""Measure what a GPU gains: training steps, and whole studies whose trials share it.

    python benchmarks/gpu_speed.py --data-dir data

Steps are those of the training loop in microseconds, the medians of rounds in which all variants take turns: on one
core, on the GPU, and on the GPU as a replayed graph. A study has 20 trials of 10 epochs that all run in full; its time
is that of the command, from start to end.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from search.record.provenance import command, machine, versions
from training.config import PROJECT, DataConfig
from training.images.image_data import ImageData, load_data
from training.loop import Training
from training.networks.network_config import config_type

BATCH_SIZES = (16, 64, 256, 1024)
WARM_UP = 10
"""Steps before the clock starts; a graph is captured in them."""


def microseconds_per_step(data: ImageData, steps: int, graph: bool, **options: Any) -> float:
    """The time of a step in one training."""
    training = Training(config_type(options["network"])(**options), data)
    if not graph:
        training.graph = None
    epoch = training.train_epoch()
    for _ in itertools.islice(epoch, WARM_UP):
        pass
    _wait(data)
    start, taken = time.perf_counter(), 0
    for _ in itertools.islice(epoch, steps):
        taken += 1
    _wait(data)
    return (time.perf_counter() - start) / taken * 1e6


def _wait(data: ImageData) -> None:
    if data.train.images.is_cuda:
        torch.cuda.synchronize()


def measure_steps(data: ImageData, rounds: int) -> None:
    """Print a table of the medians."""
    torch.set_num_threads(1)
    on_gpu = data.to("cuda")
    print("| network | products | batch size | one core | GPU | GPU, graph | gain of the graph |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for network, precision, batch_size in itertools.product(("mlp", "cnn"), ("fp32", "bf16"), BATCH_SIZES):
        options: dict[str, Any] = {
            "network": network,
            "precision": precision,
            "batch_size": batch_size,
            "optimizer": "adam",
        }
        steps = min(300, len(data.train) // batch_size - WARM_UP - 1)
        few = 3 if network == "cnn" else 10
        variants = (data, few, False), (on_gpu, steps, False), (on_gpu, steps, True)
        times = [[microseconds_per_step(*variant, **options) for variant in variants] for _ in range(rounds)]
        core, plain, replayed = (statistics.median(column) for column in zip(*times, strict=True))
        figures = f"{core:,.0f} us | {plain:,.0f} us | {replayed:,.0f} us | {plain / replayed:.1f}"
        print(f"| {network} | {precision} | {batch_size} | {figures} |", flush=True)


def measure_study(data_dir: Path, gpus_per_trial: str, network: str) -> None:
    """Print how long a study takes, what an epoch takes in it, and its best accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        where = ["--data-dir", str(data_dir), "--results-dir", folder, "--name", "study", "--no-dashboard"]
        options = ["--num-samples", "20", "--scheduler", "none", "--network", network]
        words = [sys.executable, f"{PROJECT}/search/run.py", *where, *options, "--gpus-per-trial", gpus_per_trial]
        start = time.monotonic()
        ended = subprocess.run(words, check=False, capture_output=True, text=True)
        seconds = time.monotonic() - start
        if ended.returncode != 0:
            sys.exit(ended.stdout + ended.stderr)
        trials = pd.read_csv(Path(folder) / "study" / "trials.csv")
    memory = f"{peak:.0f} MB" if (peak := trials["peak_gpu_memory_mb"].max()) > 0 else "none"
    figures = f"{seconds:.0f} s | {trials['seconds'].median():.1f} s | {memory} | {trials['val_accuracy'].max():.4f}"
    print(f"| {network} | {gpus_per_trial} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=["mlp"], help="those of the studies")
    parser.add_argument("--gpus-per-trial", nargs="+", default=["0", "1", "0.5", "0.25", "0.125"])
    parser.add_argument("--parts", nargs="+", choices=["steps", "studies"], default=["steps", "studies"])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU")
    print(command())
    print(json.dumps(asdict(machine())), json.dumps(versions()), "\n")
    if "steps" in arguments.parts:
        data, _ = load_data(DataConfig(dataset="fashion-mnist", data_dir=arguments.data_dir), split_seed=0)
        measure_steps(data, arguments.rounds)
        print()
    if "studies" in arguments.parts:
        print(
            "| network | GPUs of a trial | study | median trial | largest GPU memory of a trial | best val_accuracy |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for network, gpus in itertools.product(arguments.networks, arguments.gpus_per_trial):
            measure_study(arguments.data_dir, gpus, network)


if __name__ == "__main__":
    main()
