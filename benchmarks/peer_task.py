"""What the searches of `benchmarks/peers.py` share: options, images, and the tutorial's loop on a DataLoader."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, random_split

from training.config import DataConfig
from training.images.torchvision_import import import_torchvision_datasets
from training.networks.networks import NeuralNetwork

BATCH_SIZES = [32, 64, 128, 256, 512]
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
Loader = DataLoader[tuple[torch.Tensor, torch.Tensor]]


def peer_parser(description: str) -> argparse.ArgumentParser:
    """The options that every search takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for what the search writes; must exist")
    parser.add_argument("--num-samples", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--images", type=int, required=True, help="of the training images; a sixth are for validation")
    parser.add_argument("--workers", type=int, required=True, help="trials at a time")
    parser.add_argument("--data-dir", type=Path, default=DataConfig().data_dir)
    parser.add_argument("--seed", type=int, default=0, help="of a search that would use the same one each time")
    return parser


def write_outcome(folder: Path, *, epochs: int, val_accuracy: float, test_accuracy: float) -> None:
    """Leave what `peers.py` reads: the epochs of all trials, and the accuracies of the trial that was chosen."""
    outcome = {"epochs": epochs, "val_accuracy": val_accuracy, "test_accuracy": test_accuracy}
    (folder / "outcome.json").write_text(json.dumps(outcome))


def load_splits(data_dir: Path, images: int) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any]]:
    """Training, validation and test images; of all 60,000 the split is that of `search/run.py`."""
    fashion_mnist = import_torchvision_datasets().FashionMNIST
    from torchvision.transforms import ToTensor  # only after the guarded import

    pool = fashion_mnist(root=data_dir, train=True, download=True, transform=ToTensor())
    test = fashion_mnist(root=data_dir, train=False, download=True, transform=ToTensor())
    parts = [images // 6, images - images // 6, len(pool) - images]
    validation, training, _ = random_split(pool, parts, generator=torch.Generator().manual_seed(0))
    return training, validation, Subset(test, range(images // 6))


def train_loop(dataloader: Loader, model: nn.Module, loss_fn: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Train for one epoch, as the tutorial does."""
    model.train()
    for X, y in dataloader:
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_loop(dataloader: Loader, model: nn.Module) -> float:
    """The part of the images that is classified correctly, measured as the tutorial does."""
    model.eval()
    correct, images = 0.0, 0
    with torch.no_grad():
        for X, y in dataloader:
            correct += (model(X).argmax(1) == y).type(torch.float).sum().item()
            images += len(y)
    return correct / images


def test_accuracy(data_dir: Path, images: int, weights: Path) -> float:
    """Measure the network whose weights were saved on the test images."""
    model = NeuralNetwork(28 * 28, 10)
    model.load_state_dict(torch.load(weights))
    _, _, test = load_splits(data_dir, images)
    return test_loop(DataLoader(test, batch_size=64), model)
