"""What a training leaves behind to go on from: nothing depends on it, and it runs no code."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from studies import reported

from search.record.trial import Objective
from search.task.metric_names import Mode
from training.checkpoint import Checkpoint, best_files, read_metrics, read_weights
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.loop import train
from training.networks.networks import NeuralNetwork

CONFIG = TrialConfig(epochs=5, learning_rate=0.05)
METRICS = {
    **dict.fromkeys(["epoch", "train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss"], 1),
    **{"seconds": 1.0, "evaluation_seconds": 0.5},
}


def numbers(config: TrialConfig, data: ImageData, checkpoint: Checkpoint | None = None) -> list[dict[str, Any]]:
    epochs = train(config, data) if checkpoint is None else reported(train(config, data, checkpoint), checkpoint)
    return [{**asdict(metrics), "seconds": None, "evaluation_seconds": None} for metrics in epochs]


def stopped_after(epochs: int, data: ImageData, file: Path) -> tuple[Path, Checkpoint]:
    """A training that was interrupted: the file from which it goes on, and its checkpoint in another process."""
    checkpoint = Checkpoint(file)
    training = reported(train(CONFIG, data, checkpoint), checkpoint)
    for _ in range(epochs):
        next(training)
    return file.with_name(f"{file.stem}-last-{epochs:04}.pt"), Checkpoint(file, None, epochs, checkpoint.best)


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_best_epoch_is_kept_beside_the_last(few_images: ImageData, tmp_path: Path, metric: str) -> None:
    mode: Mode = "max" if metric == "val_accuracy" else "min"
    file, config = tmp_path / "trial.pt", TrialConfig(epochs=8, learning_rate=0.5)
    checkpoint = Checkpoint(file)
    training = reported(train(config, few_images, checkpoint), checkpoint, Objective(metric, mode))
    values = [getattr(metrics, metric) for metrics in training]
    best = values.index((max if mode == "max" else min)(values)) + 1
    assert [path.name for path in best_files(file)] == [f"trial-epoch-{best:04}.pt"]
    assert {*tmp_path.iterdir()} == {tmp_path / "trial-last-0008.pt", *best_files(file)}
    state = torch.load(best_files(file)[0], weights_only=True)["states"]["progress"]
    assert (state["epoch"], state["metrics"][-1][metric]) == (best, values[best - 1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(os.urandom(1000)),
        lambda file: torch.save({"states": {"progress": {"epoch": 2, "metrics": []}}}, file),
        lambda file: torch.save({"epoch": 2, "model": {}}, file),
    ],
    ids=["empty", "cut off", "random", "no model", "as in earlier versions"],
)
def test_damaged_checkpoint_costs_time_and_no_number(few_images: ImageData, tmp_path: Path, damage: Any) -> None:
    file, checkpoint = stopped_after(3, few_images, tmp_path / "trial.pt")
    damage(file)
    assert numbers(CONFIG, few_images, checkpoint) == numbers(CONFIG, few_images)


def test_damage_is_told(few_images: ImageData, tmp_path: Path) -> None:
    file, checkpoint = stopped_after(2, few_images, tmp_path / "trial.pt")
    file.write_bytes(b"no checkpoint")
    next(train(CONFIG, few_images, checkpoint))
    warning = "checkpoint trial-last-0002.pt is damaged (UnpicklingError); the trial starts again"
    assert checkpoint.take_warning() == warning


def test_checkpoint_of_another_network_is_not_used(digits: ImageData, few_images: ImageData, tmp_path: Path) -> None:
    file, checkpoint = stopped_after(2, few_images, tmp_path / "trial.pt")
    state = torch.load(file, weights_only=True)
    state["states"]["model"] = {name: weight[:1] for name, weight in state["states"]["model"].items()}
    torch.save(state, file)
    assert numbers(CONFIG, few_images, checkpoint) == numbers(CONFIG, few_images)


def test_checkpoint_that_cannot_be_written_hinders_nothing(few_images: ImageData, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checkpoint = Checkpoint(tmp_path / "file" / "trial.pt")
    assert numbers(CONFIG, few_images, checkpoint) == numbers(CONFIG, few_images)
    assert str(checkpoint.take_warning()).startswith("checkpoints cannot be written: ")
    assert checkpoint.take_warning() is None


def test_state_that_cannot_be_saved_hinders_nothing(
    few_images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network may have any objects beside its weights; reading them would run code, so an interruption costs more."""
    expected = numbers(CONFIG, few_images)
    monkeypatch.setattr(NeuralNetwork, "get_extra_state", lambda _: tmp_path)
    checkpoint = Checkpoint(tmp_path / "trial.pt")
    assert numbers(CONFIG, few_images, checkpoint) == expected
    warning = "the state of the network cannot be saved; a trial that is interrupted starts again"
    assert checkpoint.take_warning() == warning
    assert list(tmp_path.iterdir()) == []


def test_best_epoch_survives_an_interruption(few_images: ImageData, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    numbers(CONFIG, few_images, Checkpoint(whole))
    _, checkpoint = stopped_after(3, few_images, parts)
    assert [epoch["epoch"] for epoch in numbers(CONFIG, few_images, checkpoint)] == [4, 5]
    (kept,), (expected,) = best_files(parts), best_files(whole)
    assert kept.name == expected.name.replace("whole", "parts")


def test_best_epoch_has_its_file_before_it_is_reported(few_images: ImageData, tmp_path: Path) -> None:
    """A trial that the scheduler stops gets no time after its report, and the files of ended trials are cleared."""
    file = tmp_path / "trial.pt"
    _, checkpoint = stopped_after(1, few_images, file)
    checkpoint.save(2, value=2)
    checkpoint.measured(2, checkpoint.best - 1)
    assert [path.name for path in best_files(file)] == ["trial-epoch-0001.pt", "trial-epoch-0002.pt"]
    checkpoint.reported(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trial-epoch-0002.pt", "trial-last-0002.pt"]


def test_best_epoch_that_was_lost_is_kept_when_it_is_trained_again(few_images: ImageData, tmp_path: Path) -> None:
    file = tmp_path / "trial.pt"
    _, checkpoint = stopped_after(3, few_images, file)
    for path in tmp_path.iterdir():
        path.unlink()
    numbers(CONFIG, few_images, checkpoint)
    assert len(best_files(file)) == 1


def test_weights_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They stood beside the other states; a model of a finished study is exported from them."""
    state = {"epoch": 2, "metrics": [METRICS, {**METRICS, "epoch": 2}], "model": {"weight": torch.ones(2)}}
    torch.save(state, tmp_path / "trial-0001-epoch-0002.pt")
    assert read_weights(tmp_path / "trial-0001-epoch-0002.pt")["weight"].tolist() == [1, 1]
    assert read_metrics(tmp_path / "trial-0001-epoch-0002.pt").epoch == 2
