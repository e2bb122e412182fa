"""Measure how often the recommendations, comparisons and intervals of studies are wrong.

    python benchmarks/advice.py --studies 100

Studies of 10, 20, 50 and 200 trials are replayed on the recorded tables of learning curves and on planted functions
with noise, with the sampler and the scheduler of real studies. The truth is the mean over the seeds of a table, or the
planted function. These are wrong:

- "can stay fixed", if one of the named values costs more than the sentence says;
- "matters", if no value of the range costs as much as the sentence says;
- "widen", if the best of the wider range is better than that of the old one by less than 0.2 points;
- more epochs, if twice as many improve the trials that the sentence is about by less than 0.2 points on average;
- "the last N trials found nothing better", if as many trials again gain a point or more;
- a comparison that claims a difference between studies that differ only in their seed;
- an interval without the true value: of the difference between two ways to search, of the confirmed winner's accuracy.

Comparisons are of neighbouring studies. Each study has a number, from which all its random numbers come, so a
measurement in parts (`--first`) counts the same studies. With OMP_NUM_THREADS=1, replaying and judging a study of 50
trials takes about a third of a second, one of 200 trials one to two seconds.
"""

import argparse
import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import numpy as np
import optuna
from advice_worlds import EPOCHS, WORLDS, Planted, Table
from optuna.distributions import CategoricalDistribution, FloatDistribution
from scipy.stats import binomtest

from search.algorithms.samplers import build_sampler
from search.algorithms.schedulers import build_scheduler
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.analysis.equal_budget import equal_budget
from search.analysis.fixing import Fixing, compared_values, judge, worthwhile
from search.analysis.groups import Group
from search.analysis.recommendations import STILL_IMPROVING, Recommendation, best_full_trials, recommend
from search.analysis.significance import Significance, test_groups
from search.record.configuration import measure, measure_again, rank
from search.record.provenance import command, machine, versions
from search.record.ranking import best_configurations, best_trial
from search.record.study_record import StudyRecord
from search.settings import SamplerName, StudySettings
from search.simulation.simulator import memory_record, simulate
from search.space.distributions import OrderedChoice, values_of
from search.space.search_space import ConditionalRange, SearchSpace, describe, parse
from search.space.toml_file import default_space

TRIALS = (10, 20, 50, 200)
PARTS = ["values", "ranges", "plateau", "epochs", "speeds", "differences", "samplers", "confirmations"]
SEED_STEP = 1000
"""Between the seeds of two studies, so that they share no trial's seed."""
DEFAULT = default_space("mlp")
MOMENTUM = ConditionalRange(OrderedChoice((0.0, 0.5, 0.8, 0.9, 0.95)), {"optimizer": ("sgd",)})
RATES = (-4.0, 0.0)
"""The learning rates of the tables, in decades."""
TABLE_RATES = tuple(rate for world in WORLDS.values() if isinstance(world, Table) for rate in world.rates)
KEPT = (0.05, 0.8)
"""In one epoch, planted curves keep at least and at most this part of what they have to rise."""


@dataclass(frozen=True)
class Way:
    """How a study searches, and where."""

    world: str
    trials: int
    scheduler: Any = "none"
    sampler: Any = "tpe"
    epochs: int = EPOCHS
    rates: tuple[float, float] = (1e-4, 1e-1)
    rise: float | None = None
    """What planted curves keep in one epoch of what they have to rise; None for that of the world."""

    @property
    def curves(self) -> Table | Planted:
        """What the trials of the study learn."""
        world = WORLDS[self.world]
        return world.with_rise(self.rise) if self.rise is not None and isinstance(world, Planted) else world

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        low, high = self.rates
        momentum = {"momentum": [MOMENTUM]} if "momentum" in self.world else {}
        return SearchSpace({**DEFAULT, "learning_rate": FloatDistribution(low, high, log=True), **momentum})


