"""The same search by Ray Tune, as its PyTorch guide shows it: each trial loads the data, trains, saves, reports.

    python benchmarks/peer_ray_tune.py FOLDER --scheduler asha --num-samples 20 --epochs 10 --images 60000 --workers 2

A trial has one core, which is Ray's default, and one thread, which Ray sets for it. ASHA is as in the guide: grace
period 1, reduction factor 2. Proposals are those of `OptunaSearch` as it is by default. The best trial is that of
`get_best_result`, by the last accuracy that each trial reported.
"""

import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from peer_task import (
    BATCH_SIZES,
    OPTIMIZERS,
    load_splits,
    peer_parser,
    test_accuracy,
    test_loop,
    train_loop,
    write_outcome,
)
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn
from torch.utils.data import DataLoader

from training.networks.networks import NeuralNetwork


def trainable(config: dict[str, Any], data_dir: Path, images: int, epochs: int) -> None:
    training, validation, _ = load_splits(data_dir, images)
    train_dataloader = DataLoader(training, batch_size=config["batch_size"], shuffle=True)
    val_dataloader = DataLoader(validation, batch_size=config["batch_size"])
    model = NeuralNetwork(28 * 28, 10)
    optimizer = OPTIMIZERS[config["optimizer"]](model.parameters(), lr=config["learning_rate"])
    for _ in range(epochs):
        train_loop(train_dataloader, model, nn.CrossEntropyLoss(), optimizer)
        accuracy = test_loop(val_dataloader, model)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / "model.pt")
            tune.report({"accuracy": accuracy}, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    parser = peer_parser(__doc__ or "")
    parser.add_argument("--scheduler", choices=["asha", "none"], required=True)
    options = parser.parse_args()
    asha = ASHAScheduler(max_t=options.epochs, grace_period=1, reduction_factor=2)
    ray.init(address="local", num_cpus=options.workers)
    tuner = tune.Tuner(
        tune.with_parameters(
            trainable, data_dir=options.data_dir.resolve(), images=options.images, epochs=options.epochs
        ),
        param_space={
            "learning_rate": tune.loguniform(1e-4, 1e-1),
            "batch_size": tune.choice(BATCH_SIZES),
            "optimizer": tune.choice(list(OPTIMIZERS)),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=options.num_samples,
            search_alg=OptunaSearch(),
            scheduler=asha if options.scheduler == "asha" else None,
        ),
        run_config=tune.RunConfig(name="experiment", storage_path=str(options.folder.resolve())),
    )
    results = tuner.fit()
    best = results.get_best_result()
    with best.checkpoint.as_directory() as folder:
        accuracy = test_accuracy(options.data_dir, options.images, Path(folder) / "model.pt")
    write_outcome(
        options.folder,
        epochs=sum(result.metrics["training_iteration"] for result in results),
        val_accuracy=best.metrics["accuracy"],
        test_accuracy=accuracy,
    )


if __name__ == "__main__":
    main()
