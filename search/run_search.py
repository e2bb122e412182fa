"""Runs a study from a Python program or a notebook, which may pass its function, its network and its data by value."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search.engine.passed_code import passed_code, take_settings
from search.engine.study import prepare_study
from search.record.lookup import (
    as_options,
    check_code_named,
    find_study,
    resumed_settings,
    stored_settings,
    study_to_continue,
)
from search.run import run_study
from search.settings import StudySettings, is_address
from search.study_result import Code, StudyResult, read_study

FOLDERS = ("results_dir", "data_dir", "space")
MEANT = {"data": "dataset", "model": "network", "net": "network", "function": "train_function", "trials": "num_samples"}
"""Names that other tools have for our settings."""


def run_search(
    train_function: Callable[..., Any] | str | None = None,
    space: Mapping[str, Any] | str | Path | None = None,
    *,
    network: Callable[..., Any] | str | None = None,
    dataset: Any = None,
    resume: str | Path | None = None,
    **settings: Any,
) -> StudyResult:
    """Run a study, or go on with one, until its trials have ended or Ctrl-C is pressed.

    Args:
        train_function: The function that trains one configuration, for example of a notebook or a script, or its import
            path. Workers get the function with the values that it uses. None to train a network on images.
        space: The search space: a dictionary with a table for each hyperparameter, as in docs/spaces.md, for example
            `{"lr": {"low": 1e-4, "high": 0.1, "log": True}}`; or a TOML file.
        network: The network that is trained on images: a name, an import path, or a function or a class of
            `torch.nn.Module`, for example of a notebook. None for the tutorial's network.
        dataset: The images: a name, a folder, an import path, a function that loads them, or the images themselves:
            `(images, labels)`, `(images, labels), (test_images, test_labels)`, these with class names behind them, or
            data sets of torch instead of pairs. None for Fashion-MNIST if it is available, otherwise digits.
        resume: A study to continue: path of its folder, its name in the results folder, or `latest`. It keeps its own
            settings and its search space. Function, network and images are passed again, and must be the same.
        settings: Options of `search/run.py`, with underscores, for example `metric="val_loss"`, `num_samples=40`.

    Returns:
        The study, with the trials that have run; with `confirm`, after its confirmation.

    Raises:
        ValueError: A setting breaks a rule, or the study cannot be resumed; the sentence says which and why.
        TypeError: There is no such setting.
        OSError: A folder cannot be read or written.
    """
    _check_known(settings)
    given = {"train_function": train_function, "space": space, "network": network, "dataset": dataset}
    changes = take_settings(settings | {name: value for name, value in given.items() if value is not None})
    if is_address(str(changes.get("results_dir", ""))):
        changes["checkpoints_dir"] = changes.pop("results_dir")
    for name in FOLDERS:
        if isinstance(changes.get(name), str):
            changes[name] = Path(changes[name])
    own_name, results_dir = changes.get("name"), changes.get("results_dir", StudySettings().results_dir)
    existing = bool(changes.get("resume_existing"))
    continued = study_to_continue(
        None if resume is None else str(resume), own_name, results_dir, resume_existing=existing
    )
    if continued is not None and resume is None:
        del changes["resume_existing"]
    study = prepare_study(StudySettings(**changes) if continued is None else _resumed(continued, changes))
    status = run_study(study)
    code = Code({name: changes[name] for name in given if name in changes}, passed_code(study.settings))
    result = read_study(study.record.folder, study.settings.storage, code)
    if status or not study.confirmed_next:
        return result
    top, seeds = study.confirmed_next
    session = {name: getattr(study.settings, name) for name in ("address", "quiet", "dashboard")}
    return result.confirm(top=top, seeds=seeds, **session)


def _check_known(settings: Mapping[str, Any]) -> None:
    """Refuse a setting that does not exist."""
    known = {field.name for field in fields(StudySettings)} - {"show_space", "json"}
    for name in settings.keys() - known:
        matches = [MEANT[name]] if name in MEANT else get_close_matches(name, known, n=1)
        suggestion = f"; did you mean {matches[0]}?" if matches else "; the options of search/run.py are the settings"
        raise TypeError(f"run_search has no setting {name}{suggestion}")


def _resumed(study: str, changes: dict[str, Any]) -> StudySettings:
    """The settings of a study with changes, if all code that it runs is passed or named."""
    server = changes.pop("storage", None)
    folder = find_study(study, changes.get("results_dir", StudySettings().results_dir), server)
    named = {name: changes.get(name) for name in ("train_function", "network", "dataset", "command")}
    check_code_named(folder.name, stored_settings(folder, server), as_options(named))
    return resumed_settings(study, server=server, **changes)