@cache
def study(way: Way, number: int) -> StudyRecord:
    """Replay a study."""
    world, seed = way.curves, SEED_STEP * number
    settings = StudySettings(
        scheduler=way.scheduler, sampler=way.sampler, num_samples=way.trials, epochs=way.epochs, seed=seed
    )
    record = memory_record(settings, way.space)
    record.metadata = replace(record.metadata, dataset=replace(record.metadata.images, validation_images=world.images))
    record.enqueue_starting_points(way.trials)
    sampler = build_sampler(way.sampler, seed, 0, way.epochs, record.epoch_seconds)
    search = SearchAlgorithm(record, sampler, seed=seed, num_ended=way.trials, stopper=StudyStopper())
    curves = lambda trial: world.curve(trial.hyperparameters, trial.seed)[: way.epochs]  # noqa: E731
    for _ in simulate(record, search.suggest, build_scheduler(settings, record), curves, 2):
        pass
    return record


@cache
def best_truth(world: str, described: str, epochs: int) -> float:
    """The best true accuracy of a space that is described as text."""
    grids = tomllib.loads(described)
    points = (dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values()))
    curves = [WORLDS[world].mean_curve(point) for point in points if WORLDS[world].can_train(point)]
    return max(float(curve[:epochs].max()) for curve in curves)


def best_of(way: Way, space: SearchSpace, **fixed: Any) -> float:
    """The best true accuracy of a space at the epochs of a study, where some hyperparameters are fixed."""
    grids = {
        name: [fixed[name]] if name in fixed else list(values_of(space[name]) or _rates(space[name])) for name in space
    }
    return best_truth(way.world, "\n".join(f"{name} = {values!r}" for name, values in grids.items()), way.epochs)


def _rates(distribution: Any) -> list[float]:
    """Both bounds and the rates of one grid between them; a range has all inner rates of a narrower one."""
    low, high = distribution.low, distribution.high
    grid = {float(f"{rate:.3g}") for rate in np.geomspace(1e-6, 10, 43)} | set(TABLE_RATES)
    return sorted({low, high} | {rate for rate in grid if low < rate < high})


def fixing_is_wrong(way: Way, fixing: Fixing) -> bool:
    """Whether the truth contradicts what is said about fixing a hyperparameter."""
    values = compared_values(way.space[fixing.name])
    if fixing.verdict == "can stay fixed" and not isinstance(way.space[fixing.name], CategoricalDistribution):
        values = [value for value in values if fixing.values[0] <= value <= fixing.values[-1]]  # type: ignore[operator]
    elif fixing.verdict == "can stay fixed":
        values = list(fixing.values)
    costs = [best_of(way, way.space) - best_of(way, way.space, **{fixing.name: value}) for value in values]
    return max(costs) > fixing.cost if fixing.verdict == "can stay fixed" else max(costs) < fixing.cost


def is_wrong(way: Way, number: int, advice: Recommendation) -> bool:
    """Whether the truth contradicts a recommendation."""
    record = study(way, number)
    if advice.kind == "widen":
        wider = parse(describe(way.space) | tomllib.loads(advice.snippet))
        return best_of(way, wider) - best_of(way, way.space) < STILL_IMPROVING
    if advice.kind == "epochs":
        curves = [way.curves.mean_curve(trial.hyperparameters) for trial in best_full_trials(record)]
        return float(np.mean([c[: 2 * way.epochs].max() - c[: way.epochs].max() for c in curves])) < STILL_IMPROVING
    longer, best = study(replace(way, trials=2 * way.trials), number), best_trial(record.trials)
    later = best_trial(longer.trials)
    assert best, "a trial is valid"
    assert later, "a trial is valid"
    compared = equal_budget(record)
    return compared is not None and later.best_value - best.best_value >= worthwhile(record, compared)


Count = Counter[str]
"""How many studies, how many times something was said, and how many times it was wrong."""


