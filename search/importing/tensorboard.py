"""Reads a study from a folder of TensorBoard: runs with hyperparameters, and the scalars that they logged."""

import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.proto.types_pb2 import DataType
from tensorboardX.record_writer import masked_crc32c

from search.importing.foreign_study import LARGEST_FILE, MOST_TRIALS, MOST_VALUES, ForeignStudy, ForeignTrial
from search.record.trial import Status as TrialStatus

EVENTS = ".tfevents."
DEEPEST = 6
"""Folders of runs lie at most so deep."""
_FORMATS = {DataType.DT_FLOAT: "<f", DataType.DT_DOUBLE: "<d"}


@dataclass
class _Run:
    """What the event files of one folder hold."""

    hyperparameters: dict[str, Any] | None = None
    status: TrialStatus = "interrupted"
    began: float = 0.0
    ended: float = 0.0
    scalars: dict[str, dict[float, float]] = field(default_factory=lambda: defaultdict(dict))
    """Values by tag and step."""


def has_events(folder: Path) -> bool:
    """Whether a folder holds files of TensorBoard."""
    return any(True for _ in _event_files(folder))


def read_runs(folder: Path) -> ForeignStudy:
    """Read the runs in a folder; a ValueError says that none has hyperparameters, or which file is damaged."""
    runs: dict[Path, _Run] = defaultdict(_Run)
    values = 0
    for file in sorted(_event_files(folder)):
        for event in _read(file):
            values += _take(runs[file.parent], event)
        if values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values, which are too many to import")
    with_table = {path: run for path, run in runs.items() if run.hyperparameters is not None}
    if not with_table:
        raise ValueError("none of its runs has hyperparameters (add_hparams), so the trials cannot be told apart")
    if len(with_table) > MOST_TRIALS:
        raise ValueError(f"it has {len(with_table):,} trials, and at most {MOST_TRIALS:,} are imported")
    parents = [path.parent for path in with_table]
    trials = []
    for path, run in with_table.items():
        # add_hparams of PyTorch makes a folder for the table, beside the scalars of the run
        outer = runs[path.parent] if path.parent in runs and parents.count(path.parent) == 1 else None
        is_apart = outer is not None and outer.hyperparameters is None
        label = str((path.parent if is_apart else path).relative_to(folder))
        trials.append(_trial(label, run, outer if is_apart else None))
    return ForeignStudy(
        program="TensorBoard",
        name=folder.resolve().name,
        trials=trials,
        counted="last",
        remarks=["A trial counts with its last value, as in TensorBoard's table."],
    )


def _trial(label: str, run: _Run, outer: _Run | None) -> ForeignTrial:
    trial = ForeignTrial(label=label, status=run.status, hyperparameters=run.hyperparameters or {})
    for tag, curve in run.scalars.items():
        if outer is not None or len(curve) == 1:
            trial.values[tag] = curve[max(curve)]
        else:
            _add_curve(trial, tag, curve)
    for tag, curve in (outer.scalars if outer else {}).items():
        trial.values.pop(tag, None)
        _add_curve(trial, tag, curve)
    if 0 < run.began <= run.ended:
        trial.seconds = run.ended - run.began
    return trial


def _add_curve(trial: ForeignTrial, tag: str, curve: dict[float, float]) -> None:
    for step, value in curve.items():
        trial.steps.setdefault(step, {})[tag] = value


def _event_files(folder: Path) -> Iterator[Path]:
    base = len(folder.parts)
    for path, folders, files in os.walk(folder):
        yield from (Path(path, name) for name in files if EVENTS in name and Path(path, name).is_file())
        if len(Path(path).parts) - base >= DEEPEST:
            folders.clear()


def _read(file: Path) -> Iterator[Any]:
    """The events of a file, up to one that a killed process did not write to its end."""
    if file.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{file.name} has more than {LARGEST_FILE >> 20} MiB")
    content, position = file.read_bytes(), 0
    while position + 12 <= len(content):
        header = content[position : position + 8]
        (length,), (checksum,) = struct.unpack("<Q", header), struct.unpack_from("<I", content, position + 8)
        if masked_crc32c(header) != checksum:
            raise ValueError(f"{file.name} is damaged: a checksum is wrong")
        end = position + 12 + length
        if end + 4 > len(content):
            return
        try:
            yield Event.FromString(content[position + 12 : end])
        except DecodeError:
            raise ValueError(f"{file.name} is damaged: an event cannot be read") from None
        position = end + 4


def _take(run: _Run, event: Any) -> int:
    """Add an event to a run; returns the number of its scalars."""
    number = 0
    for value in event.summary.value:
        plugin = value.metadata.plugin_data
        if plugin.plugin_name == "hparams":
            _take_table(run, plugin.content)
        elif (scalar := _scalar(value)) is not None:
            run.scalars[value.tag][event.step] = scalar
            number += 1
    return number


def _take_table(run: _Run, content: bytes) -> None:
    """Add the hyperparameters or the end of a run."""
    try:
        data = HParamsPluginData.FromString(content)
    except DecodeError:
        raise ValueError("the hyperparameters of a run are damaged") from None
    if data.HasField("session_start_info"):
        start = data.session_start_info
        run.began = start.start_time_secs
        kinds = {"number_value", "string_value", "bool_value"}
        run.hyperparameters = {
            name: getattr(value, kind)
            for name, value in start.hparams.items()
            if (kind := value.WhichOneof("kind")) in kinds
        }
    elif data.HasField("session_end_info"):
        run.ended = data.session_end_info.end_time_secs
        succeeded = data.session_end_info.status == Status.Value("STATUS_SUCCESS")
        run.status = "completed" if succeeded else "failed"


def _scalar(value: Any) -> float | None:
    """The number of a summary, which TensorFlow 2 writes as a tensor; None if it is another one."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor") or value.metadata.plugin_data.plugin_name not in ("scalars", ""):
        return None
    tensor = value.tensor
    if numbers := [*tensor.float_val, *tensor.double_val]:
        return float(numbers[0])
    form = _FORMATS.get(tensor.dtype)
    if form is None or len(tensor.tensor_content) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, tensor.tensor_content)[0])
