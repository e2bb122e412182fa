"""A callback of PyTorch Lightning that prints the metrics of each epoch as a line of JSON."""

import json

import pytorch_lightning as pl


class PrintMetrics(pl.Callback):  # type: ignore[misc]
    """Prints all logged metrics when an epoch has ended, from one process only."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Print what was logged."""
        if trainer.is_global_zero:
            metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
            print(json.dumps({"epoch": trainer.current_epoch, **metrics}))
