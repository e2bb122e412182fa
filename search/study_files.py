"""The files of a study that derive from its record: tables, study.json and error texts, each written in one step."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from search.record import StudyRecord
from search.space import SearchSpace
from search.trial_table import epoch_table, trial_table


def write_tables(record: StudyRecord, space: SearchSpace) -> None:
    """Write `trials.csv`, `epochs.csv` and the texts of errors into the study's folder.

    A reader finds whole files at any time.
    """
    write_atomically(record.folder / "trials.csv", trial_table(record, space).to_csv(index=False))
    write_atomically(record.folder / "epochs.csv", epoch_table(record).to_csv(index=False))
    for trial in record.trials:
        file = record.folder / "errors" / f"trial-{trial.number:04}.txt"
        if trial.failure and trial.failure.traceback and not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, trial.failure.traceback)


def write_study_json(record: StudyRecord) -> None:
    """Write `study.json`: everything that is true of the study as a whole."""
    best = record.best()
    settings = dict(record.facts["settings"])
    del settings["resume"]
    summary: dict[str, Any] = {
        "name": record.folder.name,
        "settings": settings,
        "space": record.facts["space"],
        "dataset": record.facts["dataset"],
        "seconds": record.facts.get("seconds"),
        "trials": dict(Counter(trial.status for trial in record.trials)),
        "best_trial": best.number if best else None,
        "starts": record.facts["starts"],
    }
    write_atomically(record.folder / "study.json", json.dumps(summary, indent=2) + "\n")


def write_atomically(file: Path, text: str) -> None:
    """Put a text into a file in one step: a reader sees the old file or the new one, never a part."""
    draft = file.with_name(f".{file.name}.draft")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
