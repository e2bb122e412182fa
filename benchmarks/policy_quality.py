"""Compare ways to search on the tasks of `curve_tasks.py`: what each loses for how much CPU.

    python benchmarks/policy_quality.py --studies 100
    python benchmarks/policy_quality.py --studies 200 --policies today promote --samples 20

Studies are replayed on the recorded learning curves of the tasks that choose (`tables/halves.toml`), with two workers,
until they have used the CPU of 20 full trainings; with `--samples`, to their end. Regret is what the training that a
study would ship loses against the best one of the table, by test examples in the mean over the recorded seeds: points
of accuracy, or hundredths of the best loss. A study chooses by validation examples. A full training costs what one
costs on average, so budgets mean the same in each task. Intervals are 95 % bootstrap intervals over the studies.

`--judge` compares the few policies that `tables/halves.toml` names on the tasks that judge, and adds each run with its
date to `tables/judged.csv`. Nothing is chosen by it.
"""

import argparse
import itertools
import math
import multiprocessing
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from policy_replay import Policy, Study
from task_tables import TaskTable

from search.record.provenance import command, machine, versions

HALVES = tomllib.loads((Path(__file__).parent / "tables" / "halves.toml").read_text())
JUDGED = Path(__file__).parent / "tables" / "judged.csv"
"""The means of all runs on the tasks that judge."""
BUDGETS = (2, 5, 10, 20)
"""Full trainings of CPU after which the regret is looked at; the last one ends a study."""
GOALS = (1.0, 0.5, 0.2)
"""Regrets; the CPU after which a study gets there and stays there is looked at."""
RESAMPLES = 2000
TODAY = Policy()
PROMOTE = Policy(scheduler="promote", baseline_in_full=False)
POLICIES = {
    "random": Policy("random", "none", starts=False),
    "random, ASHA that stops": Policy("random", "stop", starts=False),
    "random, ASHA that promotes": Policy("random", "promote", starts=False),
    "random, one epoch each, then the best": Policy("random", "first", starts=False),
    "Optuna, median": Policy("optuna", "median", starts=False),
    "TPE, one epoch each, then the best": Policy("tpe", "first", baseline_in_full=False),
    "today": TODAY,
    "today, baseline may stop": replace(TODAY, baseline_in_full=False),
    "today, baseline may stop, reduction 4": replace(TODAY, baseline_in_full=False, reduction=4),
    "stop, 1/2": replace(TODAY, baseline_in_full=False, grace=1 / 2),
    "stop, 1/4": replace(TODAY, baseline_in_full=False, grace=1 / 4),
    "stop, 1/8": replace(TODAY, baseline_in_full=False, grace=1 / 8),
    "promote": PROMOTE,
    "promote, baseline in full": replace(PROMOTE, baseline_in_full=True),
    "promote, reduction 2": replace(PROMOTE, reduction=2),
    "promote, reduction 4": replace(PROMOTE, reduction=4),
    "promote, 1/2": replace(PROMOTE, grace=1 / 2),
    "promote, 1/4": replace(PROMOTE, grace=1 / 4),
    "promote, 1/8": replace(PROMOTE, grace=1 / 8),
    "promote, 1/8, reduction 4": replace(PROMOTE, grace=1 / 8, reduction=4),
    "gp": replace(TODAY, sampler="gp"),
    "gp, promote": replace(PROMOTE, sampler="gp"),
    "gp, promote, reduction 2": replace(PROMOTE, sampler="gp", reduction=2),
    "gp, promote, reduction 2, baseline in full": replace(PROMOTE, sampler="gp", reduction=2, baseline_in_full=True),
    "gp, promote, 1/2": replace(PROMOTE, sampler="gp", grace=1 / 2),
    "gp, promote, 1/2, reduction 2": replace(PROMOTE, sampler="gp", grace=1 / 2, reduction=2),
}
Job = tuple[str, str, int]
"""The names of a task and of a policy, and the number of a study."""


@cache
def table_of(task: str) -> TaskTable:
    """The table of a task."""
    return TaskTable(task)


def replay_samples(samples: int, job: Job) -> list[dict[str, Any]]:
    """Replay a study with so many trials to its end; returns its regret and its CPU in full trainings."""
    task, name, number = job
    table = table_of(task)
    study = Study(table, replace(POLICIES[name], samples=samples), number)
    *_, last = study.run(math.inf)
    regret = table.regret(last.configuration, last.epoch)
    key: dict[str, Any] = {"task": task, "policy": name, "study": number, "samples": samples}
    return [{**key, "regret": regret, "used": study.used / table.full_seconds}]


