"""An experiment of Ray Tune with the ASHA scheduler, and its table: python with_ray_tune.py FOLDER [TRIALS].

Its trials have nested hyperparameters, one that only some have, and an error in some; the scheduler stops weak ones.
"""

import importlib
import math
import random
import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune

EPOCHS = 9
IS_OLD = not hasattr(tune, "RunConfig")
"""Whether reports and the configuration of a run are in `ray.train`, as they were before Ray 2.43."""


def train(config: dict[str, Any]) -> None:
    """A learning curve; every seventh trial fails."""
    rate, width = config["optimizer"]["lr"], config["width"]
    report = importlib.import_module("ray.train").report if IS_OLD else tune.report
    noise = random.Random(int(rate * 1e9))
    best = 0.9 - 0.05 * (math.log10(rate) + 2) ** 2 - 0.02 * abs(math.log2(width) - 6)
    for epoch in range(1, EPOCHS + 1):
        if epoch == 3 and width == 32 and noise.random() < 0.5:
            raise RuntimeError("the network does not fit")
        accuracy = best * (1 - math.exp(-epoch / 3)) + noise.gauss(0, 0.002)
        report({"val_accuracy": accuracy, "val_loss": 1 - accuracy, "nested": {"epoch": epoch}})


def main(folder: str, trials: int) -> None:
    """Run the experiment, and write its table beside it."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    space = {
        "optimizer": {"name": tune.choice(["sgd", "adam"]), "lr": tune.loguniform(1e-4, 1e-1)},
        "width": tune.choice([32, 64, 128]),
        "layers": [1, 2],
    }
    settings = importlib.import_module("ray.train").RunConfig if IS_OLD else tune.RunConfig
    results = tune.Tuner(
        train,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            num_samples=trials,
            reuse_actors=True,
            scheduler=tune.schedulers.ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=3),
        ),
        run_config=settings(name=Path(folder).name, storage_path=str(Path(folder).parent), verbose=0),
    ).fit()
    results.get_dataframe().to_csv(f"{folder}-table.csv", index=False)
    ray.shutdown()


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).absolute()), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
