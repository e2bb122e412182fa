"""Measure what a search costs besides training: driver time per trial, along a study of trials that train nothing."""

import argparse
import itertools
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray import tune

from search import provenance, tuning
from search.record import StudyRecord
from search.settings import StudySettings
from search.study import prepare_study, run_study
from search.trial_record import TrialRecord


def trains_nothing(sample: dict[str, Any], *, epochs: int, **_: Any) -> None:
    """Report made-up metrics that depend on the learning rate, at once."""
    accuracy = 1 / (1 + abs(sample["learning_rate"] - 0.01))
    for epoch in range(1, epochs + 1):
        metrics = {"train_loss": 1.0, "val_accuracy": accuracy - 0.1 / epoch, "val_loss": 1.0}
        seconds = {"seconds": 0.0, "evaluation_seconds": 0.0, "waiting_seconds": 0.0}
        tune.report({"epoch": epoch, **metrics, "test_accuracy": 0.5, "test_loss": 1.0, **seconds})


def now() -> tuple[float, float, float]:
    """Seconds of the wall clock, seconds of this process's CPU, and the most memory it has had, in MB."""
    return time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def note_ends(ends: list[tuple[float, float, float]]) -> None:
    """From now on, note the driver's time and memory each time a trial ends."""
    finish = StudyRecord.finish

    def finish_and_note(record: StudyRecord, trial_id: str, *, interrupted: bool = False) -> TrialRecord:
        trial = finish(record, trial_id, interrupted=interrupted)
        ends.append(now())
        return trial

    StudyRecord.finish = finish_and_note  # type: ignore[method-assign, assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="rows of the table")
    options = parser.parse_args()
    ends: list[tuple[float, float, float]] = []
    note_ends(ends)
    tuning.__dict__["trainable"] = trains_nothing
    with TemporaryDirectory() as folder:
        study = prepare_study(
            StudySettings(
                dataset="digits",
                num_samples=options.trials,
                epochs=options.epochs,
                scheduler="none",
                dashboard=False,
                results_dir=Path(folder),
            )
        )
        run_study(study)
    print(f"\n{provenance.command()}\n{provenance.machine()}\n{provenance.versions()}")
    print("\n trials  ms of wall  ms of the driver's CPU  MB of the driver")
    marks = [round(1 + step * (options.trials - 1) / options.steps) for step in range(options.steps + 1)]
    for start, stop in itertools.pairwise(marks):
        (wall, cpu, _), (wall_after, cpu_after, megabytes) = ends[start - 1], ends[stop - 1]
        wall, cpu = (1000 * seconds / (stop - start) for seconds in (wall_after - wall, cpu_after - cpu))
        print(f"{stop:>7}  {wall:>10.1f}  {cpu:>22.1f}  {megabytes:>16.0f}")


if __name__ == "__main__":
    main()
