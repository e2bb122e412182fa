"""Compare samplers on published tables of accuracies: the rank of the best of 20 trials among 30,000 configurations.

    python benchmarks/sampler_quality.py --studies 25

Two trials run at a time, as in a study on two cores. A study is given the accuracy of a configuration from a seed at
random; the rank of its best one is that of the mean over all seeds. Intervals are 95 % bootstrap intervals over the
studies of all tasks.
"""

import argparse
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable
from functools import cache

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import Trial
from published_tables import DEFAULTS, SPACE, TASKS, VALUES, PublishedTable

from search.algorithms.curve_sampler import CurveSampler
from search.algorithms.samplers import StudySampler, tpe
from search.algorithms.search_algorithm import suggest_value
from search.record.provenance import command, machine, versions
from search.space.distributions import optuna_distribution, snap
from search.space.search_space import Point

TRIALS, WORKERS = 20, 2
RESAMPLES = 2000
OWN: dict[str, Callable[[int], BaseSampler]] = {
    "random": RandomSampler,
    "tpe, 5 random": lambda seed: tpe(seed, 5),
    "tpe, 10 random": lambda seed: tpe(seed, 10),
    "tpe, 5 random, 100 candidates": lambda seed: TPESampler(
        n_startup_trials=5, n_ei_candidates=100, multivariate=True, constant_liar=True, seed=seed
    ),
    "tpe, 5 random, best tenth": lambda seed: TPESampler(
        n_startup_trials=5,
        gamma=lambda n: min(int(np.ceil(0.2 * n)), 25),
        multivariate=True,
        constant_liar=True,
        seed=seed,
    ),
    "gp": lambda seed: CurveSampler(seed, None, lambda _: None),
    "Optuna's gp, 5 random": lambda seed: GPSampler(n_startup_trials=5, deterministic_objective=False, seed=seed),
}
"""Samplers in the search space of this project."""
OPTUNA = "Optuna's default"
STARTS = " after the defaults"
"""Ends the name of a sampler that begins with the default settings."""
SAMPLERS = [OPTUNA, *OWN, *(f"{name}{STARTS}" for name in OWN)]
Job = tuple[str, str, int]
"""The names of a task and of a sampler, and the number of a study."""


@cache
def table_of(task: str) -> PublishedTable:
    """The table of a task."""
    return PublishedTable(task)


def search(job: Job) -> dict[str, float | str]:
    """Run a study; returns the rank of its best trial."""
    task, name, number = job
    table, random = table_of(task), np.random.default_rng(number)
    own = OWN.get(name.removesuffix(STARTS))
    study = optuna.create_study(
        direction="maximize", sampler=StudySampler(SPACE, own(number)) if own else TPESampler(seed=number)
    )
    if name.endswith(STARTS):
        study.enqueue_trial(DEFAULTS)
    running: deque[tuple[Trial, int]] = deque()
    best, best_accuracy = 0, -np.inf
    for trial in range(TRIALS + WORKERS - 1):
        if trial < TRIALS:
            proposal = study.ask()
            running.append((proposal, table.index(_suggest(proposal, is_own=own is not None))))
        if len(running) == WORKERS or trial >= TRIALS:
            ended, index = running.popleft()
            accuracy = table.accuracy(index, random)
            study.tell(ended, accuracy)
            if accuracy > best_accuracy:
                best, best_accuracy = index, accuracy
    return {"task": task, "sampler": name, "study": number, "rank": table.rank(best)}


def _suggest(proposal: Trial, *, is_own: bool) -> Point:
    if is_own:
        return SPACE.build_point(
            lambda name, distribution: snap(
                distribution, suggest_value(proposal, name, optuna_distribution(distribution))
            )
        )
    places = {
        name: suggest_value(proposal, name, IntDistribution(0, len(values) - 1)) for name, values in VALUES.items()
    }
    return {name: VALUES[name][int(place)] for name, place in places.items()}


def show(studies: pd.DataFrame, samplers: list[str], tasks: list[str]) -> None:
    """Print the median ranks."""
    print(f"\n| sampler | {' | '.join(tasks)} | all (95 %) | of {OPTUNA} |\n| --- {'| ---: ' * (len(tasks) + 2)}|")
    ranks = {key: of_task["rank"].to_numpy() for key, of_task in studies.groupby(["sampler", "task"])}
    reference = np.median(np.concatenate([ranks[OPTUNA, task] for task in tasks])) if OPTUNA in samplers else np.nan
    for sampler in samplers:
        cells = [f"{np.median(ranks[sampler, task]):.0f}" for task in tasks]
        values = np.concatenate([ranks[sampler, task] for task in tasks])
        resampled = np.median(np.random.default_rng(0).choice(values, (RESAMPLES, len(values))), axis=1)
        low, high = np.percentile(resampled, (2.5, 97.5))
        median = np.median(values)
        print(
            f"| {sampler} | {' | '.join(cells)} | {median:.0f} ({low:.0f} to {high:.0f}) | {median / reference:.2f} |"
        )


def _prepare() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=25, help="studies of each sampler and task")
    parser.add_argument("--first", type=int, default=0, help="number of the first study")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.studies)
    jobs = list(itertools.product(options.tasks, options.samplers, numbers))
    with multiprocessing.get_context("fork").Pool(options.workers, _prepare) as workers:
        studies = pd.DataFrame(list(workers.imap(search, jobs, chunksize=5)))
    print(f"command   {command()}\nmachine   {machine().processor}, {options.workers} processes")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    show(studies, options.samplers, options.tasks)


if __name__ == "__main__":
    main()
