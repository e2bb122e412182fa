"""Finds a study by its name, reads its settings, and says which of them a later session may change."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from search.record.file_names import STUDY_DB
from search.record.upgrade import upgrade_settings
from search.settings import StudySettings, refuse_address
from search.task.command_template import is_same_command
from training.config import (
    IS_INSTALLED,
    PROJECT,
    absolute_import_path,
    base_folder,
    is_import_path,
    is_passed_function,
)
from training.console.command_line import mask_password, option_value
from training.console.terminal import short_path
from training.typed_command import command_line

COMMAND = "--command"
NOT_STORED = {
    "--network": "its network is not stored: only a program that defines the network",
    "--dataset": "its images are not stored: only a program that has the images",
    "--train-function": "its training function is not stored: only a program that defines the function",
}
"""Why code of a Python program cannot be found by the record, by option."""
SESSION_SETTINGS = {
    *("resume", "resume_existing", "fork", "warm_start", "time_budget", "storage", "address", "node_label"),
    "confirm",
    *("quiet", "json", "dashboard_linger", "open_dashboard", "log", "mlflow_uri", "accept_changes"),
    *("space", "set", "show_space"),  # the record stores the resulting search space
}
"""Settings of one session of a study; the next session does not inherit them."""
CHANGEABLE = SESSION_SETTINGS | {
    *("num_samples", "max_concurrent", "cpus_per_trial", "gpus_per_trial", "dashboard"),
    *("memory_per_trial", "max_failures", "trial_timeout", "data_dir", "results_dir", "checkpoints_dir"),
    "prior",
    "dataset",  # the checksum of the images shows whether they are the same
}
"""Settings that may change when a study is resumed; all others make its trials comparable."""
IMAGE_SETTINGS = ("dataset", "data_dir", "image_size", "val_fraction", "network")
"""Settings that have an effect only on images."""


def find_study(study: str, results_dir: Path, server: str | None = None) -> Path:
    """The folder of a study.

    Args:
        study: Path of the folder, its name in the results folder, or `latest`.
        results_dir: The results folder.
        server: Address of the server that may hold the record; then the folder need not exist.

    Raises:
        ValueError: There is no such study.
    """
    refuse_address(results_dir)
    folders = dict.fromkeys((results_dir / study, Path(study)))
    for folder in folders:
        if (folder / STUDY_DB).is_file():
            return folder.resolve()
    if server is not None:
        return (Path(study) if os.sep in study else results_dir / study).resolve()
    raise ValueError(
        f"there is no study {study}: no {STUDY_DB} is in {' or '.join(map(str, folders))}; "
        "if its record is on a server, add --storage"
    )


def study_to_continue(resume: str | None, name: str | None, results_dir: Path, *, resume_existing: bool) -> str | None:
    """The study with which a session goes on, or None if it begins one.

    Args:
        resume: The study that was named to be continued.
        name: The name of the study.
        results_dir: The results folder.
        resume_existing: Whether a study of this name is continued if there is one.
    """
    if resume is None and name and resume_existing and (results_dir / name).exists():
        return name
    return resume


def stored_settings(folder: Path, server: str | None = None) -> StudySettings:
    """The settings under which a study was started, adjusted to where its folder is now.

    `server` is the address of the server that has the record, unless there is a `study.db`. A ValueError says that the
    record is damaged, not one of this project, or on a server that cannot be used.
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


def resumed_settings(study: str | Path, *, server: str | None = None, **changes: Any) -> StudySettings:
    """The settings that resume a study from Python: its own, but for the changes, as on the command line.

    Args:
        study: Path of its folder, its name in the results folder, or `latest`.
        server: Address of the server that has the record, unless there is a `study.db`.
        changes: Fields of `StudySettings`, for example `num_samples=40`. With `fork=True` the settings are those of a
            new study that starts from the trials of this one.

    Raises:
        ValueError: There is no such study, or a change would make its new trials differ from its old ones.
    """
    results_dir = changes.pop("results_dir", StudySettings().results_dir)
    stored = stored_settings(find_study(str(study), results_dir, server), server)
    if changes.get("fork"):
        others = replace(stored, warm_start=changes.pop("warm_start", ())).warm_start  # which checks them
        new = {"name": None, "resume": None, "warm_start": (stored.resume, *others), "results_dir": results_dir}
        return replace(stored, storage=server, **(new | changes))
    settings = replace(stored, storage=server, **changes)
    check_same_study(stored, settings)
    return settings


