"""Runs in TensorBoard with hyperparameters, by PyTorch or by tensorboardX: python with_tensorboard.py WRITER FOLDER."""

import importlib
import math
import random
import sys

WRITERS = {"torch": "torch.utils.tensorboard", "tensorboardX": "tensorboardX"}


def main(writer: str, folder: str) -> None:
    """Log a curve of each run, and its hyperparameters at its end."""
    module = importlib.import_module(WRITERS[writer])
    noise = random.Random(1)
    for number in range(16):
        rate, batch_size = 10 ** noise.uniform(-4, 0), noise.choice([16, 32, 64])
        best = 0.9 - 0.05 * (math.log10(rate) + 2) ** 2
        with module.SummaryWriter(f"{folder}/run-{number:02}") as log:
            for step in range(0, 500, 100):
                loss = 1 - best * (1 - math.exp(-(step + 100) / 200)) + noise.gauss(0, 0.002)
                log.add_scalar("val_loss", loss, step)
            values = {"lr": rate, "batch_size": batch_size, "nesterov": noise.random() < 0.5, "schedule": "cosine"}
            log.add_hparams(values, {"hparam/accuracy": 1 - loss})


if __name__ == "__main__":
    main(*sys.argv[1:3])
