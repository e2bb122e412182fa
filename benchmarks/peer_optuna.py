"""The same search by Optuna alone, as its documentation shows it: processes that share a study, and a pruner.

    python benchmarks/peer_optuna.py FOLDER --num-samples 20 --epochs 10 --images 60000 --workers 2

The study is in a journal file, which Optuna's documentation offers to processes of one machine. Sampler and
`MedianPruner` are as they are by default. Optuna sets no number of threads; here each process has one, because two
processes that use two each on two cores hinder each other: a small search took six times as long.
"""

from functools import partial
from multiprocessing import Pool
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
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
from torch import nn
from torch.utils.data import DataLoader

from training.networks.networks import NeuralNetwork


def objective(trial: optuna.Trial, folder: Path, data_dir: Path, images: int, epochs: int) -> float:
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    batch_size = trial.suggest_categorical("batch_size", BATCH_SIZES)
    optimizer_name = trial.suggest_categorical("optimizer", list(OPTIMIZERS))
    training, validation, _ = load_splits(data_dir, images)
    train_dataloader = DataLoader(training, batch_size=batch_size, shuffle=True)
    val_dataloader = DataLoader(validation, batch_size=batch_size)
    model = NeuralNetwork(28 * 28, 10)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters(), lr=learning_rate)
    for epoch in range(epochs):
        train_loop(train_dataloader, model, nn.CrossEntropyLoss(), optimizer)
        accuracy = test_loop(val_dataloader, model)
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    torch.save(model.state_dict(), folder / f"{trial.number}.pt")
    return accuracy


def open_study(folder: Path) -> optuna.Study:
    return optuna.create_study(
        study_name="study",
        storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(),
    )


def run_trial(_: int, folder: Path, data_dir: Path, images: int, epochs: int) -> None:
    """Run one trial of the study that all processes share."""
    one = partial(objective, folder=folder, data_dir=data_dir, images=images, epochs=epochs)
    open_study(folder).optimize(one, n_trials=1)


def main() -> None:
    options = peer_parser(__doc__ or "").parse_args()
    run = partial(
        run_trial,
        folder=options.folder,
        data_dir=options.data_dir,
        images=options.images,
        epochs=options.epochs,
    )
    with Pool(options.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pool.map(run, range(options.num_samples), chunksize=1)
    study = open_study(options.folder)
    best = study.best_trial
    write_outcome(
        options.folder,
        epochs=sum(len(trial.intermediate_values) for trial in study.trials),
        val_accuracy=study.best_value,
        test_accuracy=test_accuracy(options.data_dir, options.images, options.folder / f"{best.number}.pt"),
    )


if __name__ == "__main__":
    main()
