"""Finds a study by its name, and reads the settings under which it was started.

Nothing heavy is imported, unless the record is on a server.
"""

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.record.file_names import STUDY_DB
from search.record.upgrade import upgrade_settings
from search.settings import StudySettings
from training.config import PROJECT, absolute_import_path, is_import_path
from training.console.command_line import option_value

OF_ONE_SESSION = {
    *("resume", "fork", "warm_start", "time_budget", "storage", "address", "confirm"),
    *("quiet", "dashboard_linger", "log", "mlflow_uri"),
    *("space", "set", "show_space"),  # the record holds the search space that they led to
}
"""Settings of one session of a study, which the next one does not inherit."""
CHANGEABLE = OF_ONE_SESSION | {
    *("num_samples", "max_concurrent", "cpus_per_trial", "gpus_per_trial", "dashboard"),
    *("max_failures", "trial_timeout", "data_dir", "results_dir"),
    "dataset",  # the checksum of the images tells whether they are the same
}
"""Settings that a resumed study may be given anew; all others are what makes its trials comparable."""


def find_study(study: str, results_dir: Path, server: str | None = None) -> Path:
    """The folder of a study, given by its path, by its name in the results folder, or as `latest`.

    With the address of a server, it need not be there: the name of the study is what counts.

    Raises:
        ValueError: There is no such study.
    """
    for folder in (results_dir / study, Path(study)):
        if (folder / STUDY_DB).is_file():
            return folder.resolve()
    if server is not None:
        return (Path(study) if os.sep in study else results_dir / study).resolve()
    raise ValueError(
        f"there is no study {study}: neither {results_dir / study} nor {study} holds a {STUDY_DB}; "
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
    from search.record.database import check_file, open_file  # optuna takes a second
    from search.record.postgresql import settings_on_server

    file = folder / STUDY_DB
    if server is not None and not file.exists():
        return settings_from_json(settings_on_server(server, folder.name), folder)
    try:
        check_file(file)
        with closing(open_file(file, new=False)) as database:
            (study,) = database.get_all_studies()
        return settings_from_json(study.user_attrs.get("settings"), folder)
    except Exception as error:  # whatever a damaged or foreign file does to sqlite and Optuna
        cause = getattr(error.__cause__ or error, "orig", error)
        raise ValueError(f"{file} is not the record of a study: {cause}") from None


def settings_to_json(settings: StudySettings) -> dict[str, Any]:
    """The settings as the record holds them: without those of one session, paths as seen from the project's folder."""
    values = asdict(settings) | {"metric": settings.metric_name}
    return {
        name: project_path(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name not in OF_ONE_SESSION
    }


def settings_from_json(stored: object, folder: Path) -> StudySettings:
    """The settings that a record holds, adjusted to where the study's folder is now.

    Raises:
        ValueError: They are not what a study writes.
    """
    from training.json_data import from_json  # pydantic takes a fifth of a second

    if not isinstance(stored, dict):
        raise ValueError("its settings are missing")
    here = {"data_dir": str(PROJECT / str(stored.get("data_dir"))), "results_dir": str(folder.parent)}
    settings = from_json(StudySettings, upgrade_settings(stored) | here | {"resume": str(folder)})
    if settings.dataset == "auto" and settings.train_function is None:
        raise ValueError("its settings do not name the data set")
    return settings


def project_path(path: Path) -> str:
    """A path as seen from the project's folder where it lies inside, otherwise the absolute path."""
    absolute = path.resolve()
    return str(absolute.relative_to(PROJECT) if absolute.is_relative_to(PROJECT) else absolute)


def study_args(folder: Path, address: str | None) -> list[str]:
    """The arguments by which a command line names a study: its name, or its path where that is not the usual one.

    Args:
        folder: The study's folder.
        address: The database server that holds its record, without a password; None if `study.db` does.
    """
    study = folder.name if folder.resolve().parent == PROJECT / "results" else str(folder)
    return [study, "--storage", address] if address else [study]


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
    for option, place in code_paths(stored).items():
        given = named.get(option)
        if given is None:
            raise ValueError(
                f"study {study} runs the code of {place}: add {option} with the place of that function, since code is "
                "run only where you name it"
            )
        if absolute_import_path(given) != place:
            raise ValueError(f"study {study} was run with {option} {place}, not {given}")


def code_paths(settings: StudySettings) -> dict[str, str]:
    """Options by which a study runs code of the user's own, and the places of that code."""
    places = {
        "--network": settings.network,
        "--dataset": settings.dataset,
        "--train-function": settings.train_function or "",
    }
    return {option: place for option, place in places.items() if is_import_path(place)}


def not_comparable(difference: str) -> str:
    """One sentence that refuses to go on with a study, and says what can be done instead."""
    return (
        f"{difference}, so its trials would not be comparable; resume it without that, or add --fork for a new study "
        "that takes them as evidence"
    )
