"""The files of a study that derive from its record: tables, study.json and error texts, each written in one step."""

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from search.analysis.time_accounting import time_ledger, wall_seconds
from search.monitoring.terminal import show_event
from search.outputs.confirmation_text import TABLE, confirmation_of, confirmation_table
from search.outputs.tables import epoch_table, trial_table
from search.record.study_record import StudyRecord
from search.space.search_space import SearchSpace
from training.console.terminal import printable_lines

SHARE_OF_TIME = 0.02
"""Part of the time that writing may take while trials run: in a long study a few seconds pass between two writings."""


class StudyFiles:
    """Writes the files of one study; a reader finds whole ones at any time.

    They only repeat what the record holds: where they cannot be written, that is said, and the study goes on.
    """

    def __init__(self, record: StudyRecord, space: SearchSpace) -> None:
        self._record = record
        self._space = space
        self._next_writing = 0.0
        self._in_trouble = False

    def keep_up(self, *, at_once: bool = False) -> None:
        """Write the files, unless that was done so lately that it would take too large a part of the time.

        Args:
            at_once: However lately.
        """
        started = time.monotonic()
        if started < self._next_writing and not at_once:
            return
        try:
            self.write()
            self._in_trouble = False
        except OSError as error:
            if not self._in_trouble:
                show_event(f"the tables cannot be written ({error.strerror}); search/report.py makes them later")
            self._in_trouble = True
        ended = time.monotonic()
        self._next_writing = ended + (ended - started) / SHARE_OF_TIME

    def write(self) -> None:
        """Write `trials.csv`, `epochs.csv`, `study.json`, texts of errors and perhaps `confirm.csv` into its folder.

        Raises:
            OSError: They cannot be written.
        """
        folder = self._record.folder
        write_atomically(folder / "trials.csv", trial_table(self._record, self._space).to_csv(index=False))
        write_atomically(folder / "epochs.csv", epoch_table(self._record).to_csv(index=False))
        write_atomically(folder / "study.json", json.dumps(_summary(self._record), indent=2) + "\n")
        if confirmation := confirmation_of(self._record):
            table = confirmation_table(confirmation, self._space)
            write_atomically(folder / TABLE, table.to_csv(index=False))
        self._write_errors(folder / "errors")

    def _write_errors(self, folder: Path) -> None:
        for trial in self._record.trials:
            file = folder / f"trial-{trial.number:04}.txt"
            if trial.failure and trial.failure.traceback and not file.exists():
                folder.mkdir(exist_ok=True)
                write_atomically(file, printable_lines(trial.failure.traceback))


def _summary(record: StudyRecord) -> dict[str, Any]:
    best, facts = record.best(), record.facts | {"seconds": wall_seconds(record), "time": time_ledger(record)}
    return {
        "name": record.folder.name,
        **dict(sorted(facts.items())),  # in one order, whether just made or read back
        "trials": dict(Counter(trial.status for trial in record.trials)),
        "best_trial": best.number if best else None,
    }


def write_atomically(file: Path, content: str | bytes) -> None:
    """Put a text, or bytes, into a file in one step: a reader sees the old file or the new one, never a part."""
    draft = file.with_name(f".{file.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        with draft.open("xb") as stream:  # x: a link in a folder that was sent leads nowhere
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)  # a part of it would only fill the disk
        raise
