"""Replay studies against tables of learning curves: what each sampler, scheduler and range finds for how much CPU.

    python benchmarks/search_quality.py benchmarks/tables/digits.csv.gz benchmarks/tables/fashion-mnist.csv.gz

Regret is what a study loses, in points: the best mean accuracy that the table has at any epoch, less the mean over the
table's seeds of the configuration that the study would ship, at the epoch that it would ship. It is computed from
validation accuracy; the same from test accuracy is reported beside it and decides nothing. CPU is counted in full
trials: the mean CPU of all runs of the table in the default space. Each study has two workers, and ends when it has
used the CPU of 20 full trials. Intervals are 95 % bootstrap intervals over the studies.

Studies that have been replayed are kept in `search_quality.jsonl`, and a comparison that was killed goes on; without
that file all are replayed anew.
"""

import argparse
import itertools
import json
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from learning_curves import whole_lines
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from quality_summary import GOAL, is_of, show, summarize, told

from search.algorithms.samplers import build_sampler, tpe
from search.algorithms.schedulers import build_scheduler
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.record.provenance import command, machine, versions
from search.record.trial import TrialRecord
from search.settings import StudySettings
from search.simulation.learning_curves import GridCurves, read_csv, read_grid
from search.simulation.simulator import memory_record, simulate
from search.space.distributions import HyperparameterValue, values_of
from search.space.search_space import SearchSpace, starting_points
from search.space.toml_file import default_space
from training.networks.network_config import config_type

REPLAYED = Path(__file__).with_suffix(".jsonl")
SUMMARY = Path(__file__).with_suffix(".csv")
CHUNK = 10
"""Studies that a process replays at a time."""
BUDGETS = (5, 10, 20)
"""Full trials of CPU after which the regret is looked at; the last one ends a study."""
GOAL_REGRET = 1.0
"""Points."""
SEED_STEP = 1000
"""Between the seeds of two studies, so that they share no trial's seed."""
WORKERS = 2
SAMPLERS = ("random", "tpe 5", "tpe 10", "tpe 20", "qmc")
"""The number after tpe is that of its start-up trials, which are random."""
SCHEDULERS = (
    "none",
    *(
        f"asha grace {grace} reduction {reduction_factor}"
        for grace, reduction_factor in itertools.product((1, 2), (2, 3, 4))
    ),
    "median grace 1",
    "hyperband grace 1 reduction 3",
)
RANGES = {
    "1e-4..1e-1": (1e-4, 1e-1, 1.0),
    "1e-4..1": (1e-4, 1.0, 1.0),
    "sgd 1e-2..1, others 1e-4..1e-2": (1e-4, 1e-2, 100.0),
}
"""Ends of the learning rate, and how many times higher both are for sgd."""
DEFAULT_RANGE = next(iter(RANGES))
DEFAULT_SPACE = default_space("mlp")
DEFAULTS = asdict(config_type("mlp")())
BASELINE = DEFAULT_SPACE.point(DEFAULTS)
ADAM, RMSPROP = BASELINE | {"optimizer": "adam"}, BASELINE | {"optimizer": "rmsprop"}
STARTS = {
    "sampler": [],
    "baseline": [BASELINE],
    "baseline, adam, rmsprop": [BASELINE, ADAM, RMSPROP],
    "baseline, rmsprop, adam": starting_points(DEFAULT_SPACE, DEFAULTS),
    "adam, rmsprop, baseline": [ADAM, RMSPROP, BASELINE],
}
"""What a study tries before its sampler draws: the tutorial's settings, in full, and the same with other optimizers."""
RULES = ("best epoch", "last epoch", "mean of last 3", "best mean of 3")
"""How the winner is chosen: by which value of a trial. What is shipped is its best epoch, its last one, or the last of
the three epochs in a row whose mean is best."""


@dataclass(frozen=True)
class Policy:
    """How a study searches."""

    sampler: str
    scheduler: str
    learning_rates: str = DEFAULT_RANGE
    start: str = "baseline"

    def build_sampler(self, seed: int) -> BaseSampler:
        """Build the sampler, with another number of start-up trials than in a real study if so."""
        name, _, startup_trials = self.sampler.partition(" ")
        if startup_trials:
            return tpe(seed, int(startup_trials))
        return build_sampler(name, seed, trials_so_far=0)  # type: ignore[arg-type]

    def settings(self, seed: int, epochs: int) -> StudySettings:
        """The settings of a real study that stops trials like this; it ends by its CPU, not by its trials."""
        name, *words = self.scheduler.split()
        values: dict[str, Any] = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        options = {"grace_period": values.get("grace", 1), "reduction_factor": values.get("reduction_factor", 3)}
        return StudySettings(scheduler=name, num_samples=10**6, epochs=epochs, seed=seed, **options)  # type: ignore[arg-type]


