"""Search a program of several processes: rank 0 prints, and when a trial is stopped, all ranks end.

python search/run.py --space examples/programs/space.toml --metric val_loss --cpus-per-trial 2 --command "torchrun \
--standalone --nproc-per-node 2 examples/programs/with_torchrun.py {learning_rate} {batch_size} {seed}"
"""

import json
import sys

import torch
import torch.distributed as dist
from digits import build, load
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

learning_rate, batch_size, seed = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo")
torch.manual_seed(seed)
train_data, val_data = load()
model = DistributedDataParallel(build())
optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9)
sampler: DistributedSampler[int] = DistributedSampler(train_data, seed=seed)
for epoch in range(10):
    sampler.set_epoch(epoch)
    for images, labels in DataLoader(train_data, batch_size // dist.get_world_size(), sampler=sampler):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    if dist.get_rank() == 0:
        with torch.no_grad():
            val_loss = torch.nn.functional.cross_entropy(model.module(val_data.tensors[0]), val_data.tensors[1])
        print(json.dumps({"epoch": epoch, "val_loss": val_loss.item()}))
dist.destroy_process_group()
