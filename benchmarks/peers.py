"""Run the same search by this project and by peers, and compare time, epochs and what was found.

    python benchmarks/peers.py --data-dir data                      # 20 trials of 10 epochs each: most of an hour
    python benchmarks/peers.py --num-samples 4 --epochs 2 --images 5000

All search learning rate, batch size and optimizer of the tutorial's network in the same space, on the same 50,000
training images of Fashion-MNIST, choose by the same 10,000 for validation, and run as many trials at a time. The peers
train with the tutorial's loop and are written as their documentation shows it, each in a file of its own,
`benchmarks/peer_*.py`. Each repeat has another seed. Seconds are those of
the whole command. Syne Tune needs the packages of `peers.txt`:

    python -m pip install --no-deps --target .venv/peers --requirement benchmarks/peers.txt
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import astuple, dataclass
from pathlib import Path

from search.record.provenance import available_cpus, command, machine, versions
from training.config import DataConfig

SEARCHES = {
    "tunesmith": ["peer_tunesmith.py"],
    "Ray Tune with ASHA": ["peer_ray_tune.py", "--scheduler", "asha"],
    "Ray Tune": ["peer_ray_tune.py", "--scheduler", "none"],
    "Optuna with MedianPruner": ["peer_optuna.py"],
    "Syne Tune with ASHA": ["peer_syne_tune.py", "--searcher", "asha"],
    "Syne Tune with CQR and ASHA": ["peer_syne_tune.py", "--searcher", "cqr"],
}


@dataclass(frozen=True)
class Outcome:
    """What one search took and found."""

    seconds: float
    epochs: int
    """Of all trials."""
    val_accuracy: float
    """Of the trial that it chose."""
    test_accuracy: float


def run(script: str, *words: str) -> Outcome:
    """Run one search from command to exit."""
    with tempfile.TemporaryDirectory(prefix="peer-", dir="/tmp") as name:  # Ray's socket paths must be short
        folder = Path(name)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name(script)), name, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{script} failed:\n{done.stdout[-5000:]}")
        return Outcome(seconds, **json.loads((folder / "outcome.json").read_text()))


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """Medians of each search, and how many times as long as the first it took."""
    lines = [f"{'':<26}{'seconds':>9}{'ratio':>8}{'epochs':>8}{'val_accuracy':>14}{'test_accuracy':>15}"]
    medians = {
        name: Outcome(*(statistics.median(values) for values in zip(*map(astuple, runs), strict=True)))
        for name, runs in outcomes.items()
    }
    ours = next(iter(medians.values()))
    for name, median in medians.items():
        lines.append(
            f"{name:<26}{median.seconds:>9.1f}{median.seconds / ours.seconds:>8.2f}{median.epochs:>8.0f}"
            f"{median.val_accuracy:>14.4f}{median.test_accuracy:>15.4f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--num-samples", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=60_000, help="for training and validation, five to one")
    parser.add_argument("--workers", type=int, default=available_cpus(), help="trials at a time")
    parser.add_argument("--repeats", type=int, default=1, help="of all searches, in turn; medians are shown")
    parser.add_argument("--only", choices=list(SEARCHES), nargs="+", default=list(SEARCHES))
    parser.add_argument("--data-dir", type=Path, default=DataConfig().data_dir)
    options = parser.parse_args()
    names = ("num_samples", "epochs", "images", "workers", "data_dir")
    words = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    print(f"command   {command()}")
    print(f"machine   {machine().processor}, {machine().cpus} cores; {platform.platform()}")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    for repeat in range(options.repeats):
        for name in options.only:
            outcomes[name].append(run(*SEARCHES[name], *words, f"--seed={repeat}"))
            outcome = outcomes[name][-1]
            accuracies = f"validation {outcome.val_accuracy:.4f}, test {outcome.test_accuracy:.4f}"
            print(
                f"  run {repeat + 1}: {name}, {outcome.seconds:.1f} s, {outcome.epochs} epochs, {accuracies}",
                flush=True,
            )
    print(f"\n{options.num_samples} trials of {options.epochs} epochs, {options.workers} at a time")
    print(table(outcomes))


if __name__ == "__main__":
    main()
