"""Writes the files of a study that derive from its record: tables, study.json and the texts of errors."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from search.analysis.time_accounting import time_accounting, wall_seconds
from search.outputs.confirmation_text import confirmation_table
from search.outputs.epochs_file import EpochsFile
from search.outputs.tables import as_cell, trial_table
from search.record.file_names import CONFIRM_CSV, EPOCHS_CSV, ERRORS, STUDY_JSON, TRIALS_CSV
from search.record.lookup import shown_settings
from search.record.ranking import baseline_trial, best_trial
from search.record.study_record import StudyRecord
from training.atomic_file import write_atomically
from training.console.terminal import printable_lines, show_event
from training.typed_command import command_name

SHARE_OF_TIME = 0.02
"""Part of the time that writing may take while trials run: a long study writes its files only every few seconds."""


class StudyFiles:
    """Writes the files of one study, each in one step, so that a reader finds a complete file at any time.

    The files only repeat the record: if they cannot be written, this is printed once, and the study goes on.
    """

    def __init__(self, record: StudyRecord) -> None:
        self._record = record
        self._epochs = EpochsFile(record, record.folder / EPOCHS_CSV)
        self._next_writing = 0.0
        self._has_failed = False

    def refresh(self, *, force: bool = False) -> None:
        """Write the files, unless they were written a moment ago and writing them again would take too much time.

        Args:
            force: Write the files in any case.
        """
        started = time.monotonic()
        if started < self._next_writing and not force:
            return
        try:
            self.write()
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                command = command_name("search/report.py")
                show_event(f"the tables cannot be written ({error.strerror}); {command} can write them later")
            self._has_failed = True
        ended = time.monotonic()
        self._next_writing = ended + (ended - started) / SHARE_OF_TIME

    def write(self) -> None:
        """Write the tables, `study.json` and the texts of errors into the study's folder.

        Raises:
            OSError: A file cannot be written.
        """
        record, folder = self._record, self._record.folder
        write_atomically(folder / TRIALS_CSV, trial_table(record).rename(columns=as_cell).to_csv(index=False))
        self._epochs.write()
        write_atomically(folder / STUDY_JSON, json.dumps(_study_json(record), indent=2) + "\n")
        if confirmation := record.metadata.confirmation:
            write_atomically(folder / CONFIRM_CSV, confirmation_table(record, confirmation).to_csv(index=False))
        self._write_errors(folder / ERRORS)

    def _write_errors(self, folder: Path) -> None:
        for trial in self._record.trials:
            file = folder / f"trial-{trial.number:04}.txt"
            if trial.failure and trial.failure.traceback and not file.exists():
                folder.mkdir(exist_ok=True)
                write_atomically(file, printable_lines(trial.failure.traceback))


def _study_json(record: StudyRecord) -> dict[str, Any]:
    best = best_trial(record.trials)
    has_baseline = baseline_trial(record.trials) is not None
    settings = shown_settings(record.metadata.settings, has_baseline=has_baseline)
    values = record.metadata.to_json() | {"settings": settings}
    values |= {"seconds": wall_seconds(record), "time": time_accounting(record)}
    return {
        "name": record.folder.name,
        **dict(sorted(values.items())),
        "trials": dict(Counter(trial.status for trial in record.trials)),
        "best_trial": best.number if best else None,
    }
