"""Record the learning curves of a grid of configurations: the table against which `search/replay.py` replays studies.

    python benchmarks/learning_curves.py benchmarks/tables/digits.csv.gz --dataset digits

Every combination of optimizer, batch size, learning rate and seed is trained in full by this project's own trainer, one
thread a run. Runs that have ended are kept in a `.jsonl` file beside the table, seed by seed, and a recording that was
killed goes on. In the table the rows of a run that diverged end before the epoch in which it did.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from search.record import provenance
from search.simulation.learning_curves import METRICS
from training.config import DataConfig, TrialConfig
from training.images.image_data import ImageData, ImageSplit, load_data
from training.loop import TrainingDivergedError, train

OPTIMIZERS = ("sgd", "adam", "rmsprop")
BATCH_SIZES = (16, 32, 64, 128, 256, 512)
LEARNING_RATES = tuple(float(f"{10 ** (-4 + 0.4 * step):.3g}") for step in range(11))
"""From 1e-4 to 1."""

Run = dict[str, Any]
"""The hyperparameters of one run, and under `epochs` the metrics of each epoch."""

_data: ImageData
_epochs: int
"""What all runs of a worker process share."""


def grid(seeds: int) -> Iterable[Run]:
    """The hyperparameters of all runs, seed by seed."""
    for seed, *values in itertools.product(range(seeds), OPTIMIZERS, BATCH_SIZES, LEARNING_RATES):
        yield dict(zip(("optimizer", "batch_size", "learning_rate"), values, strict=True)) | {"seed": seed}


def subset(data: ImageData, training_images: int | None) -> ImageData:
    """The data with the first so many of the training images; all of the validation and test images."""
    chosen = slice(training_images)
    return replace(data, train=ImageSplit(data.train.images[chosen], data.train.labels[chosen]))


def record(hyperparameters: Run) -> Run:
    """Train one configuration; `seconds` are CPU seconds, which other processes of the machine change little."""
    epochs: list[dict[str, Any]] = []
    start = time.process_time()
    try:
        for metrics in train(TrialConfig(**hyperparameters, epochs=_epochs), _data):
            measured = {**asdict(metrics), "seconds": time.process_time() - start}
            epochs.append({name: measured[name] for name in ("epoch", *METRICS)})
            start = time.process_time()
    except TrainingDivergedError:
        pass
    return {**hyperparameters, "epochs": epochs}


def share(data: ImageData, epochs: int) -> None:
    """Give a worker process its share."""
    global _data, _epochs
    _data, _epochs = data, epochs
    torch.set_num_threads(1)


def whole_lines(file: Path) -> list[Any]:
    """What is in a file of one JSON value a line, if there is one; a line that was cut off by a kill is none."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    file.write_text("".join(whole))
    return [json.loads(line) for line in whole]


def write_table(file: Path, runs: Iterable[Run]) -> str:
    """Write the table, the same bytes for the same runs; returns its SHA-256."""
    rows = [{**run, **epoch} for run in runs for epoch in run["epochs"]]
    table = pd.DataFrame(rows).drop(columns="epochs").sort_values(["seed", "optimizer", "batch_size", "learning_rate"])
    decimals = {"train_loss": 4, "val_loss": 4, "test_loss": 4, "val_accuracy": 5, "test_accuracy": 5, "seconds": 3}
    file.write_bytes(gzip.compress(table.round(decimals).to_csv(index=False).encode(), mtime=0))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("table", type=Path, help="file to write, ending in .csv.gz")
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--data-dir", type=Path, default=DataConfig().data_dir)
    parser.add_argument("--val-fraction", type=float, default=DataConfig().val_fraction)
    parser.add_argument("--training-images", type=int, help="train on so many, not on all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    config = DataConfig(dataset=options.dataset, data_dir=options.data_dir, val_fraction=options.val_fraction)
    data = subset(load_data(config, split_seed=0)[0], options.training_images)
    runs_file = options.table.with_name(options.table.name.replace(".csv.gz", ".jsonl"))
    runs: list[Run] = whole_lines(runs_file)
    done = [{name: value for name, value in run.items() if name != "epochs"} for run in runs]
    to_do = [run for run in grid(options.seeds) if run not in done]
    workers = multiprocessing.get_context("fork").Pool(options.workers, share, (data, options.epochs))
    with workers, runs_file.open("a", buffering=1) as stream:
        for run in workers.imap_unordered(record, to_do):
            runs.append(run)
            stream.write(json.dumps(run) + "\n")
            print(f"{len(runs)} of {len(done) + len(to_do)} runs", end="\r", flush=True)
    facts = {
        "sha256": write_table(options.table, (run for run in runs if run["seed"] < options.seeds)),
        "runs": len(runs),
        "epochs": options.epochs,
        "dataset": {
            "name": data.name,
            "sha256": data.sha256,
            "training_images": len(data.train),
            "validation_images": len(data.val),
            "test_images": len(data.test),
        },
        "command": provenance.command(),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "machine": asdict(provenance.machine()),
    }
    options.table.with_name(options.table.name.replace(".csv.gz", ".json")).write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
