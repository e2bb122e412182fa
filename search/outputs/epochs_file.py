"""Writes `epochs.csv` again and again while a study runs: the rows of trials that have ended are made once."""

import os
from itertools import takewhile
from pathlib import Path

from search.outputs.tables import as_cell, epoch_columns, epoch_table
from search.record.study_record import StudyRecord
from training.atomic_file import replacing


class EpochsFile:
    """The table of all epochs of a study in a file, which is replaced in one step each time.

    A trial that has ended keeps its rows, so its text is copied from the last file as long as it is as it was written.
    The trials after the first one that may continue are written anew, because the rows are in the order of the trials.
    """

    def __init__(self, record: StudyRecord, file: Path) -> None:
        self._record = record
        self._file = file
        self._columns: list[str] = []
        self._kept_trials = self._kept_bytes = 0
        """The first trials, whose rows will not change, and the part of the file with them."""
        self._written: tuple[int, ...] | None = None
        """What tells the file that was written from others."""

    def write(self) -> None:
        """Write the table.

        Raises:
            OSError: The file cannot be written.
        """
        columns, trials = epoch_columns(self._record), self._record.trials
        if columns != self._columns or self._written is None or self._written != _identity(self._file):
            self._columns, self._kept_trials, self._kept_bytes = columns, 0, 0
        new = [*takewhile(lambda trial: not trial.may_continue, trials[self._kept_trials :])]
        others = trials[self._kept_trials + len(new) :]
        texts = [
            epoch_table(self._record, part)
            .rename(columns=as_cell)
            .to_csv(index=False, header=part is new and not self._kept_bytes)
            .encode()
            for part in (new, others)
        ]
        with replacing(self._file) as draft, draft.open("xb") as stream:
            kept = self._beginning(self._kept_bytes)
            for text in (kept, *texts):
                stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        self._kept_trials += len(new)
        self._kept_bytes += len(texts[0])
        self._written = _identity(self._file)

    def _beginning(self, size: int) -> bytes:
        if not size:
            return b""
        with self._file.open("rb") as before:
            return before.read(size)


def _identity(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
