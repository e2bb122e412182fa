"""Measure whether the interval of a confirmed winner holds what many more seeds give, over repeated studies.

    python benchmarks/confirm_coverage.py --studies 40 --curves benchmarks/tables/confirm-coverage-3-epochs.csv.gz

Each study searches digits, its best configurations are trained again from new seeds, and the winner from as many
more; the record, the choice, the statistics and the winner are those of `search/confirm.py`, only Ray is left out. Then
the winner is trained from many further seeds, whose mean after the confirmed number of epochs stands for the truth.
"""

import argparse
import math
import multiprocessing
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray

from search.algorithms.samplers import build_sampler
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.record import provenance
from search.record.configuration import Configuration, measure, measure_again, rank
from search.record.metadata import collect_metadata
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from search.record.trial import Failure, Objective, TrialRecord
from search.retraining.confirm_study import fresh_seeds
from search.settings import StudySettings
from search.simulation.simulator import MemoryStorage
from search.space.toml_file import default_space
from training.config import TrialConfig
from training.images.image_data import ImageData, load_data
from training.loop import TrainingDivergedError, train
from training.metrics import EpochMetrics

TOP, SEEDS, VALIDATION_IMAGES = 3, 5, 240
MEASURED: dict[str, Any] = {
    "objective": Objective("val_accuracy", "max"),
    "task": StudySettings(dataset="digits").task.recorded("digits", []),
}
Seeds = Literal["measure", "choose"]
"""What they do whose interval is looked at: measure the winner, as in `search/confirm.py`; or choose it, which is shown
because it is what one would try first."""


@dataclass(frozen=True)
class Outcome:
    """The winner of one study, and the truth about it."""

    study: int
    trial: int
    epochs: int
    search_value: float
    mean: float
    low: float
    high: float
    truth: float
    """Mean of the metric over the further seeds, after the confirmed number of epochs."""

    @property
    def is_covered(self) -> bool:
        """Whether the truth lies in the interval."""
        return self.low <= self.truth <= self.high


def trained(config: TrialConfig, data: ImageData) -> list[EpochMetrics] | None:
    """All epochs of one training; None if it diverged."""
    try:
        return list(train(config, data))
    except TrainingDivergedError:
        return None


def searched(settings: StudySettings, data: ImageData, folder: Path) -> StudyRecord:
    """The record of a study that was run in this process."""
    server: Any = MemoryStorage()
    record = StudyRecord.create(folder, collect_metadata(settings, default_space("mlp"), data), server=server)
    record.enqueue_starting_points(most=settings.num_samples)
    sampler = build_sampler(settings.sampler, settings.seed, 0, settings.epochs, record.epoch_seconds)
    search = SearchAlgorithm(
        record, sampler, seed=settings.seed, num_ended=settings.num_samples, stopper=StudyStopper()
    )
    for number in range(settings.num_samples):
        trial_id = f"trial {number}"
        search.suggest(trial_id)
        epochs = trained(record.metadata.trial_config(record.running(trial_id)), data)
        for metrics in epochs or ():
            record.add_epoch(trial_id, metrics)
        if epochs is None:
            record.add_failure(trial_id, Failure("diverged", "a loss is not finite"))
        record.finish(trial_id)
    return record