def settings_to_json(settings: StudySettings) -> dict[str, Any]:
    """The settings for the record: without those of one session, paths relative to the project's folder."""
    values = asdict(settings) | {"metric": settings.metric_name}
    return {
        name: project_path(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name not in SESSION_SETTINGS
    }


def shown_settings(settings: StudySettings, *, has_baseline: bool) -> dict[str, Any]:
    """The settings that matter for a study, as values for JSON: without those of images if it has none.

    Of a study that was imported, only what its source says is a setting.

    `has_baseline` says whether the study began with default values; a program, for example, has none.
    """
    values = settings_to_json(settings)
    if settings.task.imported_from is not None:
        return {name: values[name] for name in ("imported", "metric", "mode", "epochs")}
    del values["imported"]
    if settings.task.network is not None:
        return values
    without_effect = {*IMAGE_SETTINGS, *([] if has_baseline or not settings.baseline else ["baseline"])}
    return {name: value for name, value in values.items() if name not in without_effect}


def settings_from_json(stored: object, folder: Path) -> StudySettings:
    """The settings in a record, adjusted to the folder of the study; a ValueError refuses invalid ones."""
    from training.json_data import check_type, from_json  # pydantic takes a fifth of a second

    if not isinstance(stored, dict):
        raise ValueError("its settings are missing")
    data_dir = check_type("data_dir", stored.get("data_dir"), str)
    here = {"data_dir": str(base_folder() / data_dir), "results_dir": str(folder.parent)}
    settings = from_json(StudySettings, upgrade_settings(stored) | here | {"resume": str(folder)})
    if settings.metric is None:
        raise ValueError("its settings do not name the metric")
    settings.task.check_stored()
    return settings


def project_path(path: Path) -> str:
    """A path relative to the checkout if it lies inside, otherwise the absolute path."""
    absolute = path.resolve()
    is_inside = not IS_INSTALLED and absolute.is_relative_to(PROJECT)
    return str(absolute.relative_to(PROJECT) if is_inside else absolute)


def study_args(folder: Path, address: str | None) -> list[str]:
    """The arguments that name a study on a command line: its name, or its path outside of the usual results folder.

    `address` is that of the database server with its record, without a password; None if the record is `study.db`.
    """
    study = folder.name if folder.resolve().parent == base_folder() / "results" else str(short_path(folder))
    return [study, "--storage", address] if address else [study]


def resume_line(folder: Path, address: str | None, settings: StudySettings, **changes: Any) -> str:
    """The command line that resumes a study, or the call by a Python program that passed the function of the study.

    Args:
        folder: The folder of the study.
        address: As in `study_args`.
        settings: The settings of the study.
        changes: Settings of the new session, for example `fork=True`.
    """
    study, *storage = study_args(folder, address)
    if passed_paths(settings):
        positional, named = _passed_arguments(settings)
        named |= {"resume": repr(study)} | ({"storage": repr(address)} if address else {})
        return _call("run_search", positional, named | {name: repr(value) for name, value in changes.items()})
    args = ["--resume", study, *storage]
    for name, value in changes.items():
        values = value if isinstance(value, tuple) else () if value is True else (value,)
        args += [f"--{name.replace('_', '-')}", *map(str, values)]
    return command_line("search/run.py", *args, *code_args(settings))


def resume_command(folder: Path, address: str | None, settings: StudySettings) -> str:
    """The command line, or the call in Python, that resumes a study with the loggers of this session."""
    loggers: dict[str, object] = {"log": settings.log} if settings.log else {}
    if settings.mlflow_uri is not None:
        loggers["mlflow_uri"] = mask_password(settings.mlflow_uri)
    return resume_line(folder, address, settings, **loggers)


def confirm_line(folder: Path, address: str | None, settings: StudySettings, **size: int) -> str:
    """The command line that confirms a study, or the call by a Python program; `size` has `top` and `seeds`, or not."""
    if passed_paths(settings):
        return _method_call(folder, address, settings, "confirm", named={name: str(of) for name, of in size.items()})
    options = [word for name, number in size.items() for word in (f"--{name}", str(number))]
    return command_line("search/confirm.py", *study_args(folder, address), *options, *code_args(settings))


def reproduce_line(folder: Path, address: str | None, settings: StudySettings, trial: int) -> str:
    """The command line that trains a trial again and compares, or the call by a Python program."""
    if passed_paths(settings):
        return _method_call(folder, address, settings, "reproduce", str(trial))
    study, *storage = study_args(folder, address)
    return command_line("search/reproduce.py", study, str(trial), *storage, *code_args(settings))


def _method_call(
    folder: Path,
    address: str | None,
    settings: StudySettings,
    method: str,
    *args: str,
    named: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The call of a method of a study from a Python program, which passes its code again."""
    positional, code = _passed_arguments(settings)
    function = dict(zip(["train_function"], positional, strict=False))
    study, *storage = study_args(folder, address)
    loaded = _call("load_study", [repr(study)], {"storage": repr(storage[-1])} if storage else {})
    return _call(f"{loaded}.{method}", args, {**named, **function, **code})


def _passed_arguments(settings: StudySettings) -> tuple[list[str], dict[str, str]]:
    """The code of a study as arguments of `run_search`: the function in the first place, other code by name."""
    values = {
        _field(option): path.rpartition(":")[2] if is_passed_function(path) else repr(path)
        for option, path in code_paths(settings).items()
    }
    function = values.pop("train_function", None)
    return [] if function is None else [function], values


def _call(function: str, positional: Sequence[str], named: Mapping[str, str]) -> str:
    return f"{function}({', '.join([*positional, *(f'{name}={value}' for name, value in named.items())])})"


def add_stored_trials(args: list[str], trials_so_far: int) -> list[str]:
    """Replace the value of `--num-samples +N` in a command line by the sum of `trials_so_far` and N."""
    value = option_value(args, "--num-samples")
    if value is None or not value.startswith("+"):
        return args
    if not value[1:].isdecimal():
        raise ValueError(f"--num-samples must be a number, or + and a number, got {value}")
    return [*args, f"--num-samples={trials_so_far + int(value)}"]  # the parser takes the last of several values


def check_same_study(stored: StudySettings, new: StudySettings) -> None:
    """Raise a ValueError if new settings would make the new trials of a study differ from its old ones."""
    before, now = asdict(stored), asdict(new) | {"metric": new.metric_name, "name": new.name or stored.name}
    differences = [
        f"{name} {before[name]} (now {now[name]})"
        for name in before
        if name not in CHANGEABLE
        and before[name] != now[name]
        and not (name in ("train_function", "network") and _may_be_same_code(str(before[name]), str(now[name])))
        and not (name == "command" and is_same_command(str(before[name]), str(now[name])))
    ]
    if differences:
        raise ValueError(not_comparable(f"the study was started with {', '.join(differences)}"))


def _may_be_same_code(path: str, other: str) -> bool:
    """Whether two import paths name a file and a function alike; checksums tell whether the code is the same."""
    return Path(absolute_import_path(path)).name == Path(absolute_import_path(other)).name


def code_named_by(options: object) -> dict[str, str | None]:
    """The user's own code that the options of a command name, by option, as `check_code_named` gets it."""
    return as_options({name: getattr(options, name) for name in ("network", "dataset", "train_function", "command")})


def as_options(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Values by the option of the command line instead of by setting."""
    return {f"--{name.replace('_', '-')}": value for name, value in values.items()}


def check_code_named(
    study: str, stored: StudySettings, named: Mapping[str, str | None], call: str | None = None
) -> None:
    """Refuse to run code that a record names, unless the command line names it too: others may have sent the record.

    Args:
        study: The name of the study.
        stored: Its settings.
        named: The import paths on the command line, by option.
        call: What a Python program calls instead, if it passed the code; by default what resumes the study.

    Raises:
        ValueError: Some code is not named; the sentence says which.
    """
    for option, stored_path in code_paths(stored).items():
        path = named.get(option)
        if path is None and option in NOT_STORED and is_passed_function(stored_path):
            call = call or resume_line(Path(str(stored.resume)), None, stored)
            why = NOT_STORED[option]
            raise ValueError(f"study {study} was run from Python, and {why} can continue it, with {call}")
        if path is None:
            form = "text" if option == COMMAND else "import path"
            raise ValueError(
                f"study {study} needs the code of {stored_path}: add {option} with this {form}, because code runs only "
                "if you name it"
            )
        is_same = is_same_command if option == COMMAND else _may_be_same_code
        if not is_same(path, stored_path):
            raise ValueError(f"study {study} was run with {option} {stored_path}, not {path}")


def code_paths(settings: StudySettings) -> dict[str, str]:
    """Options by which a study runs code of the user's own, and the import path of that code, or the command."""
    values = {
        "--network": settings.network,
        "--dataset": settings.dataset,
        "--train-function": settings.train_function or "",
    }
    paths = {option: value for option, value in values.items() if is_import_path(value)}
    return paths | ({COMMAND: settings.command} if settings.command else {})


def passed_paths(settings: StudySettings) -> dict[str, str]:
    """Settings whose values a Python program passed by value, and the import paths that stand for them."""
    paths = {option: path for option, path in code_paths(settings).items() if option in NOT_STORED}
    return {_field(option): path for option, path in paths.items() if is_passed_function(path)}


def _field(option: str) -> str:
    """The setting that an option sets."""
    return option.removeprefix("--").replace("-", "_")


def code_args(settings: StudySettings) -> list[str]:
    """The arguments of a command line that name the user's own code, which is run only if it is named."""
    return [argument for option in code_paths(settings).items() for argument in option]


def not_comparable(difference: str) -> str:
    """The sentence that refuses to go on with a study and says what the user can do."""
    return (
        f"{difference}, so new trials would not be comparable with the old ones; resume it without this change, or add "
        "--fork to start a new study with the old trials as a warm start"
    )
