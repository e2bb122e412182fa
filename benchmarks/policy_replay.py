"""Ways to search, replayed on the recorded learning curves of a task with two workers."""

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from task_tables import Measurement, TaskTable

from search.algorithms.curve_sampler import CurveSampler
from search.algorithms.samplers import StudySampler, tpe
from search.algorithms.search_algorithm import suggest_value
from search.space.distributions import optuna_distribution, snap
from search.space.search_space import Point

WORKERS = 2


@dataclass
class Trial:
    """A configuration that is being trained, or waits, or has ended."""

    number: int
    configuration: int
    curve: list[Measurement]
    reports: int = 0
    """Number of measurements of the curve that the search has seen."""
    rung: int = -1
    """The highest rung that it has reached."""
    promoted: int = -1
    """The highest rung from which it was promoted."""

    @property
    def seen(self) -> list[Measurement]:
        """The measurements that the search has seen."""
        return self.curve[: self.reports]

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to train."""
        return self.reports > 0 and (self.reports == len(self.curve) or math.isinf(self.seen[-1].cost))


@dataclass(frozen=True)
class Policy:
    """How a study searches."""

    sampler: Literal["random", "tpe", "gp", "optuna"] = "tpe"
    """`tpe` and `gp` are those of this project, `optuna` the default of Optuna."""
    scheduler: Literal["none", "stop", "promote", "median", "first"] = "stop"
    """`stop`: successive halving that stops, as Ray has it; `promote`: as Li et al. 2020, algorithm 2, and Syne Tune
    have it; `median`: Optuna's pruner with its defaults; `first`: one epoch each with half of the budget, then the best
    in full."""
    starts: bool = True
    """Whether the defaults with each optimizer are tried first."""
    baseline_in_full: bool = True
    """Whether the first of these is never stopped."""
    grace: float = 1
    """The epochs of the first rung; below 1 a part of an epoch."""
    reduction: float = 3
    """How many trials of a rung there are for one of the next."""
    samples: int = 10**6
    """How many trials there are at most."""
    survivors: int = 5
    """With `first`, how many go on after half of the budget was used for first epochs."""

    @property
    def parts(self) -> tuple[float, ...]:
        """The parts of the first epoch that are measured."""
        return tuple(rung for rung in self.rungs(1) if rung < 1)

    def rungs(self, epochs: int) -> list[float]:
        """The epochs after which trials are compared."""
        known = [0.125, 0.25, 0.5, *range(1, epochs)]
        wanted = itertools.takewhile(lambda rung: rung < epochs, (self.grace * self.reduction**k for k in range(20)))
        return sorted({min(known, key=lambda one: abs(math.log(one / rung))) for rung in wanted})


@dataclass(frozen=True)
class Shipped:
    """What a study would ship from a time on."""

    seconds: float
    """CPU seconds that the study has used."""
    configuration: int
    epoch: int
    trials: int
    """Trials begun."""


class Study:
    """A study that is replayed."""

    def __init__(self, table: TaskTable, policy: Policy, seed: int) -> None:
        self.table, self.policy = table, policy
        self.rungs = policy.rungs(table.epochs)
        self.trials: list[Trial] = []
        self._random = random.Random(f"{table.name} {seed}")
        self._unused = np.ones(len(table.points), dtype=bool)
        self._sampler = _Sampler(table, policy, self._random.randrange(2**31))
        self._values: list[dict[int, float]] = [{} for _ in self.rungs]
        """The cost of each trial at each rung."""
        self._begins_trials = True
        self.used = 0.0
        """CPU seconds that the study has used."""

    def run(self, budget: float) -> Iterator[Shipped]:
        """Run until the budget of CPU seconds is used, or nothing is left; yield each new incumbent."""
        running: list[tuple[float, int, Trial]] = []
        order = itertools.count()
        clock = 0.0
        best = math.inf
        while True:
            while len(running) < WORKERS and (trial := self._next(running)) is not None:
                heapq.heappush(running, (clock + trial.curve[trial.reports].seconds, next(order), trial))
            if not running:
                return
            before, busy = clock, len(running)
            clock, _, trial = heapq.heappop(running)
            self.used += busy * (clock - before)
            if self.used > budget:
                return
            self._begins_trials = self.policy.scheduler != "first" or self.used < budget / 2
            trial.reports += 1
            newest = trial.seen[-1]
            if newest.cost < best and newest.epoch >= 1:
                best = newest.cost
                yield Shipped(self.used, trial.configuration, int(newest.epoch), len(self.trials))
            if self._goes_on(trial) and not trial.has_ended:
                heapq.heappush(running, (clock + trial.curve[trial.reports].seconds, next(order), trial))

    def _next(self, running: list[tuple[float, int, Trial]]) -> Trial | None:
        """A trial for a free worker: one that goes on, or a new one."""
        busy = {trial.number for *_, trial in running}
        if self.policy.scheduler == "promote" and (promoted := self._promotable(busy)):
            return promoted
        if self._begins_trials and len(self.trials) < min(self.policy.samples, len(self.table.points)):
            return self._start()
        if self.policy.scheduler in ("promote", "first"):
            return self._finish(busy)
        return None

    def _start(self) -> Trial:
        table, policy, number = self.table, self.policy, len(self.trials)
        starts = table.num_starts if policy.starts else 0
        configuration = number if number < starts else self._sampler.nearest(self.trials, self._unused)
        self._unused[configuration] = False
        curve = table.curve(configuration, self._random.randrange(table.seeds), policy.parts)
        self.trials.append(Trial(number, configuration, curve))
        return self.trials[-1]

    def _promotable(self, busy: set[int]) -> Trial | None:
        for rung in reversed(range(len(self.rungs))):
            values = self._values[rung]
            best = sorted(values, key=values.__getitem__)[: int(len(values) / self.policy.reduction)]
            for number in best:
                trial = self.trials[number]
                if trial.promoted < rung and number not in busy and not trial.has_ended:
                    trial.promoted = rung
                    return trial
        return None

    def _finish(self, busy: set[int]) -> Trial | None:
        """When all have begun, the best one goes on to its end, as in this project; with `first` so many go on."""
        if self.policy.scheduler == "first":
            best = sorted(self.trials, key=lambda trial: _cost_at(trial, 1.0))[: self.policy.survivors]
        else:
            seen = [trial for trial in self.trials if trial.seen]
            best = [min(seen, key=lambda trial: min(step.cost for step in trial.seen))] if seen else []
        waiting = [trial for trial in best if not trial.has_ended and trial.number not in busy and trial.seen]
        if not waiting:
            return None
        trial = min(waiting, key=lambda trial: (-trial.rung, trial.seen[-1].cost))
        trial.promoted = len(self.rungs)
        return trial

    def _goes_on(self, trial: Trial) -> bool:
        policy, newest = self.policy, trial.seen[-1]
        if policy.scheduler == "none" or (policy.baseline_in_full and policy.starts and trial.number == 0):
            self._note(trial)
            return True
        if policy.scheduler == "first":
            return newest.epoch != 1.0 or trial.promoted >= 0
        if policy.scheduler == "median":
            return not self._is_below_median(trial)
        rung = self._note(trial)
        if rung is None:
            return True
        if policy.scheduler == "promote":
            return trial.promoted >= rung
        others = [cost for number, cost in self._values[rung].items() if number != trial.number]
        return not others or newest.cost <= float(np.percentile(_finite(others), 100 / policy.reduction))

    def _note(self, trial: Trial) -> int | None:
        """Note the cost of a trial at a rung; returns the rung if it has just reached one."""
        newest = trial.seen[-1]
        if newest.epoch not in self.rungs:
            return None
        trial.rung = self.rungs.index(newest.epoch)
        self._values[trial.rung][trial.number] = newest.cost
        return trial.rung

    def _is_below_median(self, trial: Trial) -> bool:
        """Optuna's MedianPruner with its defaults: five start-up trials, the best so far against the median."""
        others = [other for other in self.trials if other.has_ended and other is not trial]
        if len(others) < 5:
            return False
        epoch = trial.seen[-1].epoch
        values = [step.cost for other in others for step in other.seen if step.epoch == epoch]
        best = min(step.cost for step in trial.seen)
        return bool(values) and best > float(np.median(_finite(values)))


