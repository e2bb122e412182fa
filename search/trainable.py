"""The function that Ray calls for each trial."""

import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray import tune

from training.config import TrialConfig
from training.data import ImageData
from training.loop import TrainingDivergedError, train


def trainable(sample: dict[str, Any], data: ImageData, epochs: int, threads: int, device: str) -> None:
    """Train one sampled configuration and report the metrics of each epoch.

    A failure is reported too, with its text, because the driver sees no more of an exception than that there was one.

    Args:
        sample: What `StudySearch.suggest` proposed.
        data: The study's data, the same object in every trial of a worker.
        epochs: Epochs of a trial that is not stopped early.
        threads: Threads that torch uses.
        device: Where the network is trained, `cpu` or `cuda`.
    """
    torch.set_num_threads(threads)
    hyperparameters = dict(sample)
    checkpoint, epochs_recorded = Path(hyperparameters.pop("checkpoint")), hyperparameters.pop("epochs_recorded")
    checkpoint.parent.mkdir(exist_ok=True)
    try:
        for metrics in train(TrialConfig(**hyperparameters, epochs=epochs), data.to(device), checkpoint):
            if metrics.epoch > epochs_recorded:
                tune.report(asdict(metrics))
    except TrainingDivergedError as error:
        tune.report({"failure": {"status": "diverged", "error": str(error)}})
    except Exception as error:
        summary = " ".join(f"{type(error).__name__}: {error}".split())
        tune.report({"failure": {"status": "failed", "error": summary, "traceback": traceback.format_exc()}})
        raise  # Ray then replaces the worker, whose state nobody knows
