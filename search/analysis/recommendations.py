"""Recommendations for the next study, each with its evidence."""

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
"""Values in this part of a range, at each end, are near the bound."""
SURE = 0.9
"""A wider range is recommended if the best value lies on the same side in this part of the resampled studies."""
RESAMPLES = 200
MANY_DIVERGED = 0.15
FEW = 3
"""Nothing is concluded from fewer trials."""
LONG_WITHOUT_GAIN = 10
STILL_IMPROVING = 0.002
"""A gain of this accuracy, or of this part of the loss, over the last third of the epochs is worth more epochs."""
NEGLIGIBLE_SHARE = 0.1
"""A hyperparameter that explains no more of the variance, by the upper bound of its interval, can stay fixed."""


@dataclass(frozen=True)
class Recommendation:
    """A recommendation for the user."""

    sentence: str
    """The recommendation and its evidence."""
    snippet: str = ""
    """A command line, or TOML for the search space file."""


def recommend(
    record: StudyRecord, space: SearchSpace, compared: EqualBudget | None, evaluated: Sequence[Importance]
) -> list[Recommendation]:
    """All recommendations that a study supports.

    Args:
        record: The record of the study.
        space: The search space.
        compared: The trials of the study after the same number of epochs.
        evaluated: The importance of each hyperparameter among these trials.
    """
    recommendations = [
        *_bounds(record, space, compared, evaluated),
        *_diverged(record, space),
        *_epochs(record),
        *_plateau(record),
    ]
    return recommendations + [
        Recommendation(
            f"{importance.name} can stay fixed: it explains at most {max(0.0, importance.high):.0%} of the variance "
            f"({CONFIDENCE} % interval; {record.metric} {compared.phrase})."
        )
        for importance in evaluated
        if importance.is_noise and importance.high <= NEGLIGIBLE_SHARE and compared is not None
    ]


def _bounds(
    record: StudyRecord, space: SearchSpace, compared: EqualBudget | None, evaluated: Sequence[Importance]
) -> Iterator[Recommendation]:
    """Recommend a wider range if the best value is near a bound, also in resampled studies."""
    best = best_trial(record.trials)
    if best is None or compared is None:
        return
    noise = {importance.name for importance in evaluated if importance.is_noise}
    for name, distribution in space.searched(best.hyperparameters).items():
        if isinstance(distribution, CategoricalDistribution) or name in noise:
            continue
        unit_value = to_unit(distribution, best.hyperparameters[name])
        sides = (("lower", unit_value), ("upper", 1 - unit_value))
        side = next((side for side, gap in sides if gap <= NEAR), None)
        if side is None:
            continue
        share = _share_on_side(record, space, compared, name, side)
        widened = _widened_table(space, record.metadata.task.network, name, side, best.hyperparameters)
        if share < SURE or widened is None:
            continue
        where = "at" if isinstance(distribution, OrderedChoice) else f"within {NEAR:.0%} of"
        yield Recommendation(
            f"The best {name}, {format_value(best.hyperparameters[name])}, lies {where} the {side} bound, "
            f"{format_value(bounds(distribution)[side == 'upper'])}: widen it (in {share:.0%} of resampled studies the "
            f"best lies on that side).",
            widened,
        )


def _share_on_side(record: StudyRecord, space: SearchSpace, compared: EqualBudget, name: str, side: str) -> float:
    """The part of the resampled studies whose best trial lies in the outer fifth of the range on this side."""
    random = np.random.default_rng(0)
    values = np.array(compared.values) * (1 if record.mode == "max" else -1)
    points = [trial.hyperparameters for trial in compared.trials]
    ranges = [space.searched(point).get(name) for point in points]
    unit_values = [
        to_unit(distribution, point[name]) if distribution else 0.5
        for distribution, point in zip(ranges, points, strict=True)
    ]
    outer = np.array([(1 - unit_value if side == "upper" else unit_value) <= 0.2 for unit_value in unit_values])
    resamples = random.integers(len(values), size=(RESAMPLES, len(values)))
    return float(outer[resamples[np.arange(RESAMPLES), values[resamples].argmax(1)]].mean())


