"""What Syne Tune starts for each trial of `peer_syne_tune.py`: the tutorial's training, which reports each epoch."""

import argparse
import json
import os
from pathlib import Path

import torch
from peer_task import OPTIMIZERS, load_splits, test_loop, train_loop
from syne_tune import Reporter
from torch import nn
from torch.utils.data import DataLoader

from training.networks.networks import NeuralNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--optimizer", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--data_dir", type=Path, required=True)
    options, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    folder = Path(os.environ["PEER_FOLDER"])
    report = Reporter()
    training, validation, _ = load_splits(options.data_dir, options.images)
    train_dataloader = DataLoader(training, batch_size=options.batch_size, shuffle=True)
    val_dataloader = DataLoader(validation, batch_size=options.batch_size)
    model = NeuralNetwork(28 * 28, 10)
    optimizer = OPTIMIZERS[options.optimizer](model.parameters(), lr=options.learning_rate)
    best = 0.0
    for epoch in range(1, options.epochs + 1):
        train_loop(train_dataloader, model, nn.CrossEntropyLoss(), optimizer)
        accuracy = test_loop(val_dataloader, model)
        weights = f"{os.getpid()}.pt"
        if accuracy >= best:
            best = accuracy
            torch.save(model.state_dict(), folder / weights)
        line = json.dumps({"accuracy": accuracy, "weights": weights})
        with (folder / "reports.jsonl").open("a") as reports:
            reports.write(line + "\n")
        report(epoch=epoch, accuracy=accuracy)


if __name__ == "__main__":
    main()