def advice(ways: Iterable[Way], numbers: range, kinds: list[str]) -> dict[str, Count]:
    """Count what is said about studies, of which each has its way, and what of it is wrong, by kind."""
    counts = {kind: Count() for kind in kinds}
    for number, way in zip(numbers, ways, strict=True):
        record = study(way, number)
        compared = equal_budget(record)
        judgement = judge(record, record.space, compared)
        said: list[tuple[str, bool]] = [
            (one.verdict, fixing_is_wrong(way, one)) for one in judgement.fixings if one.verdict in kinds
        ]
        said += [
            (one.kind, is_wrong(way, number, one))
            for one in recommend(record, record.space, judgement)
            if one.kind in kinds
        ]
        for kind in kinds:
            counts[kind].update(studies=1)
        for kind, wrong in said:
            counts[kind].update(said=1, wrong=int(wrong))
    return counts


def differences(way: Way, numbers: range, repeats: int) -> Count:
    """Compare studies that differ only in their seed."""
    groups, count = _groups(way, numbers, repeats), Count(studies=len(numbers))
    for one, other in itertools.pairwise(groups):
        for significance in test_groups(one, other):
            if isinstance(significance, Significance):
                count.update(said=1, wrong=int(significance.is_clear))
    return count


def _groups(way: Way, numbers: range, repeats: int) -> list[Group]:
    records = [study(way, number) for number in numbers]
    firsts = range(0, len(records) - repeats + 1, repeats)
    return [Group("group", tuple(records[first : first + repeats])) for first in firsts]


def intervals_of_differences(way: Way, numbers: range, repeats: int) -> Count:
    """Look whether intervals hold the mean difference between two samplers, which all studies together give."""
    ways = [way, replace(way, sampler="random")]
    groups = [_groups(one, numbers, repeats) for one in ways]
    bests = [[trial.best_value for g in side for r in g.records if (trial := best_trial(r.trials))] for side in groups]
    truth = 100 * (np.mean(bests[0]) - np.mean(bests[1]))
    count = Count(studies=len(numbers))
    for one, other in zip(*groups, strict=True):
        significance = test_groups(one, other)[0]
        if isinstance(significance, Significance):
            count.update(said=1, wrong=int(not significance.low <= truth <= significance.high))
    return count


def confirmed_intervals(way: Way, numbers: range) -> Count:
    """Look whether the interval of a confirmed winner holds its true mean; only for a planted function."""
    world, count = way.curves, Count(studies=len(numbers))
    for number in numbers:
        record, configurations = study(way, number), []
        measured: dict[str, Any] = {"objective": record.objective, "task": record.metadata.task}
        for trial in best_configurations(record.trials, 3):
            curves = {s: world.curve(trial.hyperparameters, 10**9 + 100 * number + s) for s in range(5)}
            configurations.append(measure(trial.number, trial.hyperparameters, trial.best_value, curves, **measured))
        winner, *_ = rank(configurations)
        fresh = {s: world.curve(winner.hyperparameters, 2 * 10**9 + 100 * number + s) for s in range(5)}
        estimate = measure_again(winner, fresh, **measured).metric
        truth = world.mean_curve(winner.hyperparameters)[winner.epochs - 1]
        count.update(said=1, wrong=int(not estimate.low <= truth <= estimate.high))
    return count


def show(cells: tuple[str, ...], count: Count) -> None:
    """Print a row of the table."""
    said, hits = count["said"], count["wrong"]
    if cells[0].startswith("interval"):
        hits = said - hits
    shown = "-"
    if said:
        interval = binomtest(hits, said).proportion_ci()
        shown = f"{100 * hits / said:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    row = *cells, str(count["studies"]), f"{hits} of {said}", shown
    print(f"| {' | '.join(row)} |", flush=True)


