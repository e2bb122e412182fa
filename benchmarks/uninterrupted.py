"""The trials of a killed study, trained once more in a study that nobody kills; their numbers must be equal."""

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


def train_again(tool: Tool, killed: Path, size: StudySize) -> Path:
    """Train the trials of a killed study again, from the same seeds and, if they have images, with the same split.

    Args:
        tool: What ran the study.
        killed: Its folder.
        size: How many of the trainings run at the same time.

    Returns:
        The folder of the new study, which is beside the other one.

    Raises:
        CalledProcessError: The new study failed; what it printed is in a file beside its folder.
    """
    folder = killed.with_name(f"{killed.name}-uninterrupted")
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


def count_different(killed: Path, uninterrupted: Path) -> int:
    """Count the trials whose metrics are not the same in every epoch, to the last digit, as when nobody killed them."""
    others = _numbers(uninterrupted)
    return sum(others.get(trial) != epochs for trial, epochs in _numbers(killed).items())


def _queue_again(killed: Path, folder: Path) -> None:
    """Make a study in which the trials of another one wait, with their seeds, for their first epoch."""
    record = StudyRecord.open(killed)
    record.close()  # the whole record is in memory
    settings = replace(record.metadata.settings, name=folder.name)

    def fill(new: StudyRecord) -> None:
        for trial in record.trials:
            new.enqueue(trial.hyperparameters, trial.seed)

    folder.mkdir()
    StudyRecord.create(folder, replace(record.metadata, settings=settings, sessions=[]), fill=fill).close()


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