def curves_of(study: int, settings: StudySettings, further: int) -> list[dict[str, Any]]:
    """One study, and its best configurations trained from fresh and from further seeds; a row for each training."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # studies far apart, so that the seeds of one are not those of another; each has its own validation images
    settings = replace(settings, seed=1000 * study)
    data, _ = load_data(settings, settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        record = searched(settings, data, Path(folder))
    seeds = fresh_seeds(record, SEEDS + further)
    rows = [
        row for trial in best_configurations(record.trials, TOP) for row in _rows(record, trial, seeds[:SEEDS], data)
    ]
    winner, _ = choose(pd.DataFrame(rows))
    (trial,) = (trial for trial in record.trials if trial.number == winner.trial)
    rows += _rows(record, trial, seeds[SEEDS:], data)
    return [{"study": study} | row for row in rows]


def _rows(record: StudyRecord, trial: TrialRecord, seeds: Sequence[int], data: ImageData) -> list[dict[str, Any]]:
    rows = []
    for seed in seeds:
        row: dict[str, Any] = {"trial": trial.number, **trial.hyperparameters}
        row |= {"search_value": trial.best_value, "seed": seed}
        epochs = trained(replace(record.metadata.trial_config(trial), seed=seed), data)
        rows.append(row | {f"epoch {metrics.epoch}": metrics.val_accuracy for metrics in epochs or ()})
    return rows


def choose(study: pd.DataFrame) -> tuple[Configuration, list[list[EpochMetrics] | None]]:
    """The winner by the first seeds of each configuration, and its curves from the others."""
    curves: dict[int, list[list[EpochMetrics] | None]] = {}
    configurations = []
    for name, rows in study.groupby("trial"):
        trial, value = int(str(name)), float(rows["search_value"].iloc[0])
        curves[trial] = [_curve(row) for row in rows.sort_values("seed").filter(like="epoch ").to_numpy()]
        one = measure(trial, {}, value, dict(enumerate(curves[trial][:SEEDS])), **MEASURED)
        configurations.append(replace(one, validation_images=VALIDATION_IMAGES))
    winner, *_ = rank(configurations)
    return winner, curves[winner.trial][SEEDS:]


def _curve(accuracies: NDArray[np.float64]) -> list[EpochMetrics] | None:
    if np.isnan(accuracies).any():
        return None
    untold = dict.fromkeys(("train_loss", "test_accuracy", "test_loss", "seconds", "evaluation_seconds"), 0.0)
    return [
        EpochMetrics(epoch=epoch, val_accuracy=float(accuracy), val_loss=None, **untold)
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]


def outcome(number: int, study: pd.DataFrame, seeds: Seeds) -> Outcome:
    """Confirm one study, and look whether the further seeds agree."""
    winner, others = choose(study)
    fresh, further = others[:SEEDS], others[SEEDS:]
    values = [float(getattr(training[winner.epochs - 1], winner.metric_name)) for training in further if training]
    confirmed = measure_again(winner, dict(enumerate(fresh)), **MEASURED) if seeds == "measure" else winner
    estimate = confirmed.metric
    return Outcome(
        study=number,
        trial=winner.trial,
        epochs=winner.epochs,
        search_value=winner.search_value,
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        truth=float(np.mean(values)),
    )


def show(outcomes: list[Outcome]) -> None:
    """Print how often the interval holds the truth, and how far the numbers are from it."""
    for winner in outcomes:
        interval = f"{winner.low:.4f} to {winner.high:.4f}"
        print(
            f"study {winner.study:>3}: trial {winner.trial:>2}, epoch {winner.epochs}: "
            f"search {winner.search_value:.4f}, confirmed {winner.mean:.4f} ({interval}), truth {winner.truth:.4f}"
            f"{'' if winner.is_covered else '  outside'}"
        )
    covered = sum(outcome.is_covered for outcome in outcomes)
    noise = 100 / math.sqrt(len(outcomes))
    confirm = [outcome.mean - outcome.truth for outcome in outcomes]
    search = [outcome.search_value - outcome.truth for outcome in outcomes]
    width = np.mean([outcome.high - outcome.low for outcome in outcomes])
    print(f"{covered} of {len(outcomes)} intervals hold the truth ({100 * width:.2f} points wide on average)")
    for name, errors in (("confirmed mean", confirm), ("search's number", search)):
        above = sum(error > 0 for error in errors)
        print(
            f"  {name} - truth: {100 * np.mean(errors):+.2f} points on average "
            f"(standard error {noise * np.std(errors, ddof=1):.2f}), too good in {above} of {len(errors)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--further-seeds", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--curves", type=Path, required=True, help="CSV file of all trainings; used if it is there")
    options = parser.parse_args()
    settings = StudySettings(dataset="digits", sampler="tpe", num_samples=options.trials, epochs=options.epochs)
    one = partial(curves_of, settings=settings, further=options.further_seeds)
    if not options.curves.exists():
        rows: list[dict[str, Any]] = []
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            for done, found in enumerate(pool.imap_unordered(one, range(options.studies)), start=1):
                rows += found
                print(f"{done} of {options.studies} studies", flush=True)
        pd.DataFrame(rows).sort_values(["study", "trial", "seed"]).to_csv(options.curves, index=False)
        machine = provenance.machine()
        print(f"{machine.processor}, {machine.cpus} cores; {provenance.versions()}; {provenance.git_commit()}\n")
    curves = pd.read_csv(options.curves)
    for seeds in get_args(Seeds):
        print(f"\nmean and interval by the seeds that {seeds} the winner")
        show([outcome(int(str(number)), study, seeds) for number, study in curves.groupby("study")])


if __name__ == "__main__":
    main()