def with_own_range(way: Way, numbers: range) -> list[Way]:
    """Ways with ranges of the learning rate at random: the best one lies outside of some, or close to a bound."""
    rates = _rates(way.space["learning_rate"])
    best = math.log10(max(rates, key=lambda rate: best_of(way, way.space, learning_rate=rate)))
    ways = []
    for number in numbers:
        random = np.random.default_rng(number)
        side, away, width = random.choice((-1, 1)), random.uniform(-0.5, 1), random.uniform(1, 3)
        low, high = np.clip(sorted((best + side * away, best + side * (away + width))), *RATES)
        if low == high:  # on this side of the best rate, the curves have no other
            low, high = np.clip(sorted((best - side * away, best - side * (away + width))), *RATES)
        ways.append(replace(way, rates=(float(f"{10**low:.3g}"), float(f"{10**high:.3g}"))))
    return ways


def with_own_speed(way: Way, numbers: range) -> list[Way]:
    """Ways with planted curves at random speeds; the slowest have hardly begun when the study ends."""
    speeds = [np.random.default_rng(number).uniform(*np.log(KEPT)) for number in numbers]
    return [replace(way, rise=float(np.exp(speed))) for speed in speeds]


def measurements(numbers: range, ways: Iterable[Way], parts: Container[str]) -> Iterator[tuple[str, Way, Count]]:
    """All rows of the table; where a scheduler stops trials, nothing is said of values and ranges."""
    for way in ways:
        judged, is_longer_known = way.scheduler == "none" and way.trials >= 20, 2 * way.epochs <= way.curves.epochs
        same = [way] * len(numbers)
        if "values" in parts and judged:
            for kind, count in advice(same, numbers, ["can stay fixed", "matters", "widen"]).items():
                yield kind, way, count
        if "ranges" in parts and judged:
            for kind, count in advice(with_own_range(way, numbers), numbers, ["can stay fixed", "widen"]).items():
                yield f"{kind}, ranges at random", way, count
        if "plateau" in parts:
            yield "plateau", way, advice(same, numbers, ["plateau"])["plateau"]
        if "epochs" in parts and is_longer_known:
            yield "epochs", way, advice(same, numbers, ["epochs"])["epochs"]
        if "speeds" in parts and is_longer_known and isinstance(way.curves, Planted):
            yield "epochs, speeds at random", way, advice(with_own_speed(way, numbers), numbers, ["epochs"])["epochs"]
        for repeats in (1, 3):
            each = f"{repeats} {'study' if repeats == 1 else 'studies'} each"
            if "differences" in parts:
                yield f"difference, {each}", way, differences(way, numbers, repeats)
            if "samplers" in parts:
                yield f"interval of a difference, {each}", way, intervals_of_differences(way, numbers, repeats)
        if "confirmations" in parts and isinstance(way.curves, Planted):
            yield "interval of the confirmed winner", way, confirmed_intervals(way, numbers)
        study.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first study, to measure in parts")
    parser.add_argument("--trials", nargs="+", type=int, default=list(TRIALS))
    parser.add_argument("--epochs", nargs="+", type=int, default=[EPOCHS])
    parser.add_argument("--schedulers", nargs="+", default=["none", "asha"], choices=["none", "asha"])
    parser.add_argument("--sampler", default="tpe", choices=get_args(SamplerName))
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"command   {command()}\nmachine   {machine().processor}, one process")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()) + "\n")
    print("| what is said | curves | scheduler | trials | epochs | studies | wrong; intervals: right | % (interval) |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    sums: dict[tuple[str, int], Count] = {}
    numbers = range(options.first, options.first + options.studies)
    for world, trials, epochs, scheduler in itertools.product(
        options.worlds, options.trials, options.epochs, options.schedulers
    ):
        ways = [Way(world, trials, scheduler, options.sampler, epochs)]
        for name, way, count in measurements(numbers, ways, options.parts):
            show((name, way.world, way.scheduler, str(way.trials), str(way.epochs)), count)
            kind = name.partition(",")[0]
            for key in ((kind, way.trials), (kind, 0)):
                sums.setdefault(key, Count()).update(count)
    print()
    for (kind, trials), count in sorted(sums.items()):
        show((kind, "all", "all", str(trials or "all"), "all"), count)


if __name__ == "__main__":
    main()
