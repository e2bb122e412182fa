"""With the tutorial's settings the loop gives the tutorial's numbers."""

from pathlib import Path

import pandas as pd
import pytest

from training.config import PROJECT, DataConfig, TrialConfig
from training.images.image_data import load_data
from training.loop import train

TUTORIAL = pd.read_csv(PROJECT / "benchmarks" / "tutorial_epochs.csv").set_index("epoch")


def test_recorded_mean_of_five_seeds_is_close_to_the_tutorial_from_epoch_3_on() -> None:
    table = pd.read_csv(PROJECT / "results" / "tutorial-reproduction.csv").set_index("epoch")
    assert table.index.tolist() == list(range(1, 11))
    assert table["tutorial_test_loss"].tolist() == pytest.approx(TUTORIAL["test_loss"].tolist(), abs=1e-4)
    late = table.loc[3:]
    assert (late["test_accuracy_mean"] - TUTORIAL["test_accuracy_percent"] / 100).loc[3:].abs().max() <= 0.03
    assert (late["test_loss_mean"] - TUTORIAL["test_loss"]).loc[3:].abs().max() <= 0.05


def test_loop_still_gives_the_recorded_numbers(fashion_mnist_dir: Path) -> None:
    """One epoch from one of the recorded seeds: the loss falls by 0.15 in it, so a wrong step shows at once."""
    table = pd.read_csv(PROJECT / "results" / "tutorial-reproduction.csv").set_index("epoch")
    data, _ = load_data(DataConfig(dataset="fashion-mnist", data_dir=fashion_mnist_dir, val_fraction=0), split_seed=0)
    for metrics in train(TrialConfig(shuffle=False, epochs=1, seed=0), data):
        recorded = table.loc[metrics.epoch]
        assert recorded["test_loss_min"] - 0.005 <= metrics.test_loss <= recorded["test_loss_max"] + 0.005
        assert recorded["test_accuracy_min"] - 0.005 <= metrics.test_accuracy <= recorded["test_accuracy_max"] + 0.005
