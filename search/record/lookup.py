"""Finds a study that is to be resumed and merges its settings with the command line.

Nothing heavy is imported, unless the record is on a server.
"""

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from search.settings import StudySettings
from training.config import PROJECT, absolute_place, is_place
from training.console.command_line import option_value
from training.console.plain_data import check_fields, check_type

OF_ONE_START = {
    *("resume", "fork", "warm_start", "time_budget", "storage", "address", "confirm"),
    *("quiet", "dashboard_linger", "log", "mlflow_uri"),
    *("space", "set", "show_space"),  # what they came to is in the record
}
"""Settings of one start of a study, which the next one does not inherit."""
CHANGEABLE = OF_ONE_START | {
    *("num_samples", "max_concurrent", "cpus_per_trial", "gpus_per_trial", "dashboard"),
    *("max_failures", "trial_timeout", "data_dir", "results_dir"),
    "dataset",  # the checksum of the images tells whether they are the same
}
"""Settings that a resumed study may be given anew; all others are what makes its trials comparable."""
_PATHS = ("data_dir", "results_dir")


def find_study(study: str, results_dir: Path, server: str | None = None) -> Path:
    """The folder of a study, given by its path, by its name in the results folder, or as `latest`.

    With the address of a server, it need not be there: the name of the study is what counts.

    Raises:
        ValueError: There is no such study.
    """
    for folder in (results_dir / study, Path(study)):
        if (folder / "study.db").is_file():
            return folder.resolve()
    if server is not None:
        return (Path(study) if os.sep in study else results_dir / study).resolve()
    raise ValueError(
        f"there is no study {study}: neither {results_dir / study} nor {study} holds a study.db; "
        "for a record on a server add --storage"
    )


def stored_settings(folder: Path, server: str | None = None) -> StudySettings:
    """The settings under which a study was started, adjusted to where its folder is now.

    Args:
        folder: The study's folder.
        server: Address of the server that holds the record, unless there is a `study.db`.

    Raises:
        ValueError: The record is damaged or not a study of this project; or the server cannot be used.
    """
    file = folder / "study.db"
    if server is not None and not file.exists():
        from search.record.postgresql import settings_on_server  # optuna takes a second

        return _of_this_place(settings_on_server(server, folder.name), folder)
    try:
        # rw: what a killed process left half written is undone by the first who opens the file
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)) as database:
            query = "SELECT value_json FROM study_user_attributes WHERE key = 'settings'"
            stored = database.execute(query).fetchall()
        if len(stored) != 1:
            raise ValueError(f"it holds {len(stored)} studies")
        return _of_this_place(json.loads(stored[0][0]), folder)
    except (sqlite3.Error, ValueError, TypeError, OSError, RecursionError) as error:
        raise ValueError(f"{file} is not the record of a study: {error}") from None


def known_settings(stored: object) -> dict[str, Any]:
    """What a record holds of a study's settings, less what other versions of this project know.

    Raises:
        ValueError: A value has not the type of its field, or one is missing without which trials mean nothing.
    """
    known = {field.name for field in fields(StudySettings)} - OF_ONE_START
    values = check_type("settings", stored, dict[str, Any])
    values = check_fields(StudySettings, {name: values[name] for name in values if name in known})
    if not (values.get("dataset") and values.get("metric") and values.get("epochs", 0) > 0):
        raise ValueError("settings lack dataset, metric or epochs")
    return values


def with_total(words: list[str], trials_so_far: int) -> list[str]:
    """The command line with the total that `--num-samples +N` means.

    Raises:
        ValueError: What follows the plus sign is not a number.
    """
    wanted = option_value(words, "--num-samples")
    if wanted is None or not wanted.startswith("+"):
        return words
    if not wanted[1:].isdecimal():
        raise ValueError(f"--num-samples must be a number, or + and a number, got {wanted}")
    return [*words, f"--num-samples={trials_so_far + int(wanted)}"]  # the last of several counts


def check_same_study(stored: StudySettings, wanted: StudySettings) -> None:
    """Refuse settings that would make the new trials of a study differ from its old ones.

    Raises:
        ValueError: A setting differs; the message says which, and what to do.
    """
    before, now = asdict(stored), asdict(wanted)
    differences = [
        f"{name} {before[name]} (now {now[name]})"
        for name in before
        if name not in CHANGEABLE and before[name] != now[name]
    ]
    if differences:
        raise ValueError(not_comparable(f"the study was started with {', '.join(differences)}"))


def check_is_of_images(study: str, stored: StudySettings) -> None:
    """Refuse a study of a training function, for what needs its data and its seeds.

    Raises:
        ValueError: It is one.
    """
    if stored.train_function is not None:
        raise ValueError(f"study {study} is not about images: only {stored.train_function} knows its data and seeds")


def check_code_named(study: str, stored: StudySettings, named: Mapping[str, str | None]) -> None:
    """Refuse to run code that a record names, unless the command line names it again: a record may have been sent.

    Args:
        study: Its name.
        stored: Its settings.
        named: What the command line says, by option.

    Raises:
        ValueError: Something is not named, or another thing is.
    """
    for option, place in code_places(stored).items():
        given = named.get(option)
        if given is None:
            raise ValueError(
                f"study {study} runs the code of {place}: add {option} with the place of that function, since code is "
                "run only where you name it"
            )
        if absolute_place(given) != place:
            raise ValueError(f"study {study} was run with {option} {place}, not {given}")


def code_places(settings: StudySettings) -> dict[str, str]:
    """Options by which a study runs code of the user's own, and the places of that code."""
    places = {
        "--network": settings.network,
        "--dataset": settings.dataset,
        "--train-function": settings.train_function or "",
    }
    return {option: place for option, place in places.items() if is_place(place)}


def not_comparable(difference: str) -> str:
    """One sentence that refuses to go on with a study, and says what can be done instead."""
    return (
        f"{difference}, so its trials would not be comparable; resume it without that, or add --fork for a new study "
        "that takes them as evidence"
    )


def _of_this_place(stored: object, folder: Path) -> StudySettings:
    """Settings from a record, adjusted to where the study's folder is now."""
    values = known_settings(stored)
    paths = {name: PROJECT / values[name] for name in _PATHS if name in values}
    return StudySettings(**values | paths | {"results_dir": folder.parent, "resume": str(folder)})