def replay_budget(job: Job) -> list[dict[str, Any]]:
    """Replay a study; returns its regret at each budget, and after how much CPU it was at each goal for good."""
    task, name, number = job
    table, policy = table_of(task), POLICIES[name]
    depends_on_budget = policy.scheduler == "first"
    rows: list[dict[str, Any]] = []
    for budget in BUDGETS if depends_on_budget else (max(BUDGETS),):
        steps = [(0.0, 100.0, 0)]
        for shipped in Study(table, policy, number).run(budget * table.full_seconds):
            regret = table.regret(shipped.configuration, shipped.epoch)
            steps.append((shipped.seconds / table.full_seconds, regret, shipped.trials))
        key: dict[str, Any] = {"task": task, "policy": name, "study": number}
        for looked_at in (budget,) if depends_on_budget else BUDGETS:
            _, regret, trials = next(step for step in reversed(steps) if step[0] <= looked_at)
            rows.append({**key, "budget": looked_at, "regret": regret, "trials": trials})
        if budget == max(BUDGETS):
            for goal in GOALS:
                above = [index for index, step in enumerate(steps) if step[1] > goal]
                reached = steps[max(above) + 1][0] if max(above) + 1 < len(steps) else np.inf
                rows.append({**key, "goal": goal, "reached": reached})
    return rows


def interval(values: "np.typing.NDArray[np.float64]") -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean."""
    resampled = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)


def show_samples(studies: pd.DataFrame, policies: Iterable[str], tasks: Iterable[str]) -> None:
    """Print a table of the regret of whole studies, and one of their CPU."""
    _show_table(studies, "regret", "Regret of whole studies", policies, tasks)
    _show_table(studies, "used", "CPU of whole studies, in trainings", policies, tasks)


def show_budgets(studies: pd.DataFrame, policies: Iterable[str], tasks: Iterable[str]) -> None:
    """Print a table of regrets for each budget, and one of the CPU to each goal."""
    for budget in BUDGETS:
        _show_table(
            studies[studies["budget"] == budget], "regret", f"Regret at the CPU of {budget} trainings", policies, tasks
        )
    for goal in GOALS:
        _show_table(studies[studies["goal"] == goal], "reached", f"CPU to a regret of {goal}, median", policies, tasks)


def log(studies: pd.DataFrame) -> None:
    """Add the means of a run on the tasks that judge to the table of all such runs."""
    columns = [name for name in ("samples", "budget") if name in studies]
    rows = studies.dropna(subset=["regret"]).groupby(["policy", "task", *columns], sort=False)["regret"]
    means = rows.agg(studies="count", regret="mean").reset_index().round(4)
    today = date.today().isoformat()
    means.insert(0, "date", today)
    means.to_csv(JUDGED, mode="a", header=not JUDGED.exists(), index=False)


def _show_table(rows: pd.DataFrame, column: str, title: str, policies: Iterable[str], tasks: Iterable[str]) -> None:
    print(f"\n{title}:\n\n| policy | {' | '.join(tasks)} | mean |\n| --- {'| ---: ' * (len([*tasks]) + 1)}|")
    for policy in policies:
        cells, means = [], []
        for task in tasks:
            values = rows[(rows["policy"] == policy) & (rows["task"] == task)][column].to_numpy(dtype=float)
            if column != "reached":
                low, high = interval(values)
                cells.append(f"{values.mean():.2f} ({low:.2f} to {high:.2f})")
                means.append(values.mean())
            else:
                cells.append(f"{np.median(values):.1f}")
                means.append(np.median(values))
        print(f"| {policy} | {' | '.join(cells)} | {np.mean(means):.2f} |", flush=True)


def _prepare() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first study")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES))
    parser.add_argument("--tasks", nargs="+", choices=HALVES["choose"])
    parser.add_argument("--judge", action="store_true", help="compare the named policies on the tasks that judge")
    parser.add_argument("--samples", type=int, help="replay studies of so many trials to their end")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="write the rows of all studies into this file")
    options = parser.parse_args()
    if options.judge and (options.policies or options.tasks):
        parser.error("--judge compares the policies that tables/halves.toml names, on all tasks that judge")
    options.tasks = HALVES["judge"] if options.judge else options.tasks or HALVES["choose"]
    options.policies = HALVES["policies"] if options.judge else options.policies or list(POLICIES)
    numbers = range(options.first, options.first + options.studies)
    jobs = list(itertools.product(options.tasks, options.policies, numbers))
    with multiprocessing.get_context("fork").Pool(options.workers, _prepare) as workers:
        replay = partial(replay_samples, options.samples) if options.samples else replay_budget
        studies = pd.DataFrame([row for rows in workers.imap(replay, jobs, chunksize=5) for row in rows])
    if options.csv:
        studies.to_csv(options.csv, index=False)
    if options.judge:
        log(studies)
    print(f"command   {command()}\nmachine   {machine().processor}, {options.workers} processes")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    seeds = ", ".join(f"{task} {table_of(task).seeds}" for task in options.tasks)
    print(f"studies   {options.studies} of each policy and task; recorded seeds: {seeds}")
    show = show_samples if options.samples else show_budgets
    show(studies, options.policies, options.tasks)


if __name__ == "__main__":
    main()
