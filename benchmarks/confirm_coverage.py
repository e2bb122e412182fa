"""Measure whether the interval of a confirmed winner holds what many more seeds give, over repeated studies.

    python benchmarks/confirm_coverage.py --studies 20

Each study searches digits, and its best configurations are trained again from fresh seeds; the record, the choice, the
statistics and the winner are those of `search/confirm.py`, only Ray is left out. Then each of the configurations is
trained from many further seeds, whose mean stands for the truth. A configuration that was not chosen by its interval,
the last of the three, is beside the winner: its interval has no reason to be optimistic.
"""

import argparse
import math
import multiprocessing
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch

from search import provenance
from search.confirmation import Configuration, measure, rank
from search.confirming import fresh_seeds
from search.ending import Ending
from search.record import StudyRecord
from search.sampler import build_sampler
from search.searcher import StudySearch
from search.settings import StudySettings
from search.simulation import MemoryStorage
from search.space import describe
from search.space_file import default_space
from search.trial_record import Failure
from training.config import TrialConfig
from training.data import ImageData, load_data
from training.loop import EpochMetrics, TrainingDivergedError, train

TOP, SEEDS = 3, 5


@dataclass(frozen=True)
class Outcome:
    """One confirmed configuration of one study, and the truth about it."""

    study: int
    rank: int
    trial: int
    epochs: int
    search_value: float
    mean: float
    low: float
    high: float
    further_seeds: int
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
    dataset: dict[str, Any] = {"name": data.name, "sha256": data.sha256, "classes": list(data.classes)}
    dataset |= {"training_images": len(data.train), "validation_images": len(data.val), "test_images": len(data.test)}
    stored = {"dataset": data.name, "metric": settings.metric_name, "epochs": settings.epochs}
    facts = {"settings": stored, "space": describe(default_space("mlp")), "dataset": dataset}
    server: Any = MemoryStorage()
    record = StudyRecord.create(folder, settings.direction, facts, server=server)
    record.enqueue_starting_points(default_space("mlp"), most=settings.num_samples)
    sampler = build_sampler(settings.sampler, settings.seed, 0)
    search = StudySearch(
        record, default_space("mlp"), sampler, seed=settings.seed, num_samples=settings.num_samples, ending=Ending()
    )
    for number in range(settings.num_samples):
        trial_id = f"trial {number}"
        search.suggest(trial_id)
        epochs = trained(record.config(record.running(trial_id)), data)
        for metrics in epochs or ():
            record.add_epoch(trial_id, metrics)
        if epochs is None:
            record.add_failure(trial_id, Failure("diverged", "a loss is not finite"))
        record.finish(trial_id)
    return record


def confirmed(study: int, settings: StudySettings, further: int) -> list[Outcome]:
    """One study, confirmed, and the truth about each of its best configurations; the winner first."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # studies far apart, so that the seeds of one are not those of another; each has its own validation images
    settings = replace(settings, seed=1000 * study)
    data, _ = load_data(settings, settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        record = searched(settings, data, Path(folder))
    seeds = fresh_seeds(record, SEEDS + further)
    configurations = []
    curves: dict[int, dict[int, list[EpochMetrics] | None]] = {}
    for trial in record.best_configurations(TOP):
        config = record.config(trial)
        curves[trial.number] = {seed: trained(replace(config, seed=seed), data) for seed in seeds}
        of_confirming = {seed: curves[trial.number][seed] for seed in seeds[:SEEDS]}
        value = record.best_value(trial)
        configurations.append(measure(trial.number, trial.hyperparameters, value, of_confirming, record.metric))
    measured = [one for one in rank(configurations) if one.is_measured]
    return [
        _outcome(study, place, one, [curves[one.trial][seed] for seed in seeds[SEEDS:]])
        for place, one in enumerate(measured, start=1)
    ]


def _outcome(study: int, place: int, one: Configuration, further: Sequence[list[EpochMetrics] | None]) -> Outcome:
    values = [float(getattr(training[one.epochs - 1], one.metric_name)) for training in further if training]
    estimate = one.metric
    return Outcome(
        study=study,
        rank=place,
        trial=one.trial,
        epochs=one.epochs,
        search_value=one.search_value,
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        further_seeds=len(values),
        truth=float(np.mean(values)),
    )


def show(outcomes: list[Outcome], words: str) -> None:
    """Print how often the interval holds the truth, and how far the numbers are from it."""
    covered = sum(outcome.is_covered for outcome in outcomes)
    noise = 100 / math.sqrt(len(outcomes))
    confirm = [outcome.mean - outcome.truth for outcome in outcomes]
    search = [outcome.search_value - outcome.truth for outcome in outcomes]
    width = np.mean([outcome.high - outcome.low for outcome in outcomes])
    print(f"{words}: {covered} of {len(outcomes)} intervals hold the truth ({100 * width:.2f} points wide on average)")
    for name, errors in (("confirmed mean", confirm), ("search's number", search)):
        above = sum(error > 0 for error in errors)
        print(
            f"  {name} - truth: {100 * np.mean(errors):+.2f} points on average "
            f"(standard error {noise * np.std(errors, ddof=1):.2f}), too good in {above} of {len(errors)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--further-seeds", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="CSV file of every confirmed configuration")
    options = parser.parse_args()
    settings = StudySettings(dataset="digits", num_samples=options.trials, epochs=options.epochs)
    one = partial(confirmed, settings=settings, further=options.further_seeds)
    outcomes: list[Outcome] = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for found in pool.imap(one, range(options.studies)):
            outcomes += found
            winner = found[0]
            interval = f"{winner.low:.4f} to {winner.high:.4f}"
            print(
                f"study {winner.study:>3}: trial {winner.trial:>2}, epoch {winner.epochs}: "
                f"search {winner.search_value:.4f}, confirmed {winner.mean:.4f} ({interval}), truth {winner.truth:.4f}"
                f"{'' if winner.is_covered else '  outside'}",
                flush=True,
            )
    machine, versions = provenance.machine(), provenance.versions()
    print(f"\n{machine['processor']}, {machine['cpus']} cores; {versions}; commit {provenance.git_commit()}\n")
    show([outcome for outcome in outcomes if outcome.rank == 1], "winners")
    show([outcome for outcome in outcomes if outcome.rank == TOP], "last of the top")
    show(outcomes, "all")
    if options.output:
        pd.DataFrame([asdict(outcome) for outcome in outcomes]).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
