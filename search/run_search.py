"""Runs a study of a training function from a Python program or a notebook."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search.engine.passed_function import take_function
from search.engine.study import prepare_study
from search.outputs.study_result import StudyResult, load_study
from search.record.lookup import check_code_named, find_study, resumed_settings, stored_settings
from search.run import run_study
from search.settings import StudySettings

FOLDERS = ("results_dir", "data_dir", "space")


def run_search(
    train_function: Callable[..., Any] | str | None = None,
    space: Mapping[str, Any] | str | Path | None = None,
    *,
    resume: str | Path | None = None,
    **settings: Any,
) -> StudyResult:
    """Run a study, or go on with one, until its trials have ended or Ctrl-C is pressed.

    Args:
        train_function: The function that trains one configuration, for example of a notebook or a script, or its import
            path. Workers get the function with the values that it uses. None to train a network on images.
        space: The search space: a dictionary with a table for each hyperparameter, as in docs/spaces.md, for example
            `{"lr": {"low": 1e-4, "high": 0.1, "log": True}}`; or a TOML file.
        resume: A study to continue: path of its folder, its name in the results folder, or `latest`. It keeps its own
            settings and its search space. The function is passed again, and must be the same.
        settings: Options of `search/run.py`, with underscores, for example `metric="val_loss"`, `num_samples=40`.

    Returns:
        The study, with the trials that have run.

    Raises:
        ValueError: A setting breaks a rule, or the study cannot be resumed; the sentence says which and why.
        TypeError: There is no such setting.
        OSError: A folder cannot be read or written.
    """
    changes = _known(settings)
    if train_function is not None:
        changes["train_function"] = train_function if isinstance(train_function, str) else take_function(train_function)
    if space is not None:
        changes["space"] = space
    for name in FOLDERS:
        if isinstance(changes.get(name), str):
            changes[name] = Path(changes[name])
    study = prepare_study(_resumed(str(resume), changes) if resume is not None else StudySettings(**changes))
    run_study(study)
    return load_study(study.record.folder, storage=study.settings.storage)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, if there is each of them."""
    known = {field.name for field in fields(StudySettings)} - {"confirm", "show_space"}
    for name in settings.keys() - known:
        matches = get_close_matches(name, known, n=1)
        suggestion = f"; did you mean {matches[0]}?" if matches else "; the options of search/run.py are the settings"
        raise TypeError(f"run_search has no setting {name}{suggestion}")
    return dict(settings)


def _resumed(study: str, changes: dict[str, Any]) -> StudySettings:
    """The settings of a study with changes, if all code that it runs is passed or named."""
    server = changes.pop("storage", None)
    folder = find_study(study, changes.get("results_dir", StudySettings().results_dir), server)
    named = {f"--{name.replace('_', '-')}": changes.get(name) for name in ("train_function", "network", "dataset")}
    check_code_named(folder.name, stored_settings(folder, server), named)
    return resumed_settings(study, server=server, **changes)
