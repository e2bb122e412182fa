"""The training of `observed_function.py` as a program of one's own, which prints its metrics and saves its state."""

import argparse
import json
import os
from pathlib import Path

import torch
from begun_epochs import NOTES, note_epoch
from observed_function import build, train_epoch

from training.random_state import get_random_state, seed_generators, set_random_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--optimizer", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--trial_folder", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seed_generators(options.seed)
    model, optimizer = build(options.learning_rate, options.optimizer)
    saved, start = options.checkpoint / "state.pt", 0
    if saved.exists():
        state = torch.load(saved)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"])
        start = state["epoch"]
    for epoch in range(start + 1, options.epochs + 1):
        note_epoch(options.trial_folder / NOTES, vars(options), epoch)
        metrics = train_epoch(model, optimizer, options.batch_size)
        print(json.dumps({"epoch": epoch, **metrics}))
        state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        draft = saved.with_suffix(".draft")
        torch.save(state | {"random": get_random_state()}, draft)
        os.replace(draft, saved)


if __name__ == "__main__":
    main()
