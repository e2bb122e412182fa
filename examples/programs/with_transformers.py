"""Search a program with the Trainer of Hugging Face, which prints its metrics as dictionaries by itself.

python search/run.py --space examples/programs/space.toml --metric eval_loss --command "python \
examples/programs/with_transformers.py {learning_rate} {batch_size} {seed} {checkpoint}"
"""

import sys
from typing import Any

import torch
from digits import build, load
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


class Classifier(torch.nn.Module):
    """The network, with the loss beside the logits, as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build()

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: D102
        logits = self.model(images)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def collate(batch: list[Any]) -> dict[str, torch.Tensor]:  # noqa: D103
    images, labels = zip(*batch, strict=True)
    return {"images": torch.stack(images), "labels": torch.stack(labels)}


lr, batch_size, seed, folder = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
options = {"per_device_train_batch_size": batch_size, "learning_rate": lr, "seed": seed, "num_train_epochs": 10}
every_epoch = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "epoch")
arguments = TrainingArguments(folder, report_to="none", disable_tqdm=True, save_total_limit=1, **options, **every_epoch)
train, val = load()
trainer = Trainer(Classifier(), arguments, data_collator=collate, train_dataset=train, eval_dataset=val)
trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))
