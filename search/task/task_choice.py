"""Chooses the task of a study by its settings: the only place that asks which kind of training it is."""

from search.task.image_task import ImageTask
from search.task.imported_task import ImportedTask
from search.task.own_task import FunctionTask, ProgramTask
from search.task.task import Task


def choose_task(
    *,
    network: str,
    dataset: str,
    train_function: str | None,
    command: str | None,
    imported: str | None,
    parse: str | None,
    metric: str,
    epochs: int | None,
) -> Task:
    """The task of a study with these settings, each of which is a field of `StudySettings`.

    A ValueError says that they name two trainings, or how to read an output that there is not.
    """
    if imported is not None:
        return ImportedTask(program=imported, metric=metric, epochs=epochs)
    if train_function is not None and command is not None:
        raise ValueError("train_function and command exclude each other: a trial has one training")
    if command is not None:
        return ProgramTask(command=command, parse=parse, metric=metric, epochs=epochs)
    if parse is not None:
        raise ValueError("parse reads the output of a command, so it needs command")
    if train_function is not None:
        return FunctionTask(path=train_function, metric=metric, epochs=epochs)
    return ImageTask(network_name=network, dataset=dataset, metric=metric, epochs=epochs)
