"""Replays studies against the learning curves of a grid."""

from collections.abc import Sequence

import numpy as np
import optuna

from search.algorithms.schedulers import describe
from search.simulation.learning_curves import GridCurves
from search.simulation.settings import ReplaySettings
from search.simulation.simulator import Incumbent, incumbents, replay_grid, seconds_of
from search.space.toml_file import default_space
from training.console.terminal import counted
from training.metrics import EpochMetrics

SEED_STEP = 1000
"""The difference between the seeds of two studies, so that no seed of a trial is in both."""


def show(curves: GridCurves, options: ReplaySettings) -> None:
    """Replay studies against the curves of a grid, and print their results and costs."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    studies, in_full = [], []
    for number in range(options.seeds):
        settings = options.study_settings(epochs=curves.epochs, seed=options.seed + SEED_STEP * number)
        reports = list(replay_grid(curves, settings, default_space(settings.network), options.workers))
        studies.append(incumbents(reports, settings))
        trials = {report.trial.number: report.trial for report in reports}.values()
        curve = [step for trial in trials for step in curves.curve(trial.hyperparameters, trial.seed)]
        in_full.append((sum(isinstance(step, EpochMetrics) for step in curve), sum(map(seconds_of, curve))))
    metric = settings.metric_name
    best, (scale, unit) = curves.best_truth(metric), (100, "points") if metric.endswith("accuracy") else (1, "nats")

    def regret(incumbent: Incumbent) -> float:
        return scale * abs(best - curves.truth(incumbent.trial.hyperparameters, incumbent.epoch, metric))

    last, (epochs, seconds) = [study[max(study)] for study in studies], np.mean(in_full, axis=0)
    print(
        f"{options.seeds} replayed studies, each with {counted(settings.num_samples, 'trial')} of "
        f"{counted(curves.epochs, 'epoch')}: sampler {settings.sampler}, {describe(settings)}, "
        f"{counted(options.workers, 'worker')}\n"
        f"The table has {len(curves.metrics) * len(curves.learning_rates)} configurations from "
        f"{counted(curves.seeds, 'seed')}; the best one has a mean {metric} of {best:.4f}\n\n"
        f"{'':16} {'mean':>9}   80 % of the studies\n"
        f"{_row(metric, [one.value for one in last], 4)}\n"
        f"{_row(f'regret, {unit}', [regret(one) for one in last], 2)}   by how much the choice is worse than the best\n"
        f"{_row('epochs', [one.epochs_run for one in last], 0, epochs)}\n"
        f"{_row('CPU seconds', [one.seconds_used for one in last], 1, seconds)}\n"
        f"{_row('wall seconds', [one.clock for one in last], 1)}\n\n"
        f"Means after this number of trials\n{'trials':>8}  {metric:>13}  {'regret':>6}  CPU seconds"
    )
    for ended in reported_numbers(settings.num_samples):
        present = [study[ended] for study in studies if ended in study]
        value, loss = np.mean([one.value for one in present]), np.mean([regret(one) for one in present])
        print(f"{ended:>8}  {value:>13.4f}  {loss:>6.2f}  {np.mean([one.seconds_used for one in present]):>11.1f}")


def reported_numbers(trials: int) -> list[int]:
    """The numbers of ended trials for which the incumbent is printed: every fifth, and the last."""
    return [*range(5, trials, 5), trials]


def _row(name: str, values: Sequence[float], digits: int, in_full: float | None = None) -> str:
    low, high = np.percentile(values, [10, 90])
    row = f"  {name:<14} {np.mean(values):>9.{digits}f}   {low:.{digits}f} to {high:.{digits}f}"
    return row if in_full is None else f"{row}   {np.mean(values) / in_full:.0%} of the same trials in full"
