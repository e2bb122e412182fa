"""Measure how often the recommendations, comparisons and intervals of studies are wrong.

    python benchmarks/advice.py --studies 100

Studies of 10, 20, 50 and 200 trials are replayed on the recorded tables of learning curves and on planted functions
with noise, with the sampler and the scheduler of real studies. The truth is the mean over the seeds of a table, or the
planted function. These are wrong:

- "can stay fixed", if one of the named values costs more than the sentence says;
- "matters", if no value of the range costs as much as the sentence says;
- "widen", if the best of the wider range is no better than that of the old one;
- more epochs, if twice as many improve the trials that the sentence is about by less than 0.2 points on average;
- "the last N trials found nothing better", if as many trials again gain a point or more;
- a comparison that claims a difference between studies that differ only in their seed;
- an interval without the true value: of the difference between two ways to search, of the confirmed winner's accuracy.

Comparisons are of neighbouring studies. With OMP_NUM_THREADS=1, replaying and judging a study of 50 trials takes about
a third of a second, one of 200 trials one to two seconds.
"""

import argparse
import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
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
from search.settings import StudySettings
from search.simulation.learning_curves import read_csv, read_grid
from search.simulation.simulator import memory_record, simulate
from search.space.distributions import OrderedChoice, values_of
from search.space.search_space import ConditionalRange, Point, SearchSpace, describe, parse
from search.space.toml_file import default_space
from training.metrics import EpochMetrics

TRIALS = (10, 20, 50, 200)
PARTS = ["values", "plateau", "epochs", "differences", "confirmations"]
EPOCHS = 10
SHORT = (3, 5)
"""Epochs of the studies that may be told to try more: a table knows twice as many."""
SEED_STEP = 1000
"""Between the seeds of two studies, so that they share no trial's seed."""
DEFAULT = default_space("mlp")
MOMENTUM = ConditionalRange(OrderedChoice((0.0, 0.5, 0.8, 0.9, 0.95)), {"optimizer": ("sgd",)})
RATES = ((1e-4, 1e-3), (1e-3, 1e-1), (1e-2, 1.0))
"""Ranges of the learning rate besides the default one: the best value lies inside of some and outside of others."""
IMAGES = 10_000
Numbers = NDArray[np.float64]


class Table:
    """Recorded curves; the truth is their mean over the seeds."""

    def __init__(self, name: str) -> None:
        file = Path(__file__).with_name("tables") / f"{name}.csv.gz"
        self.curves = read_grid(file, read_csv(file))
        self.images = int(self.curves.metadata["dataset"]["validation_images"])

    def curve(self, point: Point, seed: int) -> Any:
        """The curve of one training."""
        return self.curves.curve(point, seed)

    def mean_curve(self, point: Point) -> Numbers:
        """The true mean accuracy after each epoch."""
        return np.array([self.curves.truth(point, epoch, "val_accuracy") for epoch in range(1, EPOCHS + 1)])

    def can_train(self, point: Point) -> bool:
        """Whether the table has such a configuration."""
        sizes = {size for _, size in self.curves.metrics}
        rates = self.curves.learning_rates
        return point["batch_size"] in sizes and rates[0] <= float(point["learning_rate"]) <= rates[-1]


Effect = Callable[[float, float, bool, float], float]
"""Of the learning rate in decades above 0.01, the batch size in doublings of 64, whether it is SGD, its momentum."""


class Planted:
    """A function of the hyperparameters, with noise in each training and each epoch."""

    images = IMAGES

    def __init__(self, cost: Effect, rise: Effect = lambda *_: 0.5) -> None:
        """A trial is worse than 0.9 by its cost; in each epoch it keeps this part, `rise`, of what it has to rise."""
        self._cost, self._rise = cost, rise

    def mean_curve(self, point: Point) -> Numbers:
        """The true mean accuracy after each epoch."""
        decades, doublings = math.log10(float(point["learning_rate"]) / 1e-2), math.log2(point["batch_size"] / 64)  # type: ignore[operator]
        inputs = decades, doublings, point["optimizer"] == "sgd", float(point.get("momentum", 0))
        cost, rise = self._cost(*inputs), self._rise(*inputs)
        return np.array((0.9 - cost) * (1 - rise ** np.arange(1, EPOCHS + 1)))

    def curve(self, point: Point, seed: int) -> list[EpochMetrics]:
        """The curve of one training."""
        noise = np.random.default_rng(seed)
        values = self.mean_curve(point) + noise.normal(0, 0.002) + noise.normal(0, 0.001, EPOCHS)
        return [_epoch(number, float(value)) for number, value in enumerate(values, 1)]

    def can_train(self, _: Point) -> bool:
        """Whether there is a truth about a configuration."""
        return True


