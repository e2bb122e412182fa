"""Recommendations for the next study: what to change in the search space, where the evidence supports it."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.analysis.equal_budget import EqualBudget
from search.analysis.importance import Importance
from search.record.ranking import best_trial, ended_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.space.distributions import OrderedChoice, Range, bounds, is_log, to_unit
from search.space.search_space import Fixed, Point, SearchSpace, describe_conditional
from search.space.toml_file import to_table
from training.config import NETWORKS
from training.console.terminal import format_value
from training.metrics import CONFIDENCE
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
class Recommendation:
    """One thing to change or to know."""

    sentence: str
    """With the evidence."""
    snippet: str = ""
    """What to type, or to put into the search space as TOML."""


def recommend(
    record: StudyRecord, space: SearchSpace, compared: EqualBudget | None, found: Sequence[Importance]
) -> list[Recommendation]:
    """All that the study's evidence supports; nothing where there is too little of it.

    Args:
        record: The study.
        space: What was searched.
        compared: Its trials after the same number of epochs.
        found: The importance of each hyperparameter among these.
    """
    recommendations = [
        *_bounds(record, space, compared, found),
        *_diverged(record, space),
        *_epochs(record),
        *_plateau(record),
    ]
    return recommendations + [
        Recommendation(
            f"{importance.name} may as well stay fixed: that it matters cannot be told from noise "
            f"({CONFIDENCE} % interval of its share of the variance {round(importance.low, 2) + 0:.0%} to "
            f"{importance.high:.0%}; {record.metric} {compared.words})."
        )
        for importance in found
        if importance.is_noise and compared is not None
    ]


def _bounds(
    record: StudyRecord, space: SearchSpace, compared: EqualBudget | None, found: Sequence[Importance]
) -> Iterator[Recommendation]:
    """Where the best lies at the end of a range that matters, and would in nearly any study like this one."""
    best = best_trial(record.trials)
    if best is None or compared is None:
        return
    noise = {importance.name for importance in found if importance.is_noise}
    for name, distribution in space.searched(best.hyperparameters).items():
        if isinstance(distribution, CategoricalDistribution) or name in noise:
            continue
        place = to_unit(distribution, best.hyperparameters[name])
        side = next((side for side, away in (("lower", place), ("upper", 1 - place)) if away <= NEAR), None)
        if side is None:
            continue
        share = _share_on_side(record, space, compared, name, side)
        wider = _wider(space, record.metadata.task.network, name, side, best.hyperparameters)
        if share < SURE or wider is None:
            continue
        where = "at" if isinstance(distribution, OrderedChoice) else f"within {NEAR:.0%} of"
        yield Recommendation(
            f"The best {name}, {format_value(best.hyperparameters[name])}, lies {where} the {side} bound, "
            f"{format_value(bounds(distribution)[side == 'upper'])}: widen it (in {share:.0%} of resampled studies the "
            f"best lies on that side).",
            wider,
        )


def _share_on_side(record: StudyRecord, space: SearchSpace, compared: EqualBudget, name: str, side: str) -> float:
    """In how many resamples of the trials the best one lies in the outer fifth on this side."""
    random = np.random.default_rng(0)
    values = np.array(compared.values) * (1 if record.mode == "max" else -1)
    points = [trial.hyperparameters for trial in compared.trials]
    ranges = [space.searched(point).get(name) for point in points]
    places = [
        to_unit(distribution, point[name]) if distribution else 0.5
        for distribution, point in zip(ranges, points, strict=True)
    ]
    outer = np.array([(1 - place if side == "upper" else place) <= 0.2 for place in places])
    drawn = random.integers(len(values), size=(RESAMPLES, len(values)))
    return float(outer[drawn[np.arange(RESAMPLES), values[drawn].argmax(1)]].mean())


def _wider(space: SearchSpace, network: str | None, name: str, side: str, best: Point) -> str | None:
    """The range of the best trial as TOML, longer on one side: by a factor of ten, by two more members, by its half.

    None where the hyperparameter takes no such values.
    """
    conditional = next(one for one in space.ranges[name] if one.is_active(space.add_fixed(best)))
    distribution = conditional.distribution
    assert not isinstance(distribution, CategoricalDistribution | Fixed), "only ranges can be wider"
    low, high = bounds(distribution)
    change = (9 * high if side == "upper" else 0.9 * low) if is_log(distribution) else (high - low) / 2
    low, high = (low, high + change) if side == "upper" else (low - change, high)
    wider: Range
    try:
        match distribution:
            case OrderedChoice():
                near, end = distribution.values[1::-1] if side == "lower" else distribution.values[-2:]
                more = [
                    end * (end / near) ** step if distribution.log else end + (end - near) * step for step in (1, 2)
                ]
                whole = isinstance(distribution.optuna_distribution, IntDistribution)
                added = {max(1, round(value)) if whole else float(f"{value:.6g}") for value in more}
                wider = OrderedChoice(tuple(sorted({*distribution.values, *added})))
            case IntDistribution():
                wider = IntDistribution(
                    max(1, round(low)) if side == "lower" else distribution.low, round(high), distribution.log
                )
            case FloatDistribution():
                wider = FloatDistribution(float(f"{low:.6g}"), float(f"{high:.6g}"), log=distribution.log)
        if network in NETWORKS:  # what other code takes only that code knows
            for end in bounds(wider):
                config_type(network)(**{name: end})  # type: ignore[arg-type]
    except ValueError:
        return None
    described = describe_conditional(replace(conditional, distribution=wider))
    return None if wider == distribution else to_table(name, described, is_list=len(space.ranges[name]) > 1)


@dataclass(frozen=True)
class _Region:
    """Trials with one choice, or any, and a hyperparameter from a value on, or up to it."""

    words: str
    inside: tuple[TrialRecord, ...]


def _diverged(record: StudyRecord, space: SearchSpace) -> Iterator[Recommendation]:
    """Where trials diverge, in the fewest words that hold for all of them."""
    ended = ended_trials(record.trials)
    diverged = [trial for trial in ended if trial.status == "diverged"]
    if len(diverged) < FEW or len(diverged) < MANY_DIVERGED * len(ended):
        return
    region = min(_regions(ended, diverged, space), key=lambda region: len(region.inside))
    sentence = f"{len(diverged) / len(ended):.0%} of the trials diverged, {len(diverged)} of {len(ended)}"
    others = len(region.inside) - len(diverged)
    if region.words and others <= len(diverged) / 2:
        sentence += f", all with {region.words}"
        sentence += f", where {others} did not" if others else ", where no other was tried"
    yield Recommendation(sentence + ".")


def _regions(ended: list[TrialRecord], diverged: list[TrialRecord], space: SearchSpace) -> Iterator[_Region]:
    """Regions that hold all of the diverged trials, those in fewer words first."""
    yield _Region("", tuple(ended))
    choices: list[tuple[str, list[TrialRecord]]] = [("", ended)]
    for name, distribution in space.items():
        shared = {trial.hyperparameters.get(name) for trial in diverged}
        if isinstance(distribution, CategoricalDistribution) and len(shared) == 1 and None not in shared:
            (choice,) = shared
            inside = [trial for trial in ended if trial.hyperparameters.get(name) == choice]
            choices.append((f"{name} {choice}", inside))
            yield _Region(f"{name} {choice}", tuple(inside))
    for words, trials in choices:
        for name, distribution in space.items():
            drawn = [(trial, float(trial.hyperparameters[name])) for trial in trials if _is_number(trial, name)]
            values = [value for trial, value in drawn if trial.status == "diverged"]
            if isinstance(distribution, CategoricalDistribution) or len(values) < len(diverged):
                continue
            joined = f"{words} and {name}" if words else name
            above = tuple(trial for trial, value in drawn if value >= min(values))
            below = tuple(trial for trial, value in drawn if value <= max(values))
            yield _Region(f"{joined} from {format_value(min(values))} on", above)
            yield _Region(f"{joined} up to {format_value(max(values))}", below)


def _is_number(trial: TrialRecord, name: str) -> bool:
    return not isinstance(trial.hyperparameters.get(name, ""), str)


def _epochs(record: StudyRecord) -> Iterator[Recommendation]:
    """Whether the best trial was still improving when its epochs were over."""
    best = best_trial(record.trials)
    third = record.epochs // 3
    if best is None or third < 2 or len(best.epochs) < record.epochs:
        return
    values = np.array([record.objective.minimized(metrics) for metrics in best.epochs])
    before, last = values[-2 * third : -third].mean(), values[-third:].mean()
    gain, last_is_best = before - last, best.best_epoch is best.epochs[-1]
    enough = STILL_IMPROVING * (1 if record.metadata.is_accuracy else abs(before))
    if last_is_best and gain > enough:
        shown = f"{gain * 100:.1f} points" if record.metadata.is_accuracy else f"{gain:.3g}"
        yield Recommendation(
            f"The best trial was still improving at its last epoch (last {third} epochs better by {shown} than the "
            f"{third} before): try more.",
            f"python search/run.py --resume {shlex.quote(record.folder.name)} --fork --epochs {2 * record.epochs}",
        )


def _plateau(record: StudyRecord) -> Iterator[Recommendation]:
    """How many trials in a row, up to the last, found nothing better."""
    best = best_trial(record.trials)
    if best is None:
        return
    ended = ended_trials(record.trials)
    since = sum(trial.number > best.number for trial in ended)
    if since >= max(LONG_WITHOUT_GAIN, math.ceil(len(ended) / 2)):
        yield Recommendation(f"No gain in the last {since} of {len(ended)} trials: more of the same will hardly help.")