class _Sampler:
    """Proposes the recorded configuration that is nearest to what a sampler proposes and has not been tried."""

    def __init__(self, table: TaskTable, policy: Policy, seed: int) -> None:
        self._table = table
        self._random = np.random.default_rng(seed)
        self._sampler: BaseSampler | None = None
        self._steps = 8 if policy.parts else 1
        """Steps of an epoch, by which the sampler sees when something was measured."""
        if policy.sampler == "tpe":
            self._sampler = StudySampler(table.space, tpe(seed))
        elif policy.sampler == "gp":
            self._sampler = StudySampler(table.space, CurveSampler(seed, table.epochs * self._steps, _epoch_seconds))
        elif policy.sampler == "optuna":
            self._sampler = TPESampler(seed=seed)

    def nearest(self, trials: list[Trial], unused: "np.typing.NDArray[np.bool_]") -> int:
        """The number of the configuration."""
        left = np.flatnonzero(unused)
        if self._sampler is None:
            return int(self._random.choice(left))
        place = np.array(self._table.encode(self._propose(trials)))
        return int(left[((self._table.places[left] - place) ** 2).sum(axis=1).argmin()])

    def _propose(self, trials: list[Trial]) -> Point:
        study = optuna.create_study(sampler=self._sampler)
        space = self._table.space
        for trial in trials:
            point = self._table.points[trial.configuration]
            distributions: dict[str, BaseDistribution] = space.optuna_distributions(point)
            values = {int(step.epoch * self._steps): step.cost for step in trial.seen if math.isfinite(step.cost)}
            state = TrialState.COMPLETE if trial.has_ended and values else TrialState.PRUNED
            if not trial.seen:
                continue  # it runs
            study.add_trial(
                create_trial(
                    state=state,
                    params=point,
                    distributions=distributions,
                    value=min(values.values()) if state == TrialState.COMPLETE else None,
                    intermediate_values=values,
                    user_attrs={"epoch_seconds": sum(step.seconds for step in trial.seen) / trial.seen[-1].epoch},
                )
            )
        proposal = study.ask()
        return space.build_point(
            lambda name, distribution: snap(
                distribution, suggest_value(proposal, name, optuna_distribution(distribution))
            )
        )


def _epoch_seconds(trial: FrozenTrial) -> float | None:
    return trial.user_attrs.get("epoch_seconds")


def _cost_at(trial: Trial, epoch: float) -> float:
    return next((step.cost for step in trial.seen if step.epoch == epoch), math.inf)


def _finite(costs: list[float]) -> list[float]:
    """The costs with the worst finite one for those that diverged."""
    known = [cost for cost in costs if math.isfinite(cost)]
    worst = max(known, default=0.0) + 1.0
    return [cost if math.isfinite(cost) else worst for cost in costs]
