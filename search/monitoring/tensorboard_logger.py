"""Shows a study in TensorBoard: a run for each trial, and a row for it in the table of hyperparameters."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import hparams

from search.monitoring.logger import best_epoch, best_name, metric_values
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord

END_TAG = "_hparams_/session_end_info"
"""Tag of the event that marks the end of a run in TensorBoard's table of hyperparameters."""


class TensorBoardLog:
    """Writes the event files of a study, in `tensorboard/trial-0007/` for trial 7."""

    def __init__(self, record: StudyRecord) -> None:
        self._record = record
        self._folder = record.folder / "tensorboard"
        self._runs: dict[int, _Run] = {}

    def epoch(self, trial: TrialRecord) -> None:
        """Write the new epochs of a trial."""
        run = self._run(trial)
        for metrics in trial.epochs:
            if metrics.epoch not in run.epochs:
                run.write(_scalars(metric_values(self._record, metrics)), metrics.epoch)
                run.epochs.add(metrics.epoch)
        run.flush()

    def ended(self, trial: TrialRecord) -> None:
        """Write the row of a trial in the table of hyperparameters, with its best value if its metrics are valid."""
        if not self._run(trial).has_ended:
            self.epoch(trial)
            self._write_row(self._run(trial), trial)
        self._runs.pop(trial.number).close()

    def close(self) -> None:
        """Close the files; a trial that was interrupted gets its row when it ends."""
        for run in self._runs.values():
            run.close()

    def _run(self, trial: TrialRecord) -> "_Run":
        if trial.number not in self._runs:
            if self._folder.is_symlink():
                self._folder.unlink()  # a link in a folder that was sent leads nowhere
            self._runs[trial.number] = _Run(self._folder / f"trial-{trial.number:04}")
        return self._runs[trial.number]

    def _write_row(self, run: "_Run", trial: TrialRecord) -> None:
        name = best_name(self._record)
        if best := best_epoch(trial):
            run.write(_scalars({name: self._record.objective.value(best)}), best.epoch)
        # TensorBoard takes the columns from any trial, so each trial names them, also without a value
        table, row, _ = hparams(dict(trial.hyperparameters), {name: None})
        run.write(table)
        run.write(row)
        run.write(_session_end("STATUS_FAILURE" if trial.status in FAILED else "STATUS_SUCCESS"))


class _Run:
    """The folder of one trial; each session of the study that writes into it creates a new file.

    The writer of tensorboardX is not used: its thread dies when the disk is full, and then it waits for the thread for
    ever.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        files = sorted(folder.glob("events.out.tfevents.*"))
        self._file = folder / f"events.out.tfevents.{len(files):04}"  # TensorBoard reads them in this order
        self._stream: BinaryIO | None = None
        self.epochs: set[int] = set()
        """Epochs that are written."""
        self.has_ended = False
        for event in (event for file in files for event in _read(file)):
            tags = {value.tag for value in event.summary.value}
            self.has_ended |= END_TAG in tags
            if "seconds" in tags:
                self.epochs.add(event.step)

    def write(self, summary: Summary, step: int = 0) -> None:
        stream = self._stream or self._begin()
        stream.write(_framed(Event(wall_time=time.time(), step=step, summary=summary)))

    def flush(self) -> None:
        if self._stream:
            self._stream.flush()

    def close(self) -> None:
        if self._stream:
            self._stream.close()

    def _begin(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stream = self._file.open("xb")
        self._stream.write(_framed(Event(wall_time=time.time(), file_version="brain.Event:2")))
        return self._stream


def _framed(event: Event) -> bytes:
    """Encode an event for a file: its length, the event, and a checksum after each."""
    content: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in (length, content))


def _read(file: Path) -> Iterator[Event]:
    """Read the events of a file, up to an event that a killed process did not write to its end."""
    content, position = file.read_bytes(), 0
    while position + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        end = position + 12 + length
        if end + 4 > len(content):
            return
        yield Event.FromString(content[position + 12 : end])
        position = end + 4


def _scalars(values: dict[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _session_end(status: str) -> Summary:
    """Build the event that ends a run, as tensorboardX does, but with a status that may be a failure."""
    end = SessionEndInfo(status=Status.Value(status), end_time_secs=time.time())
    content = HParamsPluginData(session_end_info=end, version=0).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    return Summary(value=[Summary.Value(tag=END_TAG, metadata=SummaryMetadata(plugin_data=plugin))])
