"""Replays the trials of a study with other schedulers and with fewer trials."""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import optuna

from search.algorithms.schedulers import describe
from search.record.trial import Failure
from search.settings import SchedulerName, StudySettings
from search.simulation.grid_study import reported_numbers
from search.simulation.replay_objects import ReplayOfStudy, SchedulerReplay, ValueAfterTrials
from search.simulation.settings import ReplaySettings
from search.simulation.simulator import Incumbent, incumbents, replay_trials
from search.simulation.study_curves import OtherStudy, StudyTrial
from training.console.json_output import write_object
from training.console.terminal import counted
from training.metrics import EpochMetrics

Order = list[StudyTrial]
RECORDED = "recorded.py:curves"
"""Stands for a training function in the settings of a replay, which runs none."""
SCHEDULERS: tuple[SchedulerName, ...] = ("asha", "promotion", "median")


def show(trials: Order, options: ReplaySettings, other: OtherStudy | None = None) -> None:
    """Replay a study's trials with each scheduler, in their own order and in random orders, and print the results.

    Args:
        trials: The trials of the study.
        options: Options of the replay.
        other: The study, if it is not on images.
    """
    settings = _settings(trials, options, other)
    has_seconds = other is None or other.has_seconds
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    orders = [trials, *_random_orders(trials, options.seed, options.seeds)]
    whole = [incumbents(replay_trials(order, settings, options.workers), settings) for order in orders]
    if len(trials) not in whole[0]:
        raise ValueError("there is nothing to replay, because no trial of the study has valid metrics")
    best = whole[0][len(trials)]
    _show_study(trials, best, settings, has_seconds=has_seconds)
    first = " (the baseline is always first)" if any(trial.is_baseline for trial in trials) else ""
    print(
        f"\nEach scheduler with {counted(options.workers, 'worker')}, in the order of the study and in "
        f"{counted(options.seeds, 'random order')}{first}:"
    )
    savings = []
    for name in (options.scheduler,) if options.scheduler else SCHEDULERS:
        stopping = replace(settings, scheduler=name)
        studies = [incumbents(replay_trials(order, stopping, options.workers), stopping) for order in orders]
        savings.append(_savings(name, [study[len(trials)] for study in studies], best, has_seconds=has_seconds))
        _show_savings(savings[-1], stopping)
    fewer, enough = [*_fewer_trials(whole, has_seconds=has_seconds)], _enough_trials(whole[0])
    _show_fewer_trials(fewer, enough, settings, len(trials), has_seconds=has_seconds)
    if options.json:
        document = ReplayOfStudy(
            metric=settings.metric_name,
            trials=len(trials),
            epochs=best.epochs_run,
            seconds=best.seconds_used if has_seconds else None,
            best_trial=trials[best.trial.number].number,
            best_epoch=best.epoch,
            best_value=best.value,
            workers=options.workers,
            schedulers=savings,
            after_trials=fewer,
            enough_trials=enough,
        )
        write_object(document)


def _settings(trials: Order, options: ReplaySettings, other: OtherStudy | None) -> StudySettings:
    """The settings of a replay without a scheduler."""
    unusable = [
        f"--{name.replace('_', '-')}" for name in ("sampler", "num_samples") if getattr(options, name) is not None
    ]
    if unusable:
        raise ValueError(f"the recorded trials of a study are replayed: leave out {' and '.join(unusable)}")
    epochs = [step for trial in trials for step in trial.curve if not isinstance(step, Failure)]
    if not epochs:
        raise ValueError("there is nothing to replay, because no trial of the study finished an epoch")
    known = {"num_samples": len(trials), "scheduler": "none", "seed": options.seed}
    known["epochs"] = max(metrics.epoch for metrics in epochs)
    if other is not None:
        if options.metric is not None:
            raise ValueError(f"this study is replayed by its own metric, {other.metric}: leave out --metric")
        return options.study_settings(**known, train_function=RECORDED, metric=other.metric, mode=other.mode)
    has_validation = isinstance(epochs[0], EpochMetrics) and epochs[0].val_accuracy is not None
    return options.study_settings(**known, val_fraction=StudySettings.val_fraction if has_validation else 0.0)


