"""Tables of learning curves without noise, for tests."""

import gzip
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

OPTIMIZERS = ("sgd", "adam", "rmsprop")
BATCH_SIZES = (32, 64, 128, 256, 512)
LEARNING_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
EPOCHS = 4
BEST: dict[str, Any] = {"optimizer": "adam", "batch_size": 128, "learning_rate": 1e-2}


def accuracy(optimizer: str, batch_size: int, learning_rate: float, epoch: int) -> float:
    """Highest at `BEST`; every configuration gets better with each epoch, and none overtakes another."""
    steps: float = (
        abs(math.log10(learning_rate / BEST["learning_rate"])) + abs(math.log2(batch_size / BEST["batch_size"])) / 4
    )
    return 0.9 - 0.1 * steps - 0.2 * bool(optimizer != BEST["optimizer"]) - 0.1 / epoch


def rows(seeds: int = 3) -> pd.DataFrame:
    """One row for each epoch of each run; the seeds do not matter; an epoch takes a second, with sgd two."""
    return pd.DataFrame(
        [
            {
                **{
                    "optimizer": optimizer,
                    "batch_size": batch_size,
                    "learning_rate": rate,
                    "seed": seed,
                    "epoch": epoch,
                },
                **{"train_loss": 1.0, "val_accuracy": accuracy(optimizer, batch_size, rate, epoch), "val_loss": 1.0},
                **{"test_accuracy": 0.5, "test_loss": 1.0, "seconds": 2.0 if optimizer == "sgd" else 1.0},
            }
            for optimizer in OPTIMIZERS
            for batch_size in BATCH_SIZES
            for rate in LEARNING_RATES
            for seed in range(seeds)
            for epoch in range(1, EPOCHS + 1)
        ]
    )


def write(folder: Path, table: pd.DataFrame, **facts: object) -> Path:
    """Write a table, and the file that belongs beside it."""
    file = folder / "table.csv.gz"
    file.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    runs = table.drop_duplicates(["optimizer", "batch_size", "learning_rate", "seed"])
    beside = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "runs": len(runs), "epochs": EPOCHS} | facts
    (folder / "table.json").write_text(json.dumps(beside))
    return file
