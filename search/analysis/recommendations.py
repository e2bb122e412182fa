"""Recommendations for the next study, each with its evidence."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import t

from search.analysis.equal_budget import NEARLY_ALL
from search.analysis.fixing import FEWEST_TRIALS, Fixing, Judgement
from search.analysis.fixing import SURE as SURE_OF_COST
from search.record.lookup import resume_line
from search.record.ranking import best_trial, ended_trials, ranked, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.space.distributions import OrderedChoice, Range, bounds, describe_distribution, is_log
from search.space.search_space import SearchSpace
from search.space.toml_file import to_table
from training.config import NETWORKS
from training.console.terminal import counted, format_value
from training.networks.network_config import config_type

SURE = 0.9
"""A wider range is recommended if, in this part of the draws, a bound is the best value by an effect worth having."""
FEWEST_VALUES = 3
"""A range is advised only for a hyperparameter of which at least this number of values is compared."""
MANY_DIVERGED = 0.15
FEW = 3
"""Nothing is concluded from fewer trials."""
LONG_WITHOUT_GAIN = 10
FEW_BEST = 5
"""Whether the best trials still improve is decided by a quarter of the full trials, but at least by this number."""
FEWEST_EPOCHS = 3
"""Fewer epochs do not show how the gains shrink."""
STILL_IMPROVING = 0.002
"""A mean gain of this accuracy, or of this part of another metric, in the last fifth of the epochs asks for more."""
SURE_OF_MEAN = 0.95
"""A mean gain counts as above a threshold if the lower bound of its one-sided interval of this level is above it."""


@dataclass(frozen=True)
class Recommendation:
    """A recommendation for the user."""

    kind: Literal["widen", "diverged", "epochs", "plateau", "fix"]
    sentence: str
    """The recommendation and its evidence."""
    snippet: str = ""
    """A command line, or TOML for the search space file."""


def recommend(record: StudyRecord, space: SearchSpace, judgement: Judgement) -> list[Recommendation]:
    """All recommendations that a study supports.

    Args:
        record: The record of the study.
        space: The search space.
        judgement: What it costs to fix each hyperparameter.
    """
    fixed = [fixing for fixing in judgement.fixings if fixing.verdict == "can stay fixed"]
    return [
        *_bounds(record, space, judgement),
        *_diverged(record, space),
        *_epochs(record),
        *_plateau(record),
        *(Recommendation("fix", describe_fixing(record, fixing)) for fixing in fixed),
    ]


def describe_fixing(record: StudyRecord, fixing: Fixing) -> str:
    """Describe what it costs to fix a hyperparameter, or that this is not known, in a sentence."""
    cost = describe_size(record, fixing.cost)
    sure = f"{SURE_OF_COST:.0%} sure, while the other hyperparameters are searched"
    match fixing.verdict:
        case "can stay fixed":
            first, *_, last = map(format_value, fixing.values)
            is_choice = isinstance(record.space[fixing.name], CategoricalDistribution)
            which = " or ".join(map(format_value, fixing.values)) if is_choice else f"any value from {first} to {last}"
            return f"{fixing.name} can stay fixed: {which} costs at most {cost} ({sure})."
        case "matters":
            return f"{fixing.name} matters: its worst value costs at least {cost} ({sure})."
        case _:
            return f"{fixing.name}: the trials do not show whether it can stay fixed."


def describe_stopped(record: StudyRecord) -> str:
    """Say that it is not known what can stay fixed, because a scheduler stopped trials; empty if it stopped few."""
    trials = valid_trials(record.trials)
    stopped = sum(trial.status in ("stopped_early", "paused") for trial in trials)
    which = "that stops no trial" if record.metadata.origin else "with --scheduler none --sampler tpe"
    if len(trials) < FEWEST_TRIALS or stopped <= (1 - NEARLY_ALL) * len(trials):
        return ""
    return (
        f"The scheduler stopped {stopped} of {len(trials)} trials early because of their values, so it is not known "
        "which hyperparameters can stay fixed. "
        f"A study {which} may tell."
    )


def describe_size(record: StudyRecord, size: float) -> str:
    """Write a difference of the metric, which is above 0, in its unit."""
    return (
        f"{size * 100:.1f} points of {record.metric}" if record.metadata.is_accuracy else f"{size:.3g} {record.metric}"
    )


def _bounds(record: StudyRecord, space: SearchSpace, judgement: Judgement) -> Iterator[Recommendation]:
    """Recommend a wider range if the metric still improves towards a bound.

    That the bound is the best value is not enough: on recorded tables, 8 of 12 such ranges gained nothing. So a
    parabola through the three values nearest to the bound must go on to improve beyond it, by an effect worth having
    (docs/advice.md has the error rates).
    """
    effect = judgement.effect
    for one in judgement.costs:
        distribution = space[one.name]
        if (
            isinstance(distribution, CategoricalDistribution)
            or one.name in record.metadata.guessed_ranges
            or space.ranges[one.name][0].condition
            or len(one.values) < FEWEST_VALUES
        ):
            continue
        third = max(1, round((len(one.values) - 1) / 3))
        for side, order in (("lower", 1), ("upper", -1)):
            values, costs = one.values[::order], one.costs[:, ::order]
            beyond = 3 * costs[:, 0] - 3 * costs[:, 1] + costs[:, 2]
            improves = (costs[:, 0] == costs.min(1)) & (costs[:, third] >= effect) & (beyond <= costs[:, 0] - effect)
            share = float(improves.mean())
            widened = _widened_table(space, record.metadata.task.network, one.name, side) if share >= SURE else None
            if widened:
                yield Recommendation(
                    "widen",
                    f"{one.name} is best at the {side} bound of its range, {format_value(values[0])}: widen "
                    f"the range ({share:.0%} sure that {format_value(values[third])} is worse by "
                    f"{describe_size(record, effect)} or more, and that beyond the bound is as much to gain).",
                    widened,
                )


def _widened_table(space: SearchSpace, network: str | None, name: str, side: str) -> str | None:
    """The range of a hyperparameter as TOML, wider on one side: times ten, two more members, or half its width.

    A range above 0 stays above 0. None says that the range begins at 0, or that the network does not accept such
    values.
    """
    distribution = space[name]
    assert not isinstance(distribution, CategoricalDistribution), "only ranges can be wider"
    low, high = bounds(distribution)
    if side == "lower" and low == 0:
        return None
    least = low / 10 if low > 0 else -math.inf
    change = (9 * high if side == "upper" else 0.9 * low) if is_log(distribution) else (high - low) / 2
    low, high = (low, high + change) if side == "upper" else (max(least, low - change), high)
    wider: Range
    try:
        match distribution:
            case OrderedChoice():
                near, end = distribution.values[1::-1] if side == "lower" else distribution.values[-2:]
                more = [
                    end * (end / near) ** step if distribution.log else end + (end - near) * step for step in (1, 2)
                ]
                whole = isinstance(distribution.optuna_distribution, IntDistribution)
                rounded = [round(value) if whole else float(f"{value:.6g}") for value in more]
                added = [max(1, value) if whole and distribution.log else value for value in rounded]
                wider = OrderedChoice(tuple(sorted({*distribution.values, *added})))
            case IntDistribution():
                lowest = max(1, round(low)) if low > 0 else round(low)
                wider = IntDistribution(lowest, round(high), distribution.log)
            case FloatDistribution():
                wider = FloatDistribution(float(f"{low:.6g}"), float(f"{high:.6g}"), log=distribution.log)
        if network in NETWORKS:  # only its own code can check another network
            for end in bounds(wider):
                config_type(network)(**{name: end})  # type: ignore[arg-type]
    except ValueError:
        return None
    return None if wider == distribution else to_table(name, describe_distribution(wider))


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
    sentence = f"{len(diverged)} of {len(ended)} trials diverged ({len(diverged) / len(ended):.0%})"
    others = len(region.trials) - len(diverged)
    if region.description and others <= len(diverged) / 2:
        sentence += f", all of them with {region.description}; "
        sentence += f"{counted(others, 'other such trial')} did not diverge" if others else "no other such trial ran"
    yield Recommendation("diverged", sentence + ".")


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
    """Recommend more epochs if the best of the full trials were still improving at their end.

    That the last fifth gained enough is not enough: a fast curve may be at its end. So the gains of the last fifths are
    continued, too (docs/advice.md has the error rates).
    """
    best = best_full_trials(record)
    if (
        len(best) < FEW
        or record.epoch_limit is None
        or record.epochs < FEWEST_EPOCHS
        or any(trial.ended_by_itself or len(trial.curve) < record.epochs for trial in best)
    ):
        return
    part = max(1, record.epochs // 5)
    costs = np.array([[record.objective.minimized(metrics) for metrics in trial.epochs] for trial in best])
    with np.errstate(over="ignore", invalid="ignore"):  # the sum of very large values may be infinite
        gains = costs[:, -2 * part : -part].mean(1) - costs[:, -part:].mean(1)
    threshold = STILL_IMPROVING * (1 if record.metadata.is_accuracy else abs(float(costs[0, -1])))
    error = t.ppf(SURE_OF_MEAN, len(best) - 1) * gains.std(ddof=1) / math.sqrt(len(best))
    if min(gains.mean() - error, _gain_of_doubling(costs.mean(0), part)) > threshold:
        last = "last epoch was" if part == 1 else f"last {part} epochs were"
        before = "one before" if part == 1 else f"{part} before"
        yield Recommendation(
            "epochs",
            f"The best {len(best)} full trials were still improving at the end: their {last} better than the {before} "
            f"by {describe_size(record, float(gains.mean()))} on average. Try more epochs.",
            ""
            if record.metadata.origin
            else resume_line(
                record.folder, record.address, record.metadata.settings, fork=True, epochs=2 * record.epochs
            ),
        )


def _gain_of_doubling(costs: NDArray[np.float64], part: int) -> float:
    """What a mean curve gains in twice as many epochs, if its gains go on to shrink as they shrank in the end.

    Args:
        costs: The mean cost after each epoch.
        part: Number of epochs whose mean costs are compared.
    """
    first, middle, last = costs[-3 * part :].reshape(3, part).mean(1)
    before, gain = first - middle, middle - last
    shrinks = min(1.0, gain / before) if before > 0 else 1.0
    to_come = gain * sum(shrinks**step for step in range(1, len(costs) // part + 1))
    return float(to_come - (last - costs[-1]))  # the last epoch is better than the mean of the last part


def best_full_trials(record: StudyRecord) -> list[TrialRecord]:
    """The best quarter of the trials that ran in full, but at least some."""
    full = [trial for trial in ranked(record.trials) if trial.is_valid and trial.reached(record.epochs)]
    return full[: max(FEW_BEST, round(len(full) / 4))]


def _plateau(record: StudyRecord) -> Iterator[Recommendation]:
    """Say how many trials after the best one found nothing better."""
    best = best_trial(record.trials)
    if best is None:
        return
    ended = ended_trials(record.trials)
    since = sum(trial.number > best.number for trial in ended)
    if since >= max(LONG_WITHOUT_GAIN, math.ceil(len(ended) / 2)):
        yield Recommendation(
            "plateau",
            f"The last {since} of {len(ended)} trials found nothing better; more may help little.",
        )
