"""The space doctor: what a study says about its own search space, where its evidence supports it."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.analysis.equal_budget import SameBudget
from search.analysis.importance import LEVEL, Importance
from search.monitoring.terminal import format_value
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.space.distributions import OrderedChoice, Range, ends, is_log, position
from search.space.search_space import Fixed, Point, SearchSpace, describe_case
from search.space.toml_file import to_table
from training.config import NETWORKS
from training.networks.network_config import config_type

NEAR = 0.05
"""This part of a range, at each end, is near its bound."""
SURE = 0.9
"""The best must lie on the same side in so many of the resampled studies before widening is advised."""
RESAMPLES = 200
MANY_DIVERGED = 0.15
FEW = 3
"""So many trials are the fewest from which anything is concluded."""
LONG_WITHOUT_GAIN = 10
STILL_IMPROVING = 0.002
"""Of accuracy, or of loss in relation to itself, over the last third of the epochs."""


@dataclass(frozen=True)
class Advice:
    """One thing to change or to know."""

    sentence: str
    """With the evidence."""
    snippet: str = ""
    """What to type, or to put into the search space as TOML."""


def diagnose(
    record: StudyRecord, space: SearchSpace, compared: SameBudget | None, found: Sequence[Importance]
) -> list[Advice]:
    """All that the study's evidence supports; nothing where there is too little of it.

    Args:
        record: The study.
        space: What was searched.
        compared: Its trials after the same number of epochs.
        found: The importance of each hyperparameter among these.
    """
    advice = [*_bounds(record, space, compared, found), *_diverged(record, space), *_epochs(record), *_plateau(record)]
    return advice + [
        Advice(
            f"{importance.name} may as well stay fixed: that it matters cannot be told from noise ({LEVEL} % interval "
            f"of its share of the variance {round(importance.low, 2) + 0:.0%} to {importance.high:.0%}; "
            f"{record.metric} {compared.words})."
        )
        for importance in found
        if importance.is_noise and compared is not None
    ]


def _bounds(
    record: StudyRecord, space: SearchSpace, compared: SameBudget | None, found: Sequence[Importance]
) -> Iterator[Advice]:
    """Where the best lies at the end of a range that matters, and would in nearly any study like this one."""
    best = record.best()
    if best is None or compared is None:
        return
    noise = {importance.name for importance in found if importance.is_noise}
    for name, dimension in space.searched(best.hyperparameters).items():
        if isinstance(dimension, CategoricalDistribution) or name in noise:
            continue
        place = position(dimension, best.hyperparameters[name])
        side = next((side for side, away in (("lower", place), ("upper", 1 - place)) if away <= NEAR), None)
        if side is None:
            continue
        share = _share_on_side(record, space, compared, name, side)
        wider = _wider(space, record.subject.network, name, side, best.hyperparameters)
        if share < SURE or wider is None:
            continue
        where = "at" if isinstance(dimension, OrderedChoice) else f"within {NEAR:.0%} of"
        yield Advice(
            f"The best {name}, {format_value(best.hyperparameters[name])}, lies {where} the {side} bound, "
            f"{format_value(ends(dimension)[side == 'upper'])}: widen it (in {share:.0%} of resampled studies the "
            f"best lies on that side).",
            wider,
        )


def _share_on_side(record: StudyRecord, space: SearchSpace, compared: SameBudget, name: str, side: str) -> float:
    """In how many resamples of the trials the best one lies in the outer fifth on this side."""
    random = np.random.default_rng(0)
    values = np.array(compared.values) * (1 if record.mode == "max" else -1)
    points = [trial.hyperparameters for trial in compared.trials]
    ranges = [space.searched(point).get(name) for point in points]
    places = [
        position(dimension, point[name]) if dimension else 0.5 for dimension, point in zip(ranges, points, strict=True)
    ]
    outer = np.array([(1 - place if side == "upper" else place) <= 0.2 for place in places])
    drawn = random.integers(len(values), size=(RESAMPLES, len(values)))
    return float(outer[drawn[np.arange(RESAMPLES), values[drawn].argmax(1)]].mean())


def _wider(space: SearchSpace, network: str | None, name: str, side: str, best: Point) -> str | None:
    """The range of the best trial as TOML, longer on one side: by a factor of ten, by two more members, by its half.

    None where the hyperparameter takes no such values.
    """
    case = next(case for case in space.cases[name] if case.counts(space.with_fixed(best)))
    dimension = case.dimension
    assert not isinstance(dimension, CategoricalDistribution | Fixed), "only ranges can be wider"
    low, high = ends(dimension)
    change = (9 * high if side == "upper" else 0.9 * low) if is_log(dimension) else (high - low) / 2
    low, high = (low, high + change) if side == "upper" else (low - change, high)
    wider: Range
    try:
        match dimension:
            case OrderedChoice():
                near, end = dimension.values[1::-1] if side == "lower" else dimension.values[-2:]
                more = [end * (end / near) ** step if dimension.log else end + (end - near) * step for step in (1, 2)]
                whole = isinstance(dimension.distribution, IntDistribution)
                added = {max(1, round(value)) if whole else float(f"{value:.6g}") for value in more}
                wider = OrderedChoice(tuple(sorted({*dimension.values, *added})))
            case IntDistribution():
                wider = IntDistribution(
                    max(1, round(low)) if side == "lower" else dimension.low, round(high), dimension.log
                )
            case FloatDistribution():
                wider = FloatDistribution(float(f"{low:.6g}"), float(f"{high:.6g}"), log=dimension.log)
        if network in NETWORKS:  # what other code takes only that code knows
            for end in ends(wider):
                config_type(network)(**{name: end})  # type: ignore[arg-type]
    except ValueError:
        return None
    described = describe_case(replace(case, dimension=wider))
    return None if wider == dimension else to_table(name, described, several=len(space.cases[name]) > 1)


@dataclass(frozen=True)
class _Region:
    """Trials with one choice, or any, and a hyperparameter from a value on, or up to it."""

    words: str
    inside: tuple[TrialRecord, ...]


def _diverged(record: StudyRecord, space: SearchSpace) -> Iterator[Advice]:
    """Where trials diverge, in the fewest words that hold for all of them."""
    ended = record.ended()
    diverged = [trial for trial in ended if trial.status == "diverged"]
    if len(diverged) < FEW or len(diverged) < MANY_DIVERGED * len(ended):
        return
    region = min(_regions(ended, diverged, space), key=lambda region: len(region.inside))
    sentence = f"{len(diverged) / len(ended):.0%} of the trials diverged, {len(diverged)} of {len(ended)}"
    others = len(region.inside) - len(diverged)
    if region.words and others <= len(diverged) / 2:
        sentence += f", all with {region.words}"
        sentence += f", where {others} did not" if others else ", where no other was tried"
    yield Advice(sentence + ".")


def _regions(ended: list[TrialRecord], diverged: list[TrialRecord], space: SearchSpace) -> Iterator[_Region]:
    """Regions that hold all of the diverged trials, those in fewer words first."""
    yield _Region("", tuple(ended))
    choices: list[tuple[str, list[TrialRecord]]] = [("", ended)]
    for name, dimension in space.items():
        shared = {trial.hyperparameters.get(name) for trial in diverged}
        if isinstance(dimension, CategoricalDistribution) and len(shared) == 1 and None not in shared:
            (choice,) = shared
            inside = [trial for trial in ended if trial.hyperparameters.get(name) == choice]
            choices.append((f"{name} {choice}", inside))
            yield _Region(f"{name} {choice}", tuple(inside))
    for words, trials in choices:
        for name, dimension in space.items():
            drawn = [(trial, float(trial.hyperparameters[name])) for trial in trials if _is_number(trial, name)]
            values = [value for trial, value in drawn if trial.status == "diverged"]
            if isinstance(dimension, CategoricalDistribution) or len(values) < len(diverged):
                continue
            joined = f"{words} and {name}" if words else name
            above = tuple(trial for trial, value in drawn if value >= min(values))
            below = tuple(trial for trial, value in drawn if value <= max(values))
            yield _Region(f"{joined} from {format_value(min(values))} on", above)
            yield _Region(f"{joined} up to {format_value(max(values))}", below)


def _is_number(trial: TrialRecord, name: str) -> bool:
    return not isinstance(trial.hyperparameters.get(name, ""), str)


def _epochs(record: StudyRecord) -> Iterator[Advice]:
    """Whether the best trial was still improving when its epochs were over."""
    best = record.best()
    third = record.epochs // 3
    if best is None or third < 2 or len(best.epochs) < record.epochs:
        return
    values = np.array([record.to_minimize(metrics) for metrics in best.epochs])
    before, last = values[-2 * third : -third].mean(), values[-third:].mean()
    gain, last_is_best = before - last, record.best_epoch(best) is best.epochs[-1]
    enough = STILL_IMPROVING * (1 if record.is_accuracy else abs(before))
    if last_is_best and gain > enough:
        shown = f"{gain * 100:.1f} points" if record.is_accuracy else f"{gain:.3g}"
        yield Advice(
            f"The best trial was still improving at its last epoch (last {third} epochs better by {shown} than the "
            f"{third} before): try more.",
            f"python search/run.py --resume {shlex.quote(record.folder.name)} --fork --epochs {2 * record.epochs}",
        )


def _plateau(record: StudyRecord) -> Iterator[Advice]:
    """How many trials in a row, up to the last, found nothing better."""
    best = record.best()
    if best is None:
        return
    since = sum(trial.number > best.number for trial in record.ended())
    if since >= max(LONG_WITHOUT_GAIN, math.ceil(len(record.ended()) / 2)):
        yield Advice(f"No gain in the last {since} of {len(record.ended())} trials: more of the same will hardly help.")
