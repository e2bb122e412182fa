"""Records from before November 2026: read as before, and resumed only where their code is still the same."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from studies import HandDrivenStudy

from search.record.lookup import stored_settings
from search.record.study_record import StudyRecord
from search.record.upgrade import upgrade_study

OLD_SETTINGS = {"grace_period": "grace_epochs", "reduction_factor": "reduction"}
OLD_SESSION = {"max_concurrent_trials": "trials_at_once"}
OLD_TRIAL = {"worker_failures": "deaths"}


def renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def make_old(folder: Path) -> None:
    """Give a record the names that it would have had."""
    with closing(sqlite3.connect(folder / "study.db")) as database, database:
        rows = database.execute("SELECT key, value_json FROM study_user_attributes").fetchall()
        attributes = {key: json.loads(value) for key, value in rows}
        settings = renamed(attributes["settings"], OLD_SETTINGS) | {"lr_schedule": "cosine", "precision": "fp32"}
        sessions = [renamed(session, OLD_SESSION) for session in attributes["sessions"]]
        for key, new_key, value in (("settings", "settings", settings), ("sessions", "starts", sessions)):
            command = "UPDATE study_user_attributes SET key = ?, value_json = ? WHERE key = ?"
            database.execute(command, (new_key, json.dumps(value), key))
        for row, key, text in database.execute(
            "SELECT trial_user_attribute_id, key, value_json FROM trial_user_attributes"
        ).fetchall():
            value = json.loads(text)
            if isinstance(value, dict) and "timing" in value:
                timing = renamed(value.pop("timing"), {"session": "start"})
                value["run"] = timing
            command = "UPDATE trial_user_attributes SET key = ?, value_json = ? WHERE trial_user_attribute_id = ?"
            database.execute(command, (OLD_TRIAL.get(key, key), json.dumps(value), row))


def test_old_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    study.run_one_of_each()
    study.suggest("again")
    study.record.add_worker_failure("again")
    study.record.interrupt_running()
    make_old(tmp_path)
    record = StudyRecord.open(tmp_path)
    assert record.trials == study.record.trials
    assert record.metadata.sessions == study.record.metadata.sessions
    assert record.metadata.settings.grace_period == 1
    assert stored_settings(tmp_path) == record.metadata.settings


def test_setting_that_is_a_hyperparameter_now_is_fixed_in_the_space(tmp_path: Path) -> None:
    HandDrivenStudy(tmp_path).run_trial(0.5, 0.6, 0.6)
    make_old(tmp_path)
    record = StudyRecord.open(tmp_path)
    fixed = record.space.add_fixed(record.trials[0].hyperparameters)
    assert fixed["lr_schedule"] == "cosine"
    assert "precision" not in fixed  # it was the default
    assert list(record.space) == ["learning_rate", "batch_size", "optimizer"]


def test_one_warm_start_is_a_list_of_them_now() -> None:
    before = {"study": "earlier", "trials": 2, "of": 3}
    assert upgrade_study({"evidence": before}) == upgrade_study({"warm_start": before}) == {"warm_start": [before]}


@pytest.mark.parametrize("damage", [None, 7, "text", []])
def test_damaged_attribute_is_left_to_the_reader(damage: object) -> None:
    assert upgrade_study({"starts": damage, "settings": damage, "space": damage})["sessions"] == damage