def _epoch(number: int, accuracy: float) -> EpochMetrics:
    others = dict.fromkeys(("train_loss", "val_loss", "test_accuracy", "test_loss", "evaluation_seconds"), 0.0)
    return EpochMetrics(epoch=number, val_accuracy=accuracy, seconds=1.0, **others)


WORLDS: dict[str, Table | Planted] = {
    "digits": Table("digits"),
    "fashion-mnist": Table("fashion-mnist"),
    "planted, only the learning rate": Planted(lambda decades, *_: 0.05 * decades**2),
    "planted, all three": Planted(
        lambda decades, doublings, sgd, *_: 0.05 * decades**2 + 0.003 * abs(doublings) + 0.02 * sgd
    ),
    "planted, nothing": Planted(lambda *_: 0.0),
    "planted, just below a point": Planted(lambda decades, _, sgd, *__: 0.05 * decades**2 + 0.008 * sgd),
    "planted, just above a point": Planted(lambda decades, _, sgd, *__: 0.05 * decades**2 + 0.012 * sgd),
    "planted, only near the best": Planted(
        lambda decades, doublings, *_: 0.05 * decades**2 + 0.005 * abs(doublings) * (abs(decades) < 0.5)
    ),
    "planted, interactions": Planted(
        lambda decades, doublings, sgd, *_: 0.05 * (decades - 0.3 * doublings + 0.5 * sgd) ** 2 + 0.01 * sgd
    ),
    "planted, the best are slow": Planted(
        lambda decades, _, sgd, *__: 0.05 * (decades + 0.5) ** 2 + 0.02 * (not sgd),
        lambda decades, _, sgd, *__: min(0.75, max(0.2, 0.45 - 0.1 * decades + 0.15 * sgd)),
    ),
    "planted, momentum without effect": Planted(lambda decades, _, sgd, *__: 0.05 * decades**2 + 0.02 * (not sgd)),
    "planted, momentum": Planted(
        lambda decades, _, sgd, momentum: 0.05 * decades**2 + (0.03 * abs(momentum - 0.8) if sgd else 0.02)
    ),
}
"""A point is 0.01, the smallest effect that is worth having."""


@dataclass(frozen=True)
class Way:
    """How a study searches, and where."""

    world: str
    trials: int
    scheduler: Any = "none"
    sampler: Any = "tpe"
    epochs: int = EPOCHS
    rates: tuple[float, float] = (1e-4, 1e-1)

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        low, high = self.rates
        momentum = {"momentum": [MOMENTUM]} if "momentum" in self.world else {}
        return SearchSpace({**DEFAULT, "learning_rate": FloatDistribution(low, high, log=True), **momentum})


@cache
def study(way: Way, number: int) -> StudyRecord:
    """Replay a study."""
    world, seed = WORLDS[way.world], SEED_STEP * number
    settings = StudySettings(
        scheduler=way.scheduler, sampler=way.sampler, num_samples=way.trials, epochs=way.epochs, seed=seed
    )
    record = memory_record(settings, way.space)
    record.metadata = replace(record.metadata, dataset=replace(record.metadata.images, validation_images=world.images))
    record.enqueue_starting_points(way.trials)
    sampler = build_sampler(way.sampler, seed, 0)
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
    steps = round(6 * math.log10(distribution.high / distribution.low)) + 1
    rates = np.geomspace(distribution.low, distribution.high, steps).clip(distribution.low, distribution.high)
    return [float(rate) for rate in rates]


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
        return best_of(way, wider) <= best_of(way, way.space)
    if advice.kind == "epochs":
        curves = [WORLDS[way.world].mean_curve(trial.hyperparameters) for trial in best_full_trials(record)]
        return float(np.mean([c[: 2 * way.epochs].max() - c[: way.epochs].max() for c in curves])) < STILL_IMPROVING
    longer, best = study(replace(way, trials=2 * way.trials), number), best_trial(record.trials)
    later = best_trial(longer.trials)
    assert best, "a trial is valid"
    assert later, "a trial is valid"
    compared = equal_budget(record)
    return compared is not None and later.best_value - best.best_value >= worthwhile(record, compared)


Count = Counter[str]
"""How many studies, how many times something was said, and how many times it was wrong."""


