"""Replay studies against tables of learning curves: what each sampler, scheduler and range finds for how much CPU.

    python benchmarks/search_quality.py benchmarks/tables/digits.csv.gz benchmarks/tables/fashion-mnist.csv.gz

Regret is what a study loses, in points: the best mean accuracy that the table has at any epoch, less the mean over the
table's seeds of the configuration that the study would ship, at the epoch that it would ship. It is computed from
validation accuracy; the same from test accuracy is reported beside it and decides nothing. CPU is counted in full
trials: the mean CPU of all runs of the table in the default space. Each study begins with the baseline, as a real one
does, has two workers, and ends when it has used the CPU of 20 full trials. Intervals are 95 % bootstrap intervals over
the studies.
"""

import argparse
import itertools
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler

from search.curves import GridCurves, read_csv, read_grid
from search.ending import Ending
from search.provenance import command, machine, versions
from search.sampler import build_sampler, tpe
from search.scheduler import build_scheduler
from search.searcher import StudySearch
from search.settings import StudySettings
from search.simulation import memory_record, simulate
from search.space import DEFAULT_SPACE, HyperparameterValue, SearchSpace, members, tutorial_baseline
from search.trial_record import TrialRecord
from training.config import PROJECT

MEASURED = PROJECT / "benchmarks" / "search_quality.csv"
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
    *(f"asha grace {grace} reduction {reduction}" for grace, reduction in itertools.product((1, 2), (2, 3, 4))),
    "median grace 1",
    "hyperband grace 1 reduction 3",
)
DEFAULT_SCHEDULER = "asha grace 1 reduction 3"
RANGES = {
    "1e-4..1e-1": (1e-4, 1e-1, 1.0),
    "1e-4..1": (1e-4, 1.0, 1.0),
    "sgd 1e-2..1, others 1e-4..1e-2": (1e-4, 1e-2, 100.0),
}
"""Ends of the learning rate, and how many times higher both are for sgd."""
DEFAULT_RANGE = next(iter(RANGES))
RULES = ("best epoch", "last epoch", "mean of last 3")
"""How the winner is chosen: by which value of a trial. With the first one its best epoch is shipped, else its last."""


@dataclass(frozen=True)
class Policy:
    """How a study searches."""

    sampler: str
    scheduler: str
    learning_rates: str = DEFAULT_RANGE
    baseline: bool = True

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
        options = {"grace_epochs": values.get("grace", 1), "reduction": values.get("reduction", 3)}
        return StudySettings(scheduler=name, num_samples=10**6, epochs=epochs, seed=seed, **options)  # type: ignore[arg-type]


def policies(gp: bool) -> list[Policy]:
    """All that are compared, but for the Gaussian process, or that alone: it takes half a second for a proposal."""
    if gp:
        schedulers = ("none", DEFAULT_SCHEDULER, "median grace 1", "hyperband grace 1 reduction 3")
        return [Policy("gp", scheduler) for scheduler in schedulers]
    ranges = itertools.product(("random", "tpe 5", "qmc"), ("none", DEFAULT_SCHEDULER), [*RANGES][1:])
    return [
        *itertools.starmap(Policy, itertools.product(SAMPLERS, SCHEDULERS)),
        *itertools.starmap(Policy, ranges),
        Policy("random", "none", baseline=False),
        Policy("tpe 5", DEFAULT_SCHEDULER, baseline=False),
    ]


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
        sizes, (low, high, _) = members(DEFAULT_SPACE["batch_size"]) or (), RANGES[DEFAULT_RANGE]
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
            value = {"best epoch": max(curve), "last epoch": curve[-1], "mean of last 3": float(np.mean(curve[-3:]))}
            epoch = curve.index(max(curve)) + 1 if self._rule == "best epoch" else len(curve)
            self._trials[trial.number] = value[self._rule], (hyperparameters, epoch)
        before = self.shipped
        if self._trials:
            _, self.shipped = max(self._trials.values(), key=lambda of_trial: of_trial[0])
        return before != self.shipped


