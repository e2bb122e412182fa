"""The same search by Ray Tune and Optuna alone, as their documentation shows it; restored where it was interrupted.

    python benchmarks/plain_search.py FOLDER --num-samples 8 --epochs 30 --workers 2 --max-failures 100 --seed 0

Made for `benchmarks/chaos.py`. Leaves `results.json` in the folder when all is done: what `fit()` returned.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from begun_epochs import configuration
from observed_training import ObservedTraining
from optuna.storages import RDBStorage
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from training.config import DataConfig, TrialConfig
from training.images.image_data import ImageData, load_data

SPACE = {
    "learning_rate": tune.loguniform(1e-4, 1e-1),
    "batch_size": tune.choice([32, 64, 128, 256, 512]),
    "optimizer": tune.choice(["sgd", "adam", "rmsprop"]),
}


def plain_trainable(sample: dict[str, Any], data: ImageData, epochs: int) -> None:
    """Train one sampled configuration; report each epoch with a checkpoint, and go on from one where there is one."""
    torch.set_num_threads(1)
    training = ObservedTraining(TrialConfig(**sample, epochs=epochs), data)
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "checkpoint.pt", weights_only=True)
        training.epoch = state["epoch"]
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
    while training.epoch < epochs:
        for _ in training.train_epoch():
            pass
        metrics = training.measure_epoch()
        with tempfile.TemporaryDirectory() as folder:
            state = {
                "epoch": training.epoch,
                "model": training.model.state_dict(),
                "optimizer": training.optimizer.state_dict(),
            }
            torch.save(state, Path(folder) / "checkpoint.pt")
            tune.report(asdict(metrics), checkpoint=tune.Checkpoint.from_directory(folder))


def build_tuner(options: argparse.Namespace) -> tune.Tuner:
    """A restored Tuner if there is something to restore, otherwise a new one."""
    data, _ = load_data(DataConfig(dataset="digits"), split_seed=0)
    trainable = tune.with_parameters(plain_trainable, data=data, epochs=options.epochs)
    experiment = str(options.folder / "experiment")
    if tune.Tuner.can_restore(experiment):
        return tune.Tuner.restore(experiment, trainable, resume_errored=True)
    return tune.Tuner(
        trainable,
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            num_samples=options.num_samples,
            max_concurrent_trials=options.workers,
            search_alg=OptunaSearch(
                storage=RDBStorage(f"sqlite:///{options.folder / 'study.db'}"), study_name="study", seed=options.seed
            ),
        ),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=str(options.folder),
            failure_config=tune.FailureConfig(max_failures=options.max_failures),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    for option in ("--num-samples", "--epochs", "--workers", "--max-failures", "--seed"):
        parser.add_argument(option, type=int, required=True)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    ray.init(address="local", num_cpus=options.workers, include_dashboard=False)
    results = build_tuner(options).fit()
    finished = [
        configuration(result.config)
        for result in results
        if result.error is None and result.metrics and result.metrics.get("epoch") == options.epochs
    ]
    (options.folder / "results.json").write_text(json.dumps(finished))


if __name__ == "__main__":
    main()
