"""Replays studies against the learning curves of a grid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import optuna

from search.algorithms.schedulers import describe
from search.settings import StudySettings
from search.simulation.learning_curves import GridCurves
from search.simulation.replay_objects import MeansAfterTrials, ReplayedStudy, ReplayOfTable
from search.simulation.settings import ReplaySettings
from search.simulation.simulator import Incumbent, incumbents, replay_grid, seconds_of
from search.space.toml_file import default_space
from training.console.json_output import write_object
from training.console.terminal import counted
from training.metrics import EpochMetrics

SEED_STEP = 1000
"""The difference between the seeds of two studies, so that no seed of a trial is in both."""


def show(curves: GridCurves, options: ReplaySettings) -> None:
    """Replay studies against the curves of a grid, and print their results and costs."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = options.study_settings(epochs=curves.epochs)
    replay = _replay(curves, options, settings)
    studies, metric = replay.studies, replay.metric
    regret = f"regret, {'points' if metric.endswith('accuracy') else 'nats'}"
    print(
        f"{options.seeds} replayed studies, each with {counted(settings.num_samples, 'trial')} of "
        f"{counted(curves.epochs, 'epoch')}: sampler {settings.sampler}, {describe(settings)}, "
        f"{counted(options.workers, 'worker')}\n"
        f"The table has {len(curves.metrics) * len(curves.learning_rates)} configurations from "
        f"{counted(curves.seeds, 'seed')}; the best one has a mean {metric} of {replay.best_value:.4f}\n\n"
        f"{'':16} {'mean':>9}   80 % of the studies\n"
        f"{_row(metric, [one.value for one in studies], 4)}\n"
        f"{_row(regret, [one.regret for one in studies], 2)}   by how much the choice is worse than the best\n"
        f"{_row('epochs', [one.epochs for one in studies], 0, replay.epochs_in_full)}\n"
        f"{_row('CPU seconds', [one.cpu_seconds for one in studies], 1, replay.cpu_seconds_in_full)}\n"
        f"{_row('wall seconds', [one.wall_seconds for one in studies], 1)}\n\n"
        f"Means after this number of trials\n{'trials':>8}  {metric:>13}  {'regret':>6}  CPU seconds"
    )
    for one in replay.after_trials:
        print(f"{one.trials:>8}  {one.value:>13.4f}  {one.regret:>6.2f}  {one.cpu_seconds:>11.1f}")
    if options.json:
        write_object(replay)


def _replay(curves: GridCurves, options: ReplaySettings, settings: StudySettings) -> ReplayOfTable:
    """Replay studies whose seeds begin with that of these settings."""
    studies, in_full = [], []
    for number in range(options.seeds):
        seeded = replace(settings, seed=options.seed + SEED_STEP * number)
        reports = list(replay_grid(curves, seeded, default_space(settings.network), options.workers))
        studies.append(incumbents(reports, seeded))
        trials = {report.trial.number: report.trial for report in reports}.values()
        curve = [step for trial in trials for step in curves.curve(trial.hyperparameters, trial.seed)]
        in_full.append((sum(isinstance(step, EpochMetrics) for step in curve), sum(map(seconds_of, curve))))
    metric = settings.metric_name
    best, scale = curves.best_truth(metric), 100 if metric.endswith("accuracy") else 1

    def regret(incumbent: Incumbent) -> float:
        return scale * abs(best - curves.truth(incumbent.trial.hyperparameters, incumbent.epoch, metric))

    epochs, seconds = (float(mean) for mean in np.mean(in_full, axis=0))
    return ReplayOfTable(
        metric=metric,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        num_samples=settings.num_samples,
        epochs=curves.epochs,
        workers=options.workers,
        best_value=best,
        studies=[
            ReplayedStudy(
                value=one.value,
                regret=regret(one),
                epochs=one.epochs_run,
                cpu_seconds=one.seconds_used,
                wall_seconds=one.clock,
            )
            for one in (study[max(study)] for study in studies)
        ],
        after_trials=[*_after_trials(studies, settings.num_samples, regret)],
        epochs_in_full=epochs,
        cpu_seconds_in_full=seconds,
    )


def _after_trials(
    studies: list[dict[int, Incumbent]], trials: int, regret: Callable[[Incumbent], float]
) -> Iterator[MeansAfterTrials]:
    for ended in reported_numbers(trials):
        present = [study[ended] for study in studies if ended in study]
        yield MeansAfterTrials(
            trials=ended,
            value=float(np.mean([one.value for one in present])),
            regret=float(np.mean([regret(one) for one in present])),
            cpu_seconds=float(np.mean([one.seconds_used for one in present])),
        )


def reported_numbers(trials: int) -> list[int]:
    """The numbers of ended trials for which the incumbent is printed: every fifth, and the last."""
    return [*range(5, trials, 5), trials]


def _row(name: str, values: Sequence[float], digits: int, in_full: float | None = None) -> str:
    low, high = np.percentile(values, [10, 90])
    row = f"  {name:<14} {np.mean(values):>9.{digits}f}   {low:.{digits}f} to {high:.{digits}f}"
    return row if in_full is None else f"{row}   {np.mean(values) / in_full:.0%} of the same trials in full"
