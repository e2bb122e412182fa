"""Measure how good the estimate of the remaining time is, in studies that are replayed on the recorded tables.

python benchmarks/time_left.py
python benchmarks/time_left.py --trials 20 100 --seeds 20

At each tenth of the time that a study takes, from the half on, the end that is predicted then is compared with the real
one. `before` is the estimate of earlier versions: the time of a trial on average, times the trials that are left.
"""

import argparse
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna

from search.monitoring.time_left import TimeLeft
from search.record.study_record import StudyRecord
from search.settings import SchedulerName, StudySettings
from search.simulation import simulator
from search.simulation.learning_curves import GridCurves, read_csv, read_grid
from search.space.toml_file import default_space

WORKERS = 2
TABLES = Path(__file__).with_name("tables")
PARTS = (0.5, 0.6, 0.7, 0.8, 0.9)


def estimates(curves: GridCurves, settings: StudySettings) -> Iterator[tuple[float, float | None, float | None]]:
    """Replay a study; yields the clock after each report, and the end as it is predicted now and as it was before."""
    records: list[StudyRecord] = []
    create = simulator.memory_record

    def remember(*arguments: object) -> StudyRecord:
        records.append(create(*arguments))  # type: ignore[arg-type]
        return records[0]

    simulator.memory_record = remember  # type: ignore[assignment]
    try:
        reports = simulator.replay_grid(curves, settings, default_space("mlp"), WORKERS)
    finally:
        simulator.memory_record = create
    (record,) = records
    now = TimeLeft(record)
    for report in reports:
        left, left_before = now.seconds(report.clock, WORKERS), before(record, report.clock)
        yield (
            report.clock,
            None if left is None else report.clock + left,
            None if left_before is None else report.clock + left_before,
        )


def before(record: StudyRecord, elapsed: float) -> float | None:
    """The remaining seconds by the time of a trial on average."""
    ended = record.standings.num_ended
    if ended == 0:
        return None
    running = [trial for trial in record.standings.may_continue() if trial.status == "running"]
    partial = sum(min(1.0, len(trial.epochs) / record.epochs) for trial in running)
    return max(0.0, elapsed / (ended + partial) * (record.num_samples - ended - partial))


def errors(curves: GridCurves, settings: StudySettings) -> dict[float, tuple[float, float]]:
    """Predicted over real end minus one at each part of a study's time: now, and before."""
    seen = list(estimates(curves, settings))
    end = seen[-1][0]
    result = {}
    for part in PARTS:
        clock, now, earlier = max((one for one in seen if one[0] <= part * end), key=lambda one: one[0])
        assert now is not None
        assert earlier is not None, f"a trial has ended by {clock}"
        result[part] = now / end - 1, earlier / end - 1
    return result


def main() -> None:
    """Replay all studies, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="*", default=[20, 50, 100])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--schedulers", nargs="*", default=["asha", "promotion", "none"])
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    print("share of studies whose predicted end is within 20 % of the real one, and median of the error (before | now)")
    print(f"{'table':14} {'scheduler':10} {'trials':>6}" + "".join(f"{f'at {part:.0%}':>26}" for part in PARTS))
    for name in ("fashion-mnist", "digits"):
        file = TABLES / f"{name}.csv.gz"
        curves = read_grid(file, read_csv(file))
        for scheduler in options.schedulers:
            for trials in options.trials:
                found: dict[float, list[tuple[float, float]]] = defaultdict(list)
                for seed in range(options.seeds):
                    one = settings(scheduler, trials, seed, curves.epochs)
                    for part, error in errors(curves, one).items():
                        found[part].append(error)
                cells = []
                for part in PARTS:
                    of_now, of_before = np.abs(np.array(found[part])).T
                    within = f"{np.mean(of_before <= 0.2):.0%} | {np.mean(of_now <= 0.2):.0%}"
                    cells.append(f"{within}, {np.median(of_before):.0%} | {np.median(of_now):.0%}")
                print(f"{name:14} {scheduler:10} {trials:6}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


def settings(scheduler: SchedulerName, trials: int, seed: int, epochs: int) -> StudySettings:
    """The settings of a study with TPE."""
    return StudySettings(
        dataset="digits", sampler="tpe", scheduler=scheduler, num_samples=trials, seed=1000 * seed, epochs=epochs
    )


if __name__ == "__main__":
    main()