def study(table: Table, policy: Policy, number: int) -> list[dict[str, Any]]:
    """Replay one study; for each rule, when the regret first reached the goal, and what it was at each budget."""
    low, high, sgd_factor = RANGES[policy.learning_rates]
    space: SearchSpace = DEFAULT_SPACE | {"learning_rate": FloatDistribution(low, high, log=True)}

    baseline = tutorial_baseline(space)

    def trained(trial: TrialRecord) -> dict[str, HyperparameterValue]:
        factor = sgd_factor if trial.hyperparameters["optimizer"] == "sgd" else 1.0
        scaled = trial.hyperparameters | {"learning_rate": float(trial.hyperparameters["learning_rate"]) * factor}
        return baseline if trial.is_baseline else scaled

    seed = SEED_STEP * number
    settings = policy.settings(seed, table.curves.epochs)
    record = memory_record(settings)
    if policy.baseline:
        nearest = max(low, float(baseline["learning_rate"]) / sgd_factor)  # where the sampler takes it to be
        record.enqueue_baseline(baseline | {"learning_rate": nearest})
    sampler, many = policy.build_sampler(seed), settings.num_samples
    search = StudySearch(record, space, sampler, seed=seed, num_samples=many, ending=Ending())
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


def work(task: tuple[int, Policy, range]) -> list[dict[str, Any]]:
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