DEFAULT = Policy("tpe 5", "asha grace 1 reduction 3", start="baseline, rmsprop, adam")
"""What a real study does."""


def policies(gp: bool) -> list[Policy]:
    """All that are compared, but for the Gaussian process, or that alone: it takes half a second for a proposal."""
    if gp:
        schedulers = (
            "none",
            "asha grace 1 reduction 3",
            "median grace 1",
            "hyperband grace 1 reduction 3",
        )
        return [Policy("gp", scheduler) for scheduler in schedulers]
    ways = itertools.product(("random", "tpe 5", "qmc"), ("none", "asha grace 1 reduction 3"))
    found = [
        *itertools.starmap(Policy, itertools.product(SAMPLERS, SCHEDULERS)),
        *(Policy(*way, learning_rates) for way, learning_rates in itertools.product(ways, RANGES)),
        *(
            Policy("tpe 5", f"asha grace 1 reduction {reduction_factor}", learning_rates, start)
            for reduction_factor, learning_rates, start in itertools.product((3, 4), [*RANGES][::2], STARTS)
        ),
        *(Policy("random", "none", start=start) for start in STARTS),
    ]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Table:
    """A table, and what is looked up in it often."""

    name: str
    curves: GridCurves
    full_trial: float
    """CPU seconds of a run in full, mean over the default space."""

    @classmethod
    def read(cls, file: Path) -> "Table":
        """Read a table of `benchmarks/learning_curves.py`."""
        curves = read_grid(file, read_csv(file))
        sizes, (low, high, _) = values_of(DEFAULT_SPACE["batch_size"]) or (), RANGES[DEFAULT_RANGE]
        inside = [low <= rate <= high for rate in curves.learning_rates]
        seconds = [values[inside, ..., -1].sum(-1) for (_, size), values in curves.metrics.items() if size in sizes]
        return cls(file.name.removesuffix(".csv.gz"), curves, float(np.nanmean(seconds)))

    def regret(self, shipped: "Shipped", metric: Any) -> float:
        """Points that a configuration loses at an epoch."""
        return 100 * (self.curves.best_truth(metric) - self.curves.truth(*shipped, metric))


Shipped = tuple[dict[str, HyperparameterValue], int]
"""Hyperparameters, and the epochs after which a training with them is taken."""


class Incumbent:
    """What a study would ship if it ended now, by one rule."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._trials: dict[int, tuple[float, Shipped]] = {}
        self.shipped: Shipped = ({}, 0)

    def see(self, trial: TrialRecord, hyperparameters: dict[str, HyperparameterValue]) -> bool:
        """Take note of a trial's newest report; returns whether something else would be shipped now."""
        if trial.failure:
            self._trials.pop(trial.number, None)  # what it measured does not stand
        else:
            curve = [metrics.val_accuracy or 0.0 for metrics in trial.epochs]
            means = [float(np.mean(curve[max(0, end - 3) : end])) for end in range(1, len(curve) + 1)]
            values = {
                "best epoch": curve,
                "last epoch": curve[-1:],
                "mean of last 3": means[-1:],
                "best mean of 3": means,
            }[self._rule]
            epoch = len(curve) - len(values) + values.index(max(values)) + 1
            self._trials[trial.number] = max(values), (hyperparameters, epoch)
        before = self.shipped
        if self._trials:
            _, self.shipped = max(self._trials.values(), key=lambda of_trial: of_trial[0])
        return before != self.shipped


