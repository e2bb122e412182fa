"""Count the trials that are lost to a limit of memory, with and without the prediction of what fits.

python benchmarks/memory_limit.py
python benchmarks/memory_limit.py --trials 100 --seeds 10

Nothing is trained: in three worlds, formulas give the memory of a configuration and its loss, which larger networks
lower, so that the search is drawn to the limit. A trial that needs more fails, and what was measured of its memory is
less than the limit. The searches are those of a study with one worker; `plain` is Optuna's TPE, which ignores failures.
"""

import argparse
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna

from search.algorithms.memory_prediction import MemoryLimit
from search.algorithms.samplers import build_sampler, tpe
from search.algorithms.search_algorithm import SearchAlgorithm, suggest_value
from search.algorithms.stopping import StudyStopper
from search.record.trial import Failure, MemoryUse
from search.settings import SamplerName, StudySettings
from search.simulation.simulator import memory_record
from search.space.distributions import Distribution, HyperparameterValue, optuna_distribution, parse_distribution
from search.space.encoding import SpaceEncoding
from search.space.search_space import ConditionalRange, SearchSpace
from search.task.custom_metrics import CustomMetrics

FIRST = 5
"""Trials before anything is predicted."""
MEASURED = 0.03
"""Standard deviation of the logarithm of the measured memory."""
Point = dict[str, Any]


@dataclass(frozen=True)
class World:
    """A space, and what its points need and reach."""

    space: SearchSpace
    memory_mb: Callable[[Point], float]
    loss: Callable[[Point], float]


def _space(**ranges: dict[str, Any]) -> SearchSpace:
    return SearchSpace({name: parse_distribution(described) for name, described in ranges.items()})


def _bowl(value: float, best: float, width: float) -> float:
    """A loss that grows with the distance in the logarithm."""
    return float((math.log(value / best) / width) ** 2)


def dense() -> World:
    """A network of equal layers, whose activations, weights and states of the optimizer take memory."""
    states = {"sgd": 0, "momentum": 1, "adam": 2}

    def memory_mb(point: Point) -> float:
        weights = point["layers"] * point["width"] ** 2
        activations = 3 * point["batch_size"] * point["width"] * point["layers"] * 40
        return float(500 + 4e-6 * (activations + weights * (2 + states[point["optimizer"]])))

    def loss(point: Point) -> float:
        size = -0.08 * math.log(point["width"]) - 0.05 * math.log(point["layers"])
        rate = _bowl(point["learning_rate"], 1e-3 * (point["batch_size"] / 64) ** 0.5, 2.0)
        return float(size + 0.1 * rate + 0.2 * (point["dropout"] - 0.2) ** 2 + 0.01 * (point["optimizer"] == "sgd"))

    space = _space(
        batch_size={"low": 16, "high": 1024, "log": True},
        width={"low": 64, "high": 4096, "log": True},
        layers={"low": 1, "high": 16},
        learning_rate={"low": 1e-5, "high": 1e-1, "log": True},
        dropout={"low": 0.0, "high": 0.6},
        optimizer={"choices": list(states)},
    )
    return World(space, memory_mb, loss)


def images() -> World:
    """Known networks on images of several sizes; precision and the kind of network are choices."""
    networks = {"small": (11, 1.0), "medium": (22, 1.5), "large": (26, 3.6), "wide": (69, 4.6)}

    def memory_mb(point: Point) -> float:
        weights, activations = networks[point["network"]]
        per_image = 22 * activations * (point["image_size"] / 128) ** 2 * (0.6 if point["precision"] == "bf16" else 1)
        return float(900 + 16 * weights + per_image * point["batch_size"])

    def loss(point: Point) -> float:
        size = -0.15 * math.log(point["image_size"] / 64) - 0.03 * list(networks).index(point["network"])
        batch = 0.02 * _bowl(point["batch_size"], 128, 1.0)
        return size + batch + 0.08 * _bowl(point["learning_rate"], 3e-3, 2.0) + 0.02 * _bowl(point["decay"], 1e-4, 3.0)

    space = _space(
        network={"choices": list(networks)},
        image_size={"ordered": [64, 96, 128, 160, 192, 224, 256]},
        batch_size={"ordered": [8, 16, 32, 64, 128, 256]},
        precision={"choices": ["fp32", "bf16"]},
        learning_rate={"low": 1e-5, "high": 1e-1, "log": True},
        decay={"low": 1e-6, "high": 1e-1, "log": True},
    )
    return World(space, memory_mb, loss)


def sequences() -> World:
    """Transformers, whose attention takes the square of the length, or recurrent networks, which have no heads."""

    def memory_mb(point: Point) -> float:
        length, width, batch = point["length"], point["width"], point["batch_size"]
        weights = 12 * point["layers"] * width**2 * 16
        activations = 34 * point["layers"] * batch * length * width
        if point["kind"] == "transformer":
            activations += 5 * point["layers"] * batch * point["heads"] * length**2
        return float(600 + 1e-6 * (weights + activations))

    def loss(point: Point) -> float:
        size = -0.06 * math.log(point["width"]) - 0.04 * math.log(point["layers"]) - 0.05 * math.log(point["length"])
        kind = -0.05 if point["kind"] == "transformer" else 0.0
        return size + kind + 0.08 * _bowl(point["learning_rate"], 5e-4, 2.0)

    ranges: dict[str, Any] = {
        "kind": parse_distribution({"choices": ["transformer", "recurrent"]}),
        "heads": [ConditionalRange(parse_distribution({"ordered": [1, 2, 4, 8, 16]}), {"kind": ("transformer",)})],
        "length": parse_distribution({"low": 64, "high": 2048, "log": True}),
        "width": parse_distribution({"low": 64, "high": 2048, "log": True}),
        "layers": parse_distribution({"low": 1, "high": 24}),
        "batch_size": parse_distribution({"low": 4, "high": 256, "log": True}),
        "learning_rate": parse_distribution({"low": 1e-5, "high": 1e-2, "log": True}),
    }
    return World(SearchSpace(ranges), memory_mb, loss)