def advice(way: Way, studies: int, kinds: list[str]) -> dict[str, Count]:
    """Count what is said about studies, and what of it is wrong, by kind."""
    counts = {kind: Count(studies=studies) for kind in kinds}
    for number in range(studies):
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
        for kind, wrong in said:
            counts[kind].update(said=1, wrong=int(wrong))
    return counts


def differences(way: Way, studies: int, repeats: int) -> Count:
    """Compare studies that differ only in their seed."""
    groups, count = _groups(way, studies, repeats), Count(studies=studies)
    for one, other in itertools.pairwise(groups):
        for significance in test_groups(one, other):
            if isinstance(significance, Significance):
                count.update(said=1, wrong=int(significance.is_clear))
    return count


def _groups(way: Way, studies: int, repeats: int) -> list[Group]:
    records = [study(way, number) for number in range(studies)]
    return [
        Group("group", tuple(records[first : first + repeats])) for first in range(0, studies - repeats + 1, repeats)
    ]


def intervals_of_differences(way: Way, studies: int, repeats: int) -> Count:
    """Look whether intervals hold the mean difference between two samplers, which all studies together give."""
    ways = [way, replace(way, sampler="random")]
    groups = [_groups(one, studies, repeats) for one in ways]
    bests = [[trial.best_value for g in side for r in g.records if (trial := best_trial(r.trials))] for side in groups]
    truth = 100 * (np.mean(bests[0]) - np.mean(bests[1]))
    count = Count(studies=studies)
    for one, other in zip(*groups, strict=True):
        significance = test_groups(one, other)[0]
        if isinstance(significance, Significance):
            count.update(said=1, wrong=int(not significance.low <= truth <= significance.high))
    return count


def confirmed_intervals(way: Way, studies: int) -> Count:
    """Look whether the interval of a confirmed winner holds its true mean; only for a planted function."""
    world, count = WORLDS[way.world], Count(studies=studies)
    for number in range(studies):
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


def show(name: str, world: str, scheduler: str, trials: str, count: Count) -> None:
    """Print a row of the table."""
    said, hits = count["said"], count["wrong"]
    if name.startswith("interval"):
        hits = said - hits
    shown = "-"
    if said:
        interval = binomtest(hits, said).proportion_ci()
        shown = f"{100 * hits / said:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    cells = name, world, scheduler, trials, count["studies"], f"{hits} of {said}", shown
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def measurements(studies: int, ways: Iterable[Way], parts: Container[str]) -> Iterator[tuple[str, Way, Count]]:
    """All rows of the table; where a scheduler stops trials, nothing is said of values and ranges."""
    for way in ways:
        planted = isinstance(WORLDS[way.world], Planted)
        if "values" in parts and way.scheduler == "none" and way.trials >= 20:
            for kind, count in advice(way, studies, ["can stay fixed", "matters", "widen"]).items():
                yield kind, way, count
            for rates in () if planted else RATES:
                bounded = replace(way, rates=rates)
                yield f"widen, {rates[0]:g} to {rates[1]:g}", bounded, advice(bounded, studies, ["widen"])["widen"]
        if "plateau" in parts:
            yield "plateau", way, advice(way, studies, ["plateau"])["plateau"]
        for epochs in SHORT if "epochs" in parts else ():
            short = replace(way, epochs=epochs)
            yield f"epochs, more than {epochs}", short, advice(short, studies, ["epochs"])["epochs"]
        for repeats in (1, 3) if "differences" in parts else ():
            each = f"{repeats} {'study' if repeats == 1 else 'studies'} each"
            yield f"difference, {each}", way, differences(way, studies, repeats)
            yield f"interval of a difference, {each}", way, intervals_of_differences(way, studies, repeats)
        if "confirmations" in parts and planted:
            yield "interval of the confirmed winner", way, confirmed_intervals(way, studies)
        study.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--trials", nargs="+", type=int, default=list(TRIALS))
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"command   {command()}\nmachine   {machine().processor}, one process")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()) + "\n")
    print(
        "| what is said | curves | scheduler | trials | studies | wrong; intervals: right | per cent (95 % interval) |"
    )
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    sums: dict[tuple[str, int], Count] = {}
    ways = [Way(world, *way) for world, *way in itertools.product(options.worlds, options.trials, ("none", "asha"))]
    for name, way, count in measurements(options.studies, ways, options.parts):
        show(name, way.world, way.scheduler, str(way.trials), count)
        kind = name.partition(",")[0]
        for key in ((kind, way.trials), (kind, 0)):
            sums.setdefault(key, Count()).update(count)
    print()
    for (kind, trials), count in sorted(sums.items()):
        show(kind, "all", "both", str(trials or "all"), count)


if __name__ == "__main__":
    main()
