"""Reads a study of another program: finds out what a source is, and calls its reader."""

import re
from dataclasses import dataclass
from pathlib import Path

from search.importing.foreign_study import ForeignStudy

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What a reader may need to know besides the source."""

    study: str | None = None
    """The name of the study in a source with several."""
    metric: str | None = None
    parameters: tuple[str, ...] = ()
    """The columns of a table that are hyperparameters."""


def read_source(source: str, options: SourceOptions) -> tuple[ForeignStudy, Path]:
    """Read a study, and return it with the path of its source; nothing of the source is run or unpickled.

    Raises:
        ValueError: The source cannot be read; the sentence says why.
        OSError: It cannot be read.
    """
    if re.match(r"[a-z0-9+]+://", source) and not source.startswith("sqlite"):
        from search.importing.optuna_server import read_server

        return read_server(source, options.study, options.metric), Path("server")
    path = Path(re.sub(r"^sqlite(\+\w+)?:///", "", source))
    try:
        return _read_path(path, options), path
    except ValueError as error:
        raise ValueError(f"{path} cannot be imported: {error}") from None


def _read_path(path: Path, options: SourceOptions) -> ForeignStudy:
    if not path.exists():
        raise ValueError("there is no such file or folder")
    return _read_folder(path) if path.is_dir() else _read_file(path, options)


def _read_folder(path: Path) -> ForeignStudy:
    from search.importing import ray_tune, tensorboard

    if ray_tune.is_experiment(path):  # first, because Ray Tune also writes files for TensorBoard
        return ray_tune.read_experiment(path)
    if tensorboard.has_events(path):
        return tensorboard.read_runs(path)
    raise ValueError("the folder has neither trials of Ray Tune (params.json) nor files of TensorBoard")


def _read_file(path: Path, options: SourceOptions) -> ForeignStudy:
    from search.importing import optuna_storage
    from search.importing.table import read_table

    if not path.is_file():
        raise ValueError("it is neither a file nor a folder")
    if optuna_storage.is_sqlite(path):
        return optuna_storage.read_file(path, options.study, options.metric)
    with path.open("rb") as stream:
        start = stream.read(64)
    if path.suffix.lower() in PICKLES or re.match(rb"\x80[\x02-\x05]", start):
        raise ValueError("it may be a pickle, which could run code when it is read; export the trials as a table (CSV)")
    if re.match(rb'\s*\{"op_code"', start):
        raise ValueError("it is a journal of Optuna; copy the study into a file of sqlite with optuna.copy_study")
    if re.match(rb"\s*[{\[]", start):
        raise ValueError("it is a file of JSON; a table (CSV) or the folder of the experiment can be imported")
    return read_table(path, options.parameters, options.metric)
