"""Search a program whose output cannot be changed: skorch prints a table, and --parse finds the metrics in it.

python search/run.py --space examples/programs/space.toml --metric valid_loss --command "python \
examples/programs/with_skorch.py --lr {learning_rate} --batch-size {batch_size} --seed {seed}" \
--parse "^ +(?P<epoch>[0-9]+) +(?P<train_loss>[0-9.]+) +(?P<valid_acc>[0-9.]+) +(?P<valid_loss>[0-9.]+)"
"""

import argparse

import torch
from digits import build, load
from skorch import NeuralNetClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
train_data, _ = load()
net = NeuralNetClassifier(
    build, max_epochs=10, lr=args.lr, batch_size=args.batch_size, criterion=torch.nn.CrossEntropyLoss
)
net.fit(*train_data.tensors)