def _widened_table(space: SearchSpace, network: str | None, name: str, side: str, best: Point) -> str | None:
    """The range of the best trial as TOML, wider on one side: by a factor of ten, two more members, or half its width.

    None says that the network does not accept such values.
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
        if network in NETWORKS:  # only its own code can check another network
            for end in bounds(wider):
                config_type(network)(**{name: end})  # type: ignore[arg-type]
    except ValueError:
        return None
    described = describe_conditional(replace(conditional, distribution=wider))
    return None if wider == distribution else to_table(name, described, is_list=len(space.ranges[name]) > 1)


@dataclass(frozen=True)
class _Region:
    """The trials with a choice, or with a hyperparameter above or below a value, or with both."""

    description: str
    trials: tuple[TrialRecord, ...]


def _diverged(record: StudyRecord, space: SearchSpace) -> Iterator[Recommendation]:
    """Describe the smallest region that contains all diverged trials."""
    ended = ended_trials(record.trials)
    diverged = [trial for trial in ended if trial.status == "diverged"]
    if len(diverged) < FEW or len(diverged) < MANY_DIVERGED * len(ended):
        return
    region = min(_regions(ended, diverged, space), key=lambda region: len(region.trials))
    sentence = f"{len(diverged) / len(ended):.0%} of the trials diverged, {len(diverged)} of {len(ended)}"
    others = len(region.trials) - len(diverged)
    if region.description and others <= len(diverged) / 2:
        sentence += f", all with {region.description}"
        sentence += f", where {others} did not" if others else ", where no other was tried"
    yield Recommendation(sentence + ".")


def _regions(ended: list[TrialRecord], diverged: list[TrialRecord], space: SearchSpace) -> Iterator[_Region]:
    """Regions that contain all diverged trials, those with a shorter description first."""
    yield _Region("", tuple(ended))
    choices: list[tuple[str, list[TrialRecord]]] = [("", ended)]
    for name, distribution in space.items():
        shared = {trial.hyperparameters.get(name) for trial in diverged}
        if isinstance(distribution, CategoricalDistribution) and len(shared) == 1 and None not in shared:
            (choice,) = shared
            inside = [trial for trial in ended if trial.hyperparameters.get(name) == choice]
            choices.append((f"{name} {choice}", inside))
            yield _Region(f"{name} {choice}", tuple(inside))
    for choice_text, trials in choices:
        for name, distribution in space.items():
            numbers = [
                (trial, float(trial.hyperparameters[name]))
                for trial in trials
                if not isinstance(trial.hyperparameters.get(name, ""), str)
            ]
            values = [value for trial, value in numbers if trial.status == "diverged"]
            if isinstance(distribution, CategoricalDistribution) or len(values) < len(diverged):
                continue
            prefix = f"{choice_text} and {name}" if choice_text else name
            above = tuple(trial for trial, value in numbers if value >= min(values))
            below = tuple(trial for trial, value in numbers if value <= max(values))
            yield _Region(f"{prefix} from {format_value(min(values))} on", above)
            yield _Region(f"{prefix} up to {format_value(max(values))}", below)


def _epochs(record: StudyRecord) -> Iterator[Recommendation]:
    """Recommend more epochs if the best trial was still improving at its last epoch."""
    best = best_trial(record.trials)
    third = record.epochs // 3
    if best is None or third < 2 or len(best.epochs) < record.epochs:
        return
    values = np.array([record.objective.minimized(metrics) for metrics in best.epochs])
    with np.errstate(over="ignore", invalid="ignore"):  # the sum of very large values may be infinite
        before, last = values[-2 * third : -third].mean(), values[-third:].mean()
        gain = before - last
    last_is_best = best.best_epoch is best.epochs[-1]
    threshold = STILL_IMPROVING * (1 if record.metadata.is_accuracy else abs(before))
    if last_is_best and gain > threshold:
        shown = f"{gain * 100:.1f} points" if record.metadata.is_accuracy else f"{gain:.3g}"
        yield Recommendation(
            f"The best trial was still improving at its last epoch (last {third} epochs better by {shown} than the "
            f"{third} before): try more.",
            f"python search/run.py --resume {shlex.quote(record.folder.name)} --fork --epochs {2 * record.epochs}",
        )


def _plateau(record: StudyRecord) -> Iterator[Recommendation]:
    """Say how many trials after the best one found nothing better."""
    best = best_trial(record.trials)
    if best is None:
        return
    ended = ended_trials(record.trials)
    since = sum(trial.number > best.number for trial in ended)
    if since >= max(LONG_WITHOUT_GAIN, math.ceil(len(ended) / 2)):
        yield Recommendation(f"No gain in the last {since} of {len(ended)} trials: more of the same will hardly help.")
