"""What TPE loses in long studies by seeing the best and the newest trials only, on functions whose minimum is known.

    python benchmarks/long_studies.py --trials 900 --studies 3

Each study is run twice from the same seed: with TPE as it is, and with TPE that sees all trials. Up to `MOST_SEEN`
trials both are the same. Two trials run at a time.
"""

import argparse
import itertools
import math
import multiprocessing
from collections import deque
from collections.abc import Callable
from unittest import mock

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from optuna.trial import Trial

from search.algorithms import seen_trials
from search.algorithms.samplers import StudySampler, tpe
from search.record.provenance import command, machine, versions
from search.space.search_space import SearchSpace

WORKERS = 2
SEEN = {"best and newest": seen_trials.MOST_SEEN, "all": 10**9}
"""Trials that TPE sees."""
Point = NDArray[np.float64]
Job = tuple[str, str, int, int]
"""The name of a function, what TPE sees, and the numbers of the study and of its trials."""


def ackley(x: Point) -> float:
    """Many local minima around one; Ackley 1987."""
    bowl = -20 * math.exp(-0.2 * math.sqrt(np.mean(x**2)))
    return float(bowl - math.exp(np.mean(np.cos(2 * np.pi * x))) + 20 + math.e)


def branin(x: Point) -> float:
    """Three equal minima; Branin 1972."""
    hill = x[1] - 5.1 * x[0] ** 2 / (4 * np.pi**2) + 5 * x[0] / np.pi - 6
    return float(hill**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x[0]) + 10 - 0.39788735772973816)


def hartmann(x: Point) -> float:
    """Four bumps in six dimensions; Hartman 1973, Dixon and Szegö 1978."""
    weights = np.array([1.0, 1.2, 3.0, 3.2])
    scales = [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
    centers = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ]
    return float(3.32236801141551 - weights @ np.exp(-np.sum(np.array(scales) * (x - np.array(centers)) ** 2, axis=1)))


def levy(x: Point) -> float:
    """Waves on a bowl; Levy and Montalvo 1985."""
    w = 1 + (x - 1) / 4
    middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2))
    return float(np.sin(np.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2))


def rosenbrock(x: Point) -> float:
    """A narrow curved valley; Rosenbrock 1960."""
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def sphere(x: Point) -> float:
    """A bowl whose minimum is away from the middle."""
    return float(np.sum((x - 0.7) ** 2))


FUNCTIONS: dict[str, tuple[Callable[[Point], float], list[tuple[float, float]]]] = {
    "ackley": (ackley, [(-20.0, 30.0)] * 5),
    "branin": (branin, [(-5.0, 10.0), (0.0, 15.0)]),
    "hartmann": (hartmann, [(0.0, 1.0)] * 6),
    "levy": (levy, [(-10.0, 10.0)] * 4),
    "rosenbrock": (rosenbrock, [(-2.0, 3.0)] * 4),
    "sphere": (sphere, [(-5.0, 5.0)] * 8),
}
"""Functions above their minimum, and the range of each of their variables."""


def search(job: Job) -> list[dict[str, float | str]]:
    """Run a study; returns its regret after each hundred trials, and the median of the last hundred values."""
    name, seen, number, trials = job
    function, ranges = FUNCTIONS[name]
    space = SearchSpace({f"x{axis}": FloatDistribution(*bounds) for axis, bounds in enumerate(ranges)})
    values: list[float] = []
    rows: list[dict[str, float | str]] = []
    running: deque[tuple[Trial, float]] = deque()
    with mock.patch.object(seen_trials, "MOST_SEEN", SEEN[seen]):
        study = optuna.create_study(direction="minimize", sampler=StudySampler(space, tpe(number)))
        while len(values) < trials:
            while len(running) < min(WORKERS, trials - len(values)):
                proposal = study.ask()
                point = [proposal.suggest_float(f"x{axis}", *bounds) for axis, bounds in enumerate(ranges)]
                running.append((proposal, function(np.array(point))))
            ended, value = running.popleft()
            study.tell(ended, value)
            values.append(value)
            if len(values) % 100 == 0:
                recent = float(np.median(values[-100:]))
                where: dict[str, float | str] = {"function": name, "seen": seen, "study": number}
                rows.append({**where, "trials": len(values), "regret": min(values), "of 100": recent})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=900)
    parser.add_argument("--studies", type=int, default=3, help="studies of each function, each run twice")
    parser.add_argument("--first", type=int, default=0, help="number of the first study")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    numbers = range(options.first, options.first + options.studies)
    jobs = list(itertools.product(FUNCTIONS, SEEN, numbers, [options.trials]))
    with multiprocessing.get_context("fork").Pool(options.workers) as workers:
        rows = pd.DataFrame([row for rows in workers.imap(search, jobs, chunksize=1) for row in rows])
    print(f"command   {command()}\nmachine   {machine().processor}, {options.workers} processes")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    for value in ("regret", "of 100"):
        print(f"\nMedian {value}, best and newest / all; studies in which the first is lower, equal, higher; ratio")
        wide = rows.pivot_table(index=["trials", "function", "study"], columns="seen", values=value)
        few, everything = wide["best and newest"], wide["all"]
        for trials in few.index.unique("trials"):
            one, other = few[trials], everything[trials]
            counts = ", ".join(str(int(part.sum())) for part in (one < other, one == other, one > other))
            ratio = math.exp(np.mean(np.log(np.maximum(one, 1e-12) / np.maximum(other, 1e-12))))
            print(f"{trials:>6}  {one.median():.4g} / {other.median():.4g}   {counts}   {ratio:.3f}")
        last = wide.loc[options.trials // 100 * 100].groupby("function").median()
        print(last.to_string())


if __name__ == "__main__":
    main()