def study(table: Table, policy: Policy, number: int) -> list[dict[str, Any]]:
    """Replay one study; for each rule, when the regret first reached the goal, and what it was at each budget."""
    low, high, sgd_factor = RANGES[policy.learning_rates]
    space = SearchSpace({**DEFAULT_SPACE, "learning_rate": FloatDistribution(low, high, log=True)})
    starts = STARTS[policy.start]

    def trained(trial: TrialRecord) -> dict[str, HyperparameterValue]:
        if trial.number < len(starts):
            return starts[trial.number]
        factor = sgd_factor if trial.hyperparameters["optimizer"] == "sgd" else 1.0
        return trial.hyperparameters | {"learning_rate": float(trial.hyperparameters["learning_rate"]) * factor}

    seed = SEED_STEP * number
    settings = policy.settings(seed, table.curves.epochs)
    record = memory_record(settings, space)
    for point in starts:
        rate = float(point["learning_rate"]) / (sgd_factor if point["optimizer"] == "sgd" else 1.0)
        seen = point | {"learning_rate": max(low, rate)}  # where the sampler takes it to be
        record.study.enqueue_trial(seen, user_attrs={"baseline": point == BASELINE})
    sampler, many = policy.build_sampler(seed), settings.num_samples
    search = SearchAlgorithm(record, sampler, seed=seed, num_ended=many, stopper=StudyStopper())
    incumbents = {rule: Incumbent(rule) for rule in RULES}
    regrets: dict[str, float] = {}
    reached = dict.fromkeys(RULES, np.inf)
    at_budget: list[dict[str, Any]] = []
    left = list(BUDGETS)
    scheduler = build_scheduler(settings, record)
    for report in simulate(
        record, search.suggest, scheduler, lambda trial: table.curves.curve(trained(trial), trial.seed), WORKERS
    ):
        cost = report.seconds_used / table.full_trial
        while left and cost > left[0]:
            at_budget += [
                {"rule": rule, "budget": left[0], "regret": regrets[rule], "trials": len(record.trials)}
                | {"test_regret": table.regret(incumbents[rule].shipped, "test_accuracy")}
                for rule in RULES
            ]
            left.pop(0)
        if not left:
            break
        for rule, incumbent in incumbents.items():
            if incumbent.see(report.trial, trained(report.trial)):
                regrets[rule] = table.regret(incumbent.shipped, "val_accuracy")
                if regrets[rule] <= GOAL_REGRET:
                    reached[rule] = min(reached[rule], cost)
    return [row | {"reached": reached[row["rule"]], "study": number} for row in at_budget]


_tables: list[Table] = []
"""Those of a worker process."""

Task = tuple[int, Policy, range]
"""Which table, which policy, and which studies of it."""


def work(task: Task) -> list[dict[str, Any]]:
    """Replay some of the studies of a policy; one row for each, rule and budget."""
    table, policy, numbers = task
    start = time.process_time()
    rows = [row for number in numbers for row in study(_tables[table], policy, number)]
    seconds = (time.process_time() - start) / len(numbers)
    return [{"table": _tables[table].name, **asdict(policy), **row, "replay_seconds": seconds} for row in rows]


def share(tables: list[Table]) -> None:
    """Give a worker process what all studies share."""
    _tables[:] = tables
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--studies", type=int, default=200, help="for each policy")
    parser.add_argument("--gp-studies", type=int, default=200, help="for each with the Gaussian process, which is slow")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    tables = [Table.read(file) for file in options.tables]
    tasks: dict[str, Task] = {}
    for gp, studies in ((False, options.studies), (True, options.gp_studies)):
        for first, policy, table in itertools.product(range(0, studies, CHUNK), policies(gp), range(len(tables))):
            numbers = range(first, min(first + CHUNK, studies))
            sha256 = tables[table].curves.metadata["sha256"]
            tasks[f"{sha256[:8]} {policy} {numbers}"] = table, policy, numbers
    replayed: dict[str, list[dict[str, Any]]] = dict(whole_lines(REPLAYED))
    to_do = {name: task for name, task in tasks.items() if name not in replayed}
    with (
        multiprocessing.get_context("fork").Pool(options.processes, share, (tables,)) as pool,
        REPLAYED.open("a", buffering=1) as stream,
    ):
        for name, rows in zip(to_do, pool.imap(work, to_do.values()), strict=True):
            replayed[name] = rows
            stream.write(json.dumps([name, rows]) + "\n")
            print(f"{len(replayed)} of {len(tasks)} tasks", end="\r", flush=True)
    print(f"\ncommand   {command()}\nmachine   {machine().processor}, {options.processes} processes")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    summary = summarize(pd.DataFrame([row for name in tasks for row in replayed[name]]))
    summary.to_csv(SUMMARY, index=False, float_format="%.4g")
    for read in tables:
        print(f"\n### {read.name}\n\nsha256 {read.curves.metadata['sha256']}; {read.curves.seeds} seeds; ", end="")
        print(f"a full trial takes {read.full_trial:.2f} CPU seconds; ", end="")
        print(f"best mean validation accuracy {read.curves.best_truth('val_accuracy'):.4f}.")
        of_table = summary[summary["table"] == read.name]
        show(of_table)
        (default,) = of_table[is_of(of_table, **asdict(DEFAULT), rule=RULES[0])].to_dict("records")
        print(f"\nGoal, the default at most {GOAL} of random search's CPU: {told(default)}.")


if __name__ == "__main__":
    main()
