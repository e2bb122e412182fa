"""Train with the tutorial's settings from five seeds and compare each epoch with what the tutorial printed.

    python benchmarks/tutorial_reproduction.py --data-dir data

Writes `results/tutorial-reproduction.csv`: for each epoch the tutorial's test accuracy and average loss, and ours as
mean, minimum and maximum over the seeds. What the tutorial printed is in `benchmarks/tutorial_epochs.csv`; its average
loss is the mean of the batches' means, ours the mean over images: they differ by the weight of the last, smaller batch.
"""

import argparse
import dataclasses
from pathlib import Path

import pandas as pd
import torch

from search.record.provenance import command, machine, versions
from training.config import PROJECT, DataConfig, TrialConfig
from training.images.image_data import load_data
from training.loop import train

TUTORIAL = PROJECT / "benchmarks" / "tutorial_epochs.csv"
REPRODUCTION = PROJECT / "results" / "tutorial-reproduction.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, default=DataConfig().data_dir)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = load_data(DataConfig(dataset="fashion-mnist", data_dir=options.data_dir, val_fraction=0), split_seed=0)
    runs = []
    for seed in range(options.seeds):
        runs += [dataclasses.asdict(metrics) for metrics in train(TrialConfig(shuffle=False, seed=seed), data)]
        print(f"seed {seed}: test_accuracy {runs[-1]['test_accuracy']:.4f}, test_loss {runs[-1]['test_loss']:.4f}")
    table = compare(pd.DataFrame(runs))
    table.to_csv(REPRODUCTION, index=False, float_format="%.4f")
    print(f"\ncommand   {command()}\nmachine   {machine().processor}, one thread")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print(table.to_string(index=False, float_format="{:.4f}".format))


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each epoch: the tutorial's numbers, and mean, minimum and maximum of ours over the seeds."""
    tutorial = pd.read_csv(TUTORIAL).set_index("epoch")
    ours = runs.groupby("epoch")[["test_accuracy", "test_loss"]].agg(["mean", "min", "max"])
    columns = {}
    for metric, printed in (
        ("test_accuracy", tutorial["test_accuracy_percent"] / 100),
        ("test_loss", tutorial["test_loss"]),
    ):
        columns[f"tutorial_{metric}"] = printed
        columns |= {f"{metric}_{name}": ours[metric][name] for name in ("mean", "min", "max")}
        columns[f"{metric}_difference"] = ours[metric]["mean"] - printed
    return pd.DataFrame(columns).reset_index()


if __name__ == "__main__":
    main()
