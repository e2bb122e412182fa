"""What the programs beside this file have in common: handwritten digits, and a network for them."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import TensorDataset


def load() -> tuple[TensorDataset, TensorDataset]:
    """1,347 digits to train on and 450 for validation: float32 (N, 64) in [0, 1], and int64 labels (N,)."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, random_state=0)
    train_images, val_images, train_labels, val_labels = map(torch.as_tensor, parts)
    return TensorDataset(train_images.float(), train_labels), TensorDataset(val_images.float(), val_labels)


def build() -> nn.Module:
    """A small network: (N, 64) to logits (N, 10)."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
