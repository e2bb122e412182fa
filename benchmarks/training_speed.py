"""Measure how many images per second the training loop takes, as a ratio to the tutorial's loop in the same rounds.

    python benchmarks/training_speed.py --data-dir data

All loops train the tutorial's network on the same images on one core: the tutorial's loop as it stands there, and ours
with 32-bit and with 16-bit products. In each round they take turns, because shared machines are noisy, and with them
the matrix products of a training step alone, in both number formats: what no loop can surpass. Process time is
measured; evaluation is not part of it.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from search.record.provenance import command, machine, versions
from training.config import DataConfig, PrecisionName, TrialConfig
from training.images.image_data import ImageData, load_data
from training.images.torchvision_import import import_torchvision_datasets
from training.loop import Training
from training.networks.networks import NeuralNetwork

LEARNING_RATE = 1e-3
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}
BATCH_SIZES = (16, 32, 64, 128, 256, 512)
FORMATS: dict[PrecisionName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

Steps = Iterator[object]
"""An endless training: each item is one step more."""


def tutorial_steps(dataset: Dataset[object], optimizer_name: str, batch_size: int) -> Steps:
    """The tutorial's own loop, as it stands there: a DataLoader that converts each image when it is read."""
    dataloader = DataLoader(dataset, batch_size=batch_size, shuffle=True)
    model = NeuralNetwork(28 * 28, 10)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters(), lr=LEARNING_RATE)
    model.train()
    while True:
        for X, y in dataloader:
            pred = model(X)
            loss = loss_fn(pred, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield None


def our_steps(data: ImageData, optimizer_name: str, batch_size: int, precision: PrecisionName) -> Steps:
    """One endless training with `training.loop`."""
    momentum = 0.9 if optimizer_name == "momentum" else 0.0
    optimizer = "sgd" if optimizer_name == "momentum" else optimizer_name
    config = TrialConfig(
        learning_rate=LEARNING_RATE,
        batch_size=batch_size,
        optimizer=optimizer,  # type: ignore[arg-type]
        momentum=momentum,
        precision=precision,
    )
    training = Training(config, data)
    while True:
        yield from training.train_epoch()


def product_steps(batch_size: int, number_format: torch.dtype) -> Steps:
    """The matrix products of a training step and nothing else: forward, then backward to the weights and the inputs."""
    sizes = (28 * 28, 512, 512, 10)
    inputs = [torch.rand(batch_size, size).to(number_format) for size in sizes]
    weights = [torch.rand(outs, ins).to(number_format) for ins, outs in itertools.pairwise(sizes)]
    while True:
        for layer, weight in enumerate(weights):
            torch.mm(inputs[layer], weight.t())
        for layer, weight in reversed(list(enumerate(weights))):
            torch.mm(inputs[layer + 1].t(), inputs[layer])
            if layer > 0:
                torch.mm(inputs[layer + 1], weight)
        yield None


def speeds(loops: dict[str, Steps], batch_size: int, rounds: int, images: int) -> dict[str, list[float]]:
    """Images per second of process time in each round, by loop."""
    measured: dict[str, list[float]] = {name: [] for name in loops}
    for steps in loops.values():
        _take(steps, 5)  # warm up
    for _ in range(rounds):
        for name, steps in loops.items():
            start = time.process_time()
            _take(steps, images // batch_size)
            measured[name].append(images // batch_size * batch_size / (time.process_time() - start))
    return measured


def _take(steps: Steps, number: int) -> None:
    for _ in itertools.islice(steps, number):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, default=DataConfig().data_dir)
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--images", type=int, default=6400, help="images per loop and round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = load_data(DataConfig(dataset="fashion-mnist", data_dir=options.data_dir, val_fraction=0), split_seed=0)
    datasets = import_torchvision_datasets()
    from torchvision.transforms import ToTensor  # only after the guarded import

    dataset = datasets.FashionMNIST(root=options.data_dir, train=True, transform=ToTensor())

    print(f"command   {command()}")
    print(f"machine   {machine().processor}, {machine().cpus} cores, one used")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print(f"{options.rounds} rounds of {options.images} images; thousand images per second of process time, medians;")
    print("ratio: to the tutorial's loop in the same round, median (quartiles); products: share of their rate\n")
    print("| optimizer | batch size | tutorial | fp32 | ratio | products | bf16 | ratio | products |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    ratios: dict[tuple[PrecisionName, str, int], float] = {}
    for optimizer, batch_size in itertools.product(options.optimizers, options.batch_sizes):
        loops = {"tutorial": tutorial_steps(dataset, optimizer, batch_size)}
        for precision, number_format in FORMATS.items():
            loops[precision] = our_steps(data, optimizer, batch_size, precision)
            loops[f"products {precision}"] = product_steps(batch_size, number_format)
        measured = speeds(loops, batch_size, options.rounds, options.images)
        cells = [optimizer, str(batch_size), f"{statistics.median(measured['tutorial']) / 1000:.1f}"]
        for precision in FORMATS:
            low, ratio, high = _quartiles_of_ratios(measured[precision], measured["tutorial"])
            _, share, _ = _quartiles_of_ratios(measured[precision], measured[f"products {precision}"])
            ratios[precision, optimizer, batch_size] = ratio
            speed = statistics.median(measured[precision]) / 1000
            cells += [f"{speed:.1f}", f"{ratio:.2f} ({low:.2f}-{high:.2f})", f"{share:.0%}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()
    for precision, smallest in (("fp32", 0), ("bf16", 64)):
        chosen = [ratio for (name, _, size), ratio in ratios.items() if name == precision and size >= smallest]
        if chosen:
            print(f"{precision}, batch size >= {smallest}: geometric mean {statistics.geometric_mean(chosen):.2f}")


def _quartiles_of_ratios(ones: list[float], others: list[float]) -> list[float]:
    return statistics.quantiles([one / other for one, other in zip(ones, others, strict=True)], n=4)


if __name__ == "__main__":
    main()