WORLDS = {"dense": dense, "images": images, "sequences": sequences}


def random_points(space: SearchSpace, number: int) -> list[Point]:
    encoding = SpaceEncoding(space)
    return [encoding.decode(encoding.random_sample(10**6 + one)) for one in range(number)]


@dataclass
class Outcome:
    """What a study has found."""

    points: list[Point]
    lost: list[bool]
    best: float
    redrawn: int = 0
    seconds: float = 0.0

    @property
    def share_lost(self) -> float:
        """Of the trials after the first ones."""
        return float(np.mean(self.lost[FIRST:]))


def study(world: World, limit: float, sampler: SamplerName, seed: int, *, trials: int, knows: str) -> Outcome:
    """Run a study of a world.

    Args:
        world: What its trials need.
        limit: Megabytes.
        sampler: Name of the sampler.
        seed: Of the study.
        trials: Their number.
        knows: What the study knows of the memory: `nothing`, the `peaks` of trials, or the `limit` besides.
    """
    settings = StudySettings(
        train_function="world.py:train", space={}, metric="loss", num_samples=trials, sampler=sampler, scheduler="none"
    )
    record = memory_record(settings, world.space)
    algorithm = SearchAlgorithm(
        record,
        build_sampler(settings.sampler, seed, 0),
        seed=seed,
        num_ended=trials,
        stopper=StudyStopper(),
        memory_limit=MemoryLimit(of_trial_mb=limit) if knows == "limit" else None,
    )
    chance, outcome = random.Random(seed), Outcome([], [], math.inf)
    for number in range(trials):
        name, began = f"trial-{number}", time.perf_counter()
        assert isinstance(algorithm.suggest(name), dict)
        outcome.seconds += time.perf_counter() - began
        trial = record.running(name)
        need = world.memory_mb(trial.hyperparameters) * math.exp(chance.gauss(0.0, MEASURED))
        lost = need > limit
        peak = limit * chance.uniform(0.5, 1.0) if lost else need
        if knows != "nothing":
            record.add_memory(name, MemoryUse(peak_mb=round(peak)))
        if lost:
            record.add_failure(name, Failure("out_of_memory", "MemoryError"))
        else:
            value = world.loss(trial.hyperparameters)
            outcome.best = min(outcome.best, value)
            record.add_epoch(name, CustomMetrics(epoch=1, seconds=1.0, values={"loss": value}))
            record.end_by_itself(name)
        record.finish(name)
        outcome.points.append(trial.hyperparameters)
        outcome.lost.append(lost)
        outcome.redrawn += trial.redrawn
    return outcome


def plain_study(world: World, limit: float, seed: int, *, trials: int) -> Outcome:
    """The same with Optuna's TPE as it is."""
    search, chance, outcome = optuna.create_study(sampler=tpe(seed)), random.Random(seed), Outcome([], [], math.inf)
    for _ in range(trials):
        trial = search.ask()
        point = world.space.build_point(partial(_suggest, trial))
        lost = world.memory_mb(point) * math.exp(chance.gauss(0.0, MEASURED)) > limit
        if lost:
            search.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            outcome.best = min(outcome.best, world.loss(point))
            search.tell(trial, world.loss(point))
        outcome.points.append(point)
        outcome.lost.append(lost)
    return outcome


def _suggest(trial: optuna.Trial, name: str, distribution: Distribution) -> HyperparameterValue:
    return suggest_value(trial, name, optuna_distribution(distribution))


def main() -> None:
    """Run all studies, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samplers", nargs="*", default=["tpe"])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.3, 0.6], help="of random points that do not fit")
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{options.trials} trials, {options.seeds} seeds; lost: share of the trials after the first {FIRST}")
    print(f"{'world':10} {'too large':>9} {'search':16} {'lost':>7} {'most':>7} {'regret':>8} {'redrawn':>8} {'ms':>6}")
    for name in options.worlds:
        world = WORLDS[name]()
        sampled = random_points(world.space, 20_000)
        needs = np.array([world.memory_mb(point) for point in sampled])
        for share in options.shares:
            limit = float(np.quantile(needs, 1 - share))
            optimum = min(world.loss(point) for point, need in zip(sampled, needs, strict=True) if need <= limit)
            ways: dict[str, Callable[[int], Outcome]] = {
                "optuna tpe": partial(plain_study, world, limit, trials=options.trials)
            }
            for sampler in options.samplers:
                for knows in ("nothing", "peaks", "limit"):
                    way = partial(study, world, limit, sampler, trials=options.trials, knows=knows)
                    ways[f"{sampler}, {knows}"] = way
            for way_name, run in ways.items():
                outcomes = [run(seed) for seed in range(options.seeds)]
                lost = [outcome.share_lost for outcome in outcomes]
                regret = np.mean([outcome.best for outcome in outcomes]) - optimum
                milliseconds = 1000 * np.mean([outcome.seconds for outcome in outcomes]) / options.trials
                redrawn = np.mean([outcome.redrawn for outcome in outcomes])
                print(
                    f"{name:10} {share:9.0%} {way_name:16} {np.mean(lost):7.1%} {max(lost):7.1%} {regret:8.4f} "
                    f"{redrawn:8.1f} {milliseconds:6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
