"""Search a program with a Hydra configuration: hyperparameters are overrides, and Hydra writes into the trial's folder.

python search/run.py --space examples/programs/space.toml --metric val_loss --command "python \
examples/programs/with_hydra.py lr={learning_rate} batch_size={batch_size} seed={seed} hydra.run.dir={trial_folder}"
"""

import json
from typing import Any

import hydra
import torch
from digits import build, load
from hydra.core.config_store import ConfigStore
from torch.utils.data import DataLoader

DEFAULTS = {"lr": 0.01, "batch_size": 32, "seed": 0}  # a file in most programs
ConfigStore.instance().store(name="config", node=DEFAULTS)


@hydra.main(version_base=None, config_name="config")  # type: ignore[untyped-decorator]
def main(config: Any) -> None:
    """Train, and print the validation loss after each epoch."""
    torch.manual_seed(config.seed)
    (train_data, val_data), model = load(), build()
    optimizer = torch.optim.SGD(model.parameters(), config.lr, momentum=0.9)
    for epoch in range(10):
        for images, labels in DataLoader(train_data, config.batch_size, shuffle=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        val_loss = torch.nn.functional.cross_entropy(model(val_data.tensors[0]), val_data.tensors[1])
        print(json.dumps({"epoch": epoch, "val_loss": val_loss.item()}))


if __name__ == "__main__":
    main()
