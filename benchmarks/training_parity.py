"""Measure whether the fast ways to train learn as well as a plain loop does: accuracy after two epochs, seed by seed.

    python benchmarks/training_parity.py --data-dir data

The plain loop is autograd with torch's own optimizers in 32 bits. Each way starts from the same weights and sees the
images in the same order. Printed are the mean difference of the validation accuracy to the plain loop's in points (per
cent of the images), its standard error, and the largest difference of one seed.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from search.record.provenance import command, machine, versions
from training.config import DataConfig, TrialConfig
from training.images.image_data import ImageData, batches, load_data
from training.loop import EVALUATION_BATCH_SIZE, test_loop, train
from training.networks.networks import build_network

CONFIGS = (
    TrialConfig(optimizer="sgd", learning_rate=0.1, batch_size=64),
    TrialConfig(optimizer="sgd", learning_rate=0.02, momentum=0.9, batch_size=256),
    TrialConfig(optimizer="adam", learning_rate=1e-3, batch_size=64),
    TrialConfig(optimizer="rmsprop", learning_rate=5e-4, batch_size=256),
)
TORCH_OPTIMIZERS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}


def plain_accuracy(config: TrialConfig, data: ImageData) -> float:
    """Train with the tutorial's loop and torch's optimizers as they are by default."""
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(False)
    model = build_network(config, data.image_shape, len(data.classes))
    loss_fn = nn.CrossEntropyLoss()
    if config.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), lr=config.learning_rate, momentum=config.momentum
        )
    else:
        optimizer = TORCH_OPTIMIZERS[config.optimizer](model.parameters(), lr=config.learning_rate)
    shuffler = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        for images, labels in batches(data.train, config.batch_size, shuffler):
            loss_fn(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    return test_loop(batches(data.val, EVALUATION_BATCH_SIZE), model, loss_fn)[0]


def our_accuracy(config: TrialConfig, data: ImageData) -> float:
    """Train with `training.loop`."""
    *_, last = train(config, data)
    assert last.val_accuracy is not None
    return last.val_accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, default=DataConfig().data_dir)
    parser.add_argument(
        "--optimizers", nargs="+", choices=["sgd", "adam", "rmsprop"], default=["sgd", "adam", "rmsprop"]
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = load_data(DataConfig(dataset="fashion-mnist", data_dir=options.data_dir), split_seed=0)
    print(f"command   {command()}\nmachine   {machine().processor}, one thread")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print(f"validation accuracy after {options.epochs} epochs, {options.seeds} seeds\n")
    print("| optimizer | batch size | plain loop | way | mean difference | standard error | largest |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for config in CONFIGS:
        if config.optimizer not in options.optimizers:
            continue
        seeded = [replace(config, seed=seed, epochs=options.epochs) for seed in range(options.seeds)]
        plain = [plain_accuracy(config, data) for config in seeded]
        name = "momentum" if config.momentum else config.optimizer
        for precision in ("fp32", "bf16"):
            ours = [our_accuracy(replace(config, precision=precision), data) for config in seeded]
            points = [100 * (mine - theirs) for mine, theirs in zip(ours, plain, strict=True)]
            print(
                f"| {name} | {config.batch_size} | {statistics.mean(plain):.2%} | {precision} "
                f"| {statistics.mean(points):+.3f} | {statistics.stdev(points) / len(points) ** 0.5:.3f} "
                f"| {max(points, key=abs):+.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
