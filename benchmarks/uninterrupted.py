"""The trials of killed studies, trained once more in a study that nobody kills; their numbers must be equal."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from begun_epochs import configuration
from killed_study import StudySize, Tool, environment, words
from observed_function import EPOCH_SECONDS

from search.record.study_record import StudyRecord
from search.task.custom_metrics import metric_value

Numbers: TypeAlias = list[list[float | None]]
"""All metrics of each epoch."""


def train_again(tool: Tool, killed: list[Path], size: StudySize) -> Path:
    """Train the trials of killed studies again, from the same seeds.

    Args:
        tool: What ran the studies.
        killed: Their folders.
        size: How many of the trainings run at the same time.

    Returns:
        The folder of the new study, which is beside the first one.

    Raises:
        CalledProcessError: The new study failed; what it printed is in a file beside its folder.
    """
    folder = killed[0].with_name("uninterrupted")
    _queue_again(killed, folder)
    with folder.with_suffix(".log").open("w") as log:
        subprocess.run(
            words(tool, folder, size, seed=0, retries=0),
            stdout=log,
            stderr=log,
            env=environment(tool.notes(folder)) | {EPOCH_SECONDS: "0"},
            check=True,
        )
    return folder


def count_different(killed: list[Path], uninterrupted: Path) -> int:
    """Count the trials whose metrics are not the same in every epoch, to the last digit, as when nobody killed them."""
    others = _numbers(uninterrupted)
    return sum(others.get(trial) != epochs for study in killed for trial, epochs in _numbers(study).items())


def _queue_again(killed: list[Path], folder: Path) -> None:
    """Make a study in which the trials of others wait, with their seeds, for their first epoch."""
    records = [StudyRecord.open(study) for study in killed]
    trials = [trial for record in records for trial in record.trials]
    metadata = records[0].metadata
    settings = replace(metadata.settings, num_samples=len(trials), name=folder.name)

    def fill(record: StudyRecord) -> None:
        for trial in trials:
            record.enqueue(trial.hyperparameters, trial.seed)

    folder.mkdir()
    StudyRecord.create(folder, replace(metadata, settings=settings, sessions=[]), fill=fill).close()
    for record in records:
        record.close()


def _numbers(study: Path) -> dict[tuple[str, int], Numbers]:
    """The metrics of the trials that have ended, by configuration and seed."""
    record = StudyRecord.open(study)
    names = record.metadata.task.metric_names
    record.close()
    return {
        (configuration(trial.hyperparameters), trial.seed): [
            [metric_value(metrics, name) for name in names] for metrics in trial.epochs
        ]
        for trial in record.trials
        if trial.has_ended
    }
