"""Measure how many images per second the training loop takes, as a ratio to the tutorial's loop in the same run.

    python benchmarks/training_speed.py --data-dir data

Both loops train the tutorial's network on the same images with SGD at batch size 64 on one core. Rounds of one and of
the other alternate, because shared machines are noisy; the medians and the quartiles of the rounds are printed.
"""

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from search.provenance import command, machine, versions
from training.config import DataConfig, TrialConfig
from training.data import load_data
from training.loop import Training
from training.networks import NeuralNetwork
from training.torchvision_import import import_torchvision_datasets


def tutorial_loop(data_dir: Path, config: TrialConfig) -> Callable[[int], int]:
    """The tutorial's own loop, as it stands there: a DataLoader that converts each image when it is read."""
    fashion_mnist = import_torchvision_datasets().FashionMNIST
    from torchvision.transforms import ToTensor  # only after the guarded import

    training_data = fashion_mnist(root=data_dir, train=True, transform=ToTensor())
    dataloader = DataLoader(training_data, batch_size=config.batch_size, shuffle=True)
    model = NeuralNetwork(28 * 28, 10)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    batches = itertools.chain.from_iterable(itertools.repeat(dataloader))

    def run(num_batches: int) -> int:
        model.train()
        images = 0
        for X, y in itertools.islice(batches, num_batches):
            pred = model(X)
            loss = loss_fn(pred, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            images += len(X)
        return images

    return run


def our_loop(data_dir: Path, config: TrialConfig) -> Callable[[int], int]:
    """One endless training with `training.loop`."""
    data, _ = load_data(DataConfig(dataset="fashion-mnist", data_dir=data_dir, val_fraction=0), split_seed=0)
    training = Training(config, data)
    steps = itertools.chain.from_iterable(training.train_epoch() for _ in itertools.count())

    def run(num_batches: int) -> int:
        return sum(1 for _ in itertools.islice(steps, num_batches)) * config.batch_size

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, default=DataConfig().data_dir)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--batches", type=int, default=100, help="batches per loop and round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TrialConfig(batch_size=64, optimizer="sgd")
    loops = {"tutorial": tutorial_loop(options.data_dir, config), "tunesmith": our_loop(options.data_dir, config)}
    for run in loops.values():
        run(20)  # warm up
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, run in loops.items():
            start = time.process_time()
            images = run(options.batches)
            speeds[name].append(images / (time.process_time() - start))
    ratios = [ours / theirs for theirs, ours in zip(speeds["tutorial"], speeds["tunesmith"], strict=True)]

    print(f"command   {command()}")
    print(f"machine   {machine()['processor']}, {machine()['cpus']} cores, one used; {platform.platform()}")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print(f"sgd, batch size 64, {options.rounds} rounds of {options.batches} batches each, process time\n")
    print(f"{'':<10}{'lower quartile':>16}{'median':>10}{'upper quartile':>16}   images per second")
    for name, values in speeds.items():
        low, median, high = statistics.quantiles(values, n=4)
        print(f"{name:<10}{low:>16,.0f}{median:>10,.0f}{high:>16,.0f}")
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{'ratio':<10}{low:>16.2f}{median:>10.2f}{high:>16.2f}   of the two in the same round")


if __name__ == "__main__":
    main()
