"""How long the report of an imported study of 2,000 trials takes: python benchmarks/import_time.py [TRIALS]."""

import math
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.record.database import open_file
from training.config import PROJECT

SPACE = {
    "learning_rate": FloatDistribution(1e-5, 1.0, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
    "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    "layers": IntDistribution(1, 6),
    "optimizer": CategoricalDistribution(["sgd", "adam", "rmsprop"]),
    "batch_size": CategoricalDistribution([16, 32, 64, 128]),
}


def trial(steps: int, number: int) -> FrozenTrial:
    """A trial with random hyperparameters and a curve; every third is pruned, if there are steps."""
    draw = random.Random(number)
    rate, layers = 10 ** draw.uniform(-5, 0), draw.randint(1, 6)
    values: dict[str, Any] = {"learning_rate": rate, "layers": layers, "dropout": draw.uniform(0, 0.6)}
    values |= {"weight_decay": 10 ** draw.uniform(-6, -2), "batch_size": draw.choice([16, 32, 64, 128])}
    values |= {"optimizer": draw.choice(["sgd", "adam", "rmsprop"])}
    best = 0.9 - 0.03 * (math.log10(rate) + 2) ** 2 - 0.01 * (layers - 3) ** 2 + draw.gauss(0, 0.005)
    curve = {step: best * (1 - math.exp(-(step + 1) / 3)) + draw.gauss(0, 0.003) for step in range(steps)}
    is_pruned = steps > 0 and number % 3 == 0
    curve = {step: curve[step] for step in range(max(1, steps // 3))} if is_pruned else curve
    state, value = (TrialState.PRUNED, None) if is_pruned else (TrialState.COMPLETE, [best, *curve.values()][-1])
    return create_trial(state=state, value=value, params=values, distributions=SPACE, intermediate_values=curve)


def main(trials: int) -> None:
    """Make studies with and without values per step, and time the command."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for steps in (0, 20):
        with TemporaryDirectory() as folder:
            file = Path(folder) / "study.db"
            optuna.create_study(storage=f"sqlite:///{file}", study_name="large", direction="maximize")
            database = open_file(file, new=False)
            database.add_trials(database.get_study_id_from_name("large"), [trial(steps, one) for one in range(trials)])
            database.close()
            command = [sys.executable, str(PROJECT / "search" / "report.py"), "--import", str(file)]
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([*command, "--results-dir", folder], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            page = (Path(folder) / "large" / "report.html").stat().st_size / 1e6
            wall = time.monotonic() - began
            print(f"{trials} trials, {steps} steps: {wall:.1f} s ({cpu:.1f} s of CPU), a page of {page:.1f} MB")


if __name__ == "__main__":
    main(int([*sys.argv[1:], "2000"][0]))
