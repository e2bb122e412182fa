"""Search a program with PyTorch Lightning: a callback prints the metrics after each epoch.

python search/run.py --space examples/programs/space.toml --metric val_loss --command "python \
examples/programs/with_lightning.py {learning_rate} {batch_size} {seed} {checkpoint}"
"""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from digits import build, load
from print_metrics import PrintMetrics
from torch.utils.data import DataLoader


class Classifier(pl.LightningModule):  # type: ignore[misc]  # noqa: D101
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.model, self.lr = build(), lr

    def training_step(self, batch: Any) -> Any:  # noqa: D102
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any) -> None:  # noqa: D102
        self.log("val_loss", self.training_step(batch))

    def configure_optimizers(self) -> Any:  # noqa: D102
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


lr, batch_size, seed, folder = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
pl.seed_everything(seed)
train, val = load()
callbacks = [pl.callbacks.ModelCheckpoint(folder, save_last=True), PrintMetrics()]
trainer = pl.Trainer(max_epochs=10, callbacks=callbacks, logger=False, enable_progress_bar=False)
last = folder / "last.ckpt" if (folder / "last.ckpt").exists() else None
trainer.fit(Classifier(lr), DataLoader(train, batch_size, shuffle=True), DataLoader(val, 450), ckpt_path=last)
