"""What a training leaves behind to go on from: nothing depends on it, and it runs no code."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoint import Checkpoint
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.loop import train

CONFIG = TrialConfig(epochs=5, learning_rate=0.05)


def numbers(config: TrialConfig, data: ImageData, checkpoint: Checkpoint | None = None) -> list[dict[str, Any]]:
    return [
        {**asdict(metrics), "seconds": None, "evaluation_seconds": None} for metrics in train(config, data, checkpoint)
    ]


def stopped_after(epochs: int, data: ImageData, file: Path) -> None:
    training = train(CONFIG, data, Checkpoint(file))
    for _ in range(epochs):
        next(training)


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_best_epoch_is_kept_beside_the_last(few_images: ImageData, tmp_path: Path, metric: str) -> None:
    mode = "max" if metric == "val_accuracy" else "min"
    checkpoint = Checkpoint(tmp_path / "trial.pt", metric, mode)
    values = [metrics[metric] for metrics in numbers(TrialConfig(epochs=8, learning_rate=0.5), few_images, checkpoint)]
    best = values.index((max if mode == "max" else min)(values)) + 1
    assert [file.name for file in checkpoint.best_files()] == [f"trial-epoch-{best:04}.pt"]
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "trial.pt", *checkpoint.best_files()])
    state = torch.load(checkpoint.best_files()[0], weights_only=True)
    assert (state["epoch"], state["metrics"][-1][metric]) == (best, values[best - 1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(os.urandom(1000)),
        lambda file: torch.save({"epoch": 2, "metrics": []}, file),
        lambda file: torch.save({"epoch": "two"}, file),
    ],
    ids=["empty", "cut off", "random", "no metrics", "no state"],
)
def test_damaged_checkpoint_costs_time_and_no_number(few_images: ImageData, tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "trial.pt"
    stopped_after(3, few_images, file)
    damage(file)
    checkpoint = Checkpoint(file)
    training = train(CONFIG, few_images, checkpoint)
    assert next(training).epoch == 1
    assert numbers(CONFIG, few_images) == numbers(CONFIG, few_images, Checkpoint(tmp_path / "other.pt"))


def test_damage_is_told(few_images: ImageData, tmp_path: Path) -> None:
    stopped_after(2, few_images, tmp_path / "trial.pt")
    (tmp_path / "trial.pt").write_bytes(b"no checkpoint")
    checkpoint = Checkpoint(tmp_path / "trial.pt")
    next(train(CONFIG, few_images, checkpoint))
    assert checkpoint.take_warning() == "checkpoint trial.pt is damaged (UnpicklingError); the trial starts again"


def test_checkpoint_of_another_network_is_not_used(digits: ImageData, few_images: ImageData, tmp_path: Path) -> None:
    stopped_after(2, few_images, tmp_path / "trial.pt")
    state = torch.load(tmp_path / "trial.pt", weights_only=True)
    state["model"] = {name: weight[:1] for name, weight in state["model"].items()}
    torch.save(state, tmp_path / "trial.pt")
    assert numbers(CONFIG, few_images, Checkpoint(tmp_path / "trial.pt")) == numbers(CONFIG, few_images)


def test_checkpoint_that_cannot_be_written_hinders_nothing(few_images: ImageData, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checkpoint = Checkpoint(tmp_path / "file" / "trial.pt")
    assert numbers(CONFIG, few_images, checkpoint) == numbers(CONFIG, few_images)
    assert str(checkpoint.take_warning()).startswith("checkpoints cannot be written: ")
    assert checkpoint.take_warning() is None


def test_best_epoch_survives_an_interruption(few_images: ImageData, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    numbers(CONFIG, few_images, Checkpoint(whole))
    stopped_after(3, few_images, parts)
    numbers(CONFIG, few_images, Checkpoint(parts))
    (kept,), (expected,) = Checkpoint(parts).best_files(), Checkpoint(whole).best_files()
    assert kept.name == expected.name.replace("whole", "parts")
