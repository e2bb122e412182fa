"""A small training function of one's own that notes each epoch that begins; `chaos.py` kills studies of it."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from begun_epochs import NOTES, note_epoch
from torch import nn

from training.checkpoint import Checkpoint

EPOCH_SECONDS = "TUNESMITH_CHAOS_EPOCH_SECONDS"
"""Environment variable that says how long an epoch waits, so that there is time to kill it; by default 0.2 s."""
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def train(
    *,
    learning_rate: float,
    batch_size: int,
    optimizer: str,
    epochs: int,
    trial_folder: Path,
    checkpoint: Checkpoint,
) -> Iterator[dict[str, float]]:
    """Train, save and report epoch by epoch."""
    hyperparameters = {"learning_rate": learning_rate, "batch_size": batch_size, "optimizer": optimizer}
    model, steps = build(learning_rate, optimizer)
    start = checkpoint.load(model=model, optimizer=steps)
    for epoch in range(start + 1, epochs + 1):
        note_epoch(trial_folder / NOTES, hyperparameters, epoch)
        metrics = train_epoch(model, steps, batch_size)
        checkpoint.save(epoch, model=model, optimizer=steps)
        yield metrics


def build(learning_rate: float, optimizer: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A regression of one hidden layer, and its optimizer."""
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    return model, OPTIMIZERS[optimizer](model.parameters(), lr=learning_rate)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batch_size: int) -> dict[str, float]:
    """Train one epoch, with random numbers of torch, NumPy and Python; returns its metrics."""
    pause = float(os.environ.get(EPOCH_SECONDS, "0.2")) / 2
    time.sleep(pause)
    inputs = torch.randn(512, 8)
    targets = inputs.sin().sum(1, keepdim=True) + torch.from_numpy(np.random.normal(0, 0.1, (512, 1))).float()
    batches = [*torch.randperm(512).split(batch_size)]
    random.shuffle(batches)
    losses = []
    for batch in batches:
        loss = (model(inputs[batch]) - targets[batch]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    time.sleep(pause)
    return {"loss": sum(losses) / len(losses), "last_loss": losses[-1], "draw": random.random()}
