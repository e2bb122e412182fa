"""Search a program as it is: it prints a line of JSON after each epoch, and goes on from its checkpoint.

python search/run.py --space examples/programs/space.toml --metric val_loss --command "python \
examples/programs/with_argparse.py --lr {learning_rate} --batch-size {batch_size} --seed {seed} --save {checkpoint}"
"""

import argparse
import json
from pathlib import Path

import torch
from digits import build, load
from torch.utils.data import DataLoader

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--save", type=Path, default=Path())
args = parser.parse_args()

torch.manual_seed(args.seed)
(train_data, val_data), model = load(), build()
optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
first, file = 0, args.save / "last.pt"
if file.exists():
    saved = torch.load(file)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    first = saved["epoch"]
for epoch in range(first + 1, 11):
    for images, labels in DataLoader(train_data, args.batch_size, shuffle=True):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        val_loss = torch.nn.functional.cross_entropy(model(val_data.tensors[0]), val_data.tensors[1])
    print(json.dumps({"epoch": epoch, "val_loss": val_loss.item()}))
    torch.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