KEYS = ["table", "sampler", "scheduler", "learning_rates", "baseline", "rule"]


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each table, policy and rule: medians, means and their intervals over the studies."""
    summary = []
    for key, of_policy in rows.groupby(KEYS, sort=False):
        table, *_, rule = key
        ended = of_policy[of_policy["budget"] == BUDGETS[-1]].sort_values("study")
        reached = ended["reached"].to_numpy()
        is_random = (rows["table"] == table) & (rows["sampler"] == "random") & (rows["scheduler"] == "none")
        is_random &= (rows["learning_rates"] == DEFAULT_RANGE) & (rows["rule"] == rule)
        is_random &= (rows["baseline"] == key[4]) & (rows["budget"] == BUDGETS[-1])
        random = rows[is_random].sort_values("study")["reached"].to_numpy()
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | {"studies": len(ended)}
        row |= _interval("cpu_to_goal", reached, np.median)
        row |= {"reached": float(np.isfinite(reached).mean())}
        row |= _ratio("of_random", reached, random)
        for budget, at_budget in of_policy.groupby("budget"):
            row |= _interval(f"regret_{budget}", at_budget["regret"].to_numpy(), np.mean)
            row[f"trials_{budget}"] = float(at_budget["trials"].mean())
        row["test_regret"] = float(ended["test_regret"].mean())
        row["replay_seconds"] = float(ended["replay_seconds"].mean())
        summary.append(row)
    return pd.DataFrame(summary)


def _resampled(studies: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(studies, size=(2000, studies))


def _interval(name: str, values: NDArray[np.float64], statistic: Any) -> dict[str, float]:
    again = statistic(values[_resampled(len(values))], axis=1)
    low, high = np.percentile(again, [2.5, 97.5], method="nearest")
    return {name: float(statistic(values)), f"{name}_low": float(low), f"{name}_high": float(high)}


def _ratio(name: str, values: NDArray[np.float64], reference: NDArray[np.float64]) -> dict[str, float]:
    """The ratio of two medians; the studies of the two are independent."""
    ours = np.median(values[_resampled(len(values))], axis=1)
    theirs = np.median(reference[_resampled(len(reference))[:, ::-1]], axis=1)
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile(ours / theirs, [2.5, 97.5], method="nearest")
        ratio = np.median(values) / np.median(reference)
    return {name: float(ratio), f"{name}_low": float(low), f"{name}_high": float(high)}


def grid(summary: pd.DataFrame, rows: str, columns: str, value: str, digits: int = 2) -> str:
    """A table in markdown of one value and its interval, over two features of the policies."""

    def cell(row: "pd.Series[Any]") -> str:
        return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*(row[value + end] for end in ("", "_low", "_high")), d=digits)

    cells = {(row[rows], row[columns]): cell(row) for _, row in summary.iterrows()}
    names = list(dict.fromkeys(summary[columns]))
    lines = [f"| {rows.replace('_', ' ')} | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(cells.get((name, column), "") for column in names) + " |"
        for name in dict.fromkeys(summary[rows])
    ]
    return "\n".join(lines)


def show(summary: pd.DataFrame, table: Table) -> None:
    """Print what was found on one table, in markdown."""
    ours = summary[summary["table"] == table.name]
    main = ours[(ours["rule"] == RULES[0]) & ours["baseline"]]
    default = main[main["learning_rates"] == DEFAULT_RANGE]
    print(f"\n### {table.name}\n")
    print(f"{table.curves.seeds} seeds; a full trial takes {table.full_trial:.2f} CPU seconds; ", end="")
    print(f"best mean validation accuracy {table.curves.best_truth('val_accuracy'):.4f}.")
    print(f"\nCPU until the regret is {GOAL_REGRET:g} point or less, in full trials (median):\n")
    print(grid(default, "scheduler", "sampler", "cpu_to_goal"))
    print("\nThe same as a part of what random search without a scheduler needs:\n")
    print(grid(default, "scheduler", "sampler", "of_random"))
    for budget in BUDGETS[1:]:
        print(f"\nRegret, in points, at the CPU of {budget} full trials (mean):\n")
        print(grid(default, "scheduler", "sampler", f"regret_{budget}"))
    ranges = main[
        main["scheduler"].isin(["none", DEFAULT_SCHEDULER]) & main["sampler"].isin(["random", "tpe 5", "qmc"])
    ]
    ranges = ranges.assign(policy=ranges["sampler"] + ", " + ranges["scheduler"])
    print("\nLearning rates; CPU to the goal as a part of random search's in the default range, then the regret:\n")
    print(grid(ranges, "policy", "learning_rates", "of_random") + "\n")
    print(grid(ranges, "policy", "learning_rates", f"regret_{BUDGETS[1]}"))
    rules = ours[ours["baseline"] & (ours["learning_rates"] == DEFAULT_RANGE)]
    rules = rules[rules["scheduler"].isin(["none", DEFAULT_SCHEDULER])]
    rules = rules.assign(policy=rules["sampler"] + ", " + rules["scheduler"])
    print(f"\nHow the winner is chosen; regret at the CPU of {BUDGETS[-1]} full trials:\n")
    print(grid(rules, "policy", "rule", f"regret_{BUDGETS[-1]}"))
    alone = ours[(ours["rule"] == RULES[0]) & ~ours["baseline"]]
    print("\nWithout the baseline:\n")
    print(grid(alone, "sampler", "scheduler", "cpu_to_goal") + "\n")
    print(grid(alone, "sampler", "scheduler", "of_random"))
    (ratio,) = default[(default["sampler"] == "tpe 5") & (default["scheduler"] == DEFAULT_SCHEDULER)].to_dict("records")
    told = "reached" if ratio["of_random_high"] <= 0.25 else "not reached" if ratio["of_random"] > 0.25 else "unclear"
    print(f"\nGoal, the default at most 0.25 of random search's CPU: {ratio['of_random']:.2f} ", end="")
    print(f"[{ratio['of_random_low']:.2f}, {ratio['of_random_high']:.2f}], {told}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--studies", type=int, default=200, help="for each policy")
    parser.add_argument("--gp-studies", type=int, default=20, help="for each with the Gaussian process, which is slow")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    tables = [Table.read(file) for file in options.tables]
    chunk = 10
    tasks = [
        (number, policy, range(first, min(first + chunk, studies)))
        for number in range(len(tables))
        for gp, studies in ((False, options.studies), (True, options.gp_studies))
        for policy in policies(gp)
        for first in range(0, studies, chunk)
    ]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("fork").Pool(options.processes, share, (tables,)) as pool:
        for done, some in enumerate(pool.imap(work, tasks), start=1):
            rows += some
            print(f"{done} of {len(tasks)} tasks", end="\r", flush=True)
    summary = summarize(pd.DataFrame(rows))
    summary.to_csv(MEASURED, index=False, float_format="%.4g")
    print(f"\ncommand   {command()}\nmachine   {machine()['processor']}, {options.processes} processes")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    for table in tables:
        print(f"{table.name}  sha256 {table.curves.facts['sha256']}")
    for table in tables:
        show(summary, table)


if __name__ == "__main__":
    main()
