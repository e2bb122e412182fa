"""Replays the trials of a study with other schedulers and with fewer trials."""

import random
from dataclasses import replace

import numpy as np
import optuna

from search.algorithms.schedulers import describe
from search.settings import SchedulerName, StudySettings
from search.simulation.grid_study import reported_numbers
from search.simulation.settings import ReplaySettings
from search.simulation.simulator import Incumbent, incumbents, replay_trials
from search.simulation.study_curves import StudyTrial
from training.console.terminal import counted
from training.metrics import EpochMetrics

Order = list[StudyTrial]
SCHEDULERS: tuple[SchedulerName, ...] = ("asha", "promotion", "median")


def show(trials: Order, options: ReplaySettings) -> None:
    """Replay a study's trials with each scheduler, in their own order and in random orders, and print the results."""
    settings = _settings(trials, options)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    orders = [trials, *_random_orders(trials, options.seed, options.seeds)]
    whole = [incumbents(replay_trials(order, settings, options.workers), settings) for order in orders]
    if len(trials) not in whole[0]:
        raise ValueError("there is nothing to replay, because no trial of the study has valid metrics")
    best = whole[0][len(trials)]
    _show_study(trials, best, settings)
    print(
        f"\nEach scheduler with {counted(options.workers, 'worker')}, in the order of the study and in "
        f"{counted(options.seeds, 'random order')} (the baseline is always first):"
    )
    for name in (options.scheduler,) if options.scheduler else SCHEDULERS:
        stopping = replace(settings, scheduler=name)
        studies = [incumbents(replay_trials(order, stopping, options.workers), stopping) for order in orders]
        _show_savings(stopping, [study[len(trials)] for study in studies], best)
    _show_fewer_trials(whole, settings)


def _settings(trials: Order, options: ReplaySettings) -> StudySettings:
    """The settings of a replay without a scheduler."""
    unusable = [
        f"--{name.replace('_', '-')}" for name in ("sampler", "num_samples") if getattr(options, name) is not None
    ]
    if unusable:
        raise ValueError(f"the recorded trials of a study are replayed: leave out {' and '.join(unusable)}")
    epochs = [step for trial in trials for step in trial.curve if isinstance(step, EpochMetrics)]
    if not epochs:
        raise ValueError("there is nothing to replay, because no trial of the study finished an epoch")
    return options.study_settings(
        epochs=max(metrics.epoch for metrics in epochs),
        num_samples=len(trials),
        scheduler="none",
        seed=options.seed,
        val_fraction=StudySettings.val_fraction if epochs[0].val_accuracy is not None else 0.0,
    )


def _random_orders(trials: Order, seed: int, number: int) -> list[Order]:
    baseline = [trial for trial in trials if trial.is_baseline]
    others = [trial for trial in trials if not trial.is_baseline]
    return [baseline + random.Random(seed + order).sample(others, len(others)) for order in range(number)]


def _show_study(trials: Order, best: Incumbent, settings: StudySettings) -> None:
    print(
        f"{counted(len(trials), 'trial')}, {counted(best.epochs_run, 'epoch')}, {best.seconds_used:.0f} seconds of "
        f"training. The best is trial {trials[best.trial.number].number}: {settings.metric_name} {best.value:.4f} in "
        f"epoch {best.epoch}."
    )
    stopped = sum(trial.status in ("stopped_early", "paused", "interrupted") for trial in trials)
    if stopped:
        print(
            f"{counted(stopped, 'trial')} did not run in full, so the later epochs are unknown: a scheduler saves\n"
            "less here than it would in a study with --scheduler none."
        )


def _show_savings(settings: StudySettings, stopped: list[Incumbent], whole: Incumbent) -> None:
    epochs = [1 - one.epochs_run / whole.epochs_run for one in stopped]
    seconds = [1 - one.seconds_used / whole.seconds_used for one in stopped]
    own, *others = (abs(whole.value - one.value) for one in stopped)
    unchanged = sum(loss == 0 for loss in others)
    outcome = "the same" if own == 0 else f"{own:.4f} worse"
    print(
        f"  {describe(settings)}\n"
        f"    saves {epochs[0]:z.0%} of the epochs and {seconds[0]:z.0%} of the seconds; the best value is {outcome}\n"
        f"    (random orders: saves {np.mean(epochs[1:]):z.0%} and {np.mean(seconds[1:]):z.0%}; the best value is the "
        f"same in {unchanged} of {len(others)}, and {np.mean(others):.4f} worse on average)"
    )


def _show_fewer_trials(studies: list[dict[int, Incumbent]], settings: StudySettings) -> None:
    metric, (own, *others) = settings.metric_name, studies
    print(
        "\nBest value after fewer trials, each with its recorded epochs\n"
        f"  trials  {metric:>13}  in random orders  seconds"
    )
    for ended in reported_numbers(max(own)):
        if ended in own:
            value, on_average = own[ended].value, np.mean([study[ended].value for study in others if ended in study])
            print(f"  {ended:>6}  {value:>13.4f}  {on_average:>16.4f}  {own[ended].seconds_used:>7.0f}")
    enough = min(ended for ended, incumbent in own.items() if incumbent.value == own[max(own)].value)
    print(f"The best value was reached when {enough} of {counted(max(own), 'trial')} had ended.")