def _random_orders(trials: Order, seed: int, number: int) -> list[Order]:
    baseline = [trial for trial in trials if trial.is_baseline]
    others = [trial for trial in trials if not trial.is_baseline]
    return [baseline + random.Random(seed + order).sample(others, len(others)) for order in range(number)]


def _show_study(trials: Order, best: Incumbent, settings: StudySettings, *, has_seconds: bool) -> None:
    seconds = f", {best.seconds_used:.0f} seconds of training" if has_seconds else ""
    print(
        f"{counted(len(trials), 'trial')}, {counted(best.epochs_run, 'epoch')}{seconds}. The best is trial "
        f"{trials[best.trial.number].number}: {settings.metric_name} {best.value:.4f} in epoch {best.epoch}."
    )
    stopped = sum(trial.status in ("stopped_early", "paused", "interrupted") for trial in trials)
    if stopped:
        print(
            f"{counted(stopped, 'trial')} did not run in full, so the later epochs are unknown: a scheduler saves\n"
            "less here than it would in a study with --scheduler none."
        )


def _savings(
    scheduler: SchedulerName, stopped: list[Incumbent], whole: Incumbent, *, has_seconds: bool
) -> SchedulerReplay:
    """Compare studies that a scheduler stops, the first in the order of the study, with the study in full."""
    epochs = [1 - one.epochs_run / whole.epochs_run for one in stopped]
    seconds = [1 - one.seconds_used / whole.seconds_used for one in stopped] if has_seconds else []
    own, *others = (abs(whole.value - one.value) for one in stopped)
    return SchedulerReplay(
        scheduler=scheduler,
        epochs_saved=epochs[0],
        seconds_saved=seconds[0] if seconds else None,
        loss=own,
        random_orders=len(others),
        random_epochs_saved=float(np.mean(epochs[1:])),
        random_seconds_saved=float(np.mean(seconds[1:])) if seconds else None,
        random_loss=float(np.mean(others)),
        random_same_best=sum(loss == 0 for loss in others),
    )


def _show_savings(one: SchedulerReplay, settings: StudySettings) -> None:
    own_seconds = "" if one.seconds_saved is None else f" and {one.seconds_saved:z.0%} of the seconds"
    mean_seconds = "" if one.random_seconds_saved is None else f" and {one.random_seconds_saved:z.0%}"
    outcome = "the same" if one.loss == 0 else f"{one.loss:.4f} worse"
    print(
        f"  {describe(settings)}\n"
        f"    saves {one.epochs_saved:z.0%} of the epochs{own_seconds}; the best value is {outcome}\n"
        f"    (random orders: saves {one.random_epochs_saved:z.0%}{mean_seconds}; the best value is the "
        f"same in {one.random_same_best} of {one.random_orders}, and {one.random_loss:.4f} worse on average)"
    )


def _fewer_trials(studies: list[dict[int, Incumbent]], *, has_seconds: bool) -> Iterator[ValueAfterTrials]:
    own, *others = studies
    for ended in reported_numbers(max(own)):
        if ended in own:
            yield ValueAfterTrials(
                trials=ended,
                value=own[ended].value,
                random_value=float(np.mean([study[ended].value for study in others if ended in study])),
                seconds=own[ended].seconds_used if has_seconds else None,
            )


def _enough_trials(own: dict[int, Incumbent]) -> int:
    return min(ended for ended, incumbent in own.items() if incumbent.value == own[max(own)].value)


def _show_fewer_trials(
    fewer: list[ValueAfterTrials], enough: int, settings: StudySettings, trials: int, *, has_seconds: bool
) -> None:
    print(
        "\nBest value after fewer trials, each with its recorded epochs\n"
        f"  trials  {settings.metric_name:>13}  in random orders{'  seconds' if has_seconds else ''}"
    )
    for one in fewer:
        seconds = "" if one.seconds is None else f"  {one.seconds:>7.0f}"
        print(f"  {one.trials:>6}  {one.value:>13.4f}  {one.random_value:>16.4f}{seconds}")
    print(f"The best value was reached when {enough} of {counted(trials, 'trial')} had ended.")
