"""Gives what a record from before November 2026 holds the names that this version reads."""

from collections.abc import Mapping
from typing import Any

_STUDY = {"starts": "sessions", "evidence": "warm_start", "confirm": "confirmation"}
_SETTINGS = {"grace_epochs": "grace_period", "reduction": "reduction_factor"}
_SESSION = {"trials_at_once": "max_concurrent_trials"}
_TRIAL = {"deaths": "worker_failures", "evidence": "warm_start"}
_MEASURED = {"run": "timing"}
_TIMING = {"start": "session"}
_OURS = ("epoch", "seconds", "evaluation_seconds", "timing")
"""What an epoch of a training function holds besides its metrics."""
_TESTED = {"test_accuracies": "test_accuracy", "test_losses": "test_loss"}
"""The values of a confirmed configuration on the test images, which had fields of their own."""
_NOW_IN_SPACE = {"lr_schedule": "none", "precision": "fp32"}
"""Settings that are hyperparameters now, which a search space can fix, and their defaults."""


def upgrade_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a study, as `StudySettings` names them."""
    return {name: value for name, value in _renamed(settings, _SETTINGS).items() if name not in _NOW_IN_SPACE}


def upgrade_study(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The user attributes of a study, as `StudyMetadata` names them; its settings are left to `upgrade_settings`."""
    study: dict[str, Any] = _renamed(attributes, _STUDY)
    if isinstance(study.get("sessions"), list):
        study["sessions"] = [_renamed(session, _SESSION) for session in study["sessions"]]
    if isinstance(study.get("warm_start"), dict):
        study["warm_start"] = [study["warm_start"]]
    if isinstance(study.get("confirmation"), dict):
        study["confirmation"] = _confirmation(study["confirmation"])
    if isinstance(study.get("settings"), dict) and isinstance(study.get("space"), dict):
        fixed = {
            name: {"value": study["settings"][name]}
            for name, default in _NOW_IN_SPACE.items()
            if study["settings"].get(name, default) != default and name not in study["space"]
        }
        study["space"] = study["space"] | fixed
    return study


def upgrade_trial(attributes: Mapping[str, Any], epoch_type: type[Any]) -> dict[str, Any]:
    """The user attributes of a trial, as the record writes them now; `epoch_type` holds the metrics of an epoch."""
    holds_values = "values" in epoch_type.__annotations__
    trial: dict[str, Any] = _renamed(attributes, _TRIAL)
    for name, measured in trial.items():
        if isinstance(measured, dict) and "run" in measured:
            trial[name] = _renamed(measured, _MEASURED)
            trial[name]["timing"] = _renamed(trial[name]["timing"], _TIMING)
        if name.startswith("epoch ") and holds_values and isinstance(measured, dict) and "values" not in measured:
            trial[name] = _with_values(trial[name])
    return trial


def _with_values(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a training function in an epoch, which stood between ours."""
    ours = {name: measured[name] for name in _OURS if name in measured}
    return {**ours, "values": {name: value for name, value in measured.items() if name not in _OURS}}


def _confirmation(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A confirmation whose configurations say which values are the best, and in which unit they differ."""
    confirmation = {**stored, "confirmed": _configuration(stored.get("confirmed"))}
    if isinstance(stored.get("configurations"), list):
        confirmation["configurations"] = [_configuration(one) for one in stored["configurations"]]
    return confirmation


def _configuration(stored: Any) -> Any:
    if not isinstance(stored, dict) or not _TESTED.keys() <= stored.keys():
        return stored
    mode, unit = ("min", "nats") if str(stored.get("metric_name")).endswith("_loss") else ("max", "points")
    values = {name: value for name, value in stored.items() if name not in _TESTED}
    tested = {name: stored[former] for former, name in _TESTED.items()}
    return {"mode": mode, "unit": unit, **values, "test_values": tested}


def _renamed(values: Any, names: Mapping[str, str]) -> Any:
    """A dictionary with other names; anything else, which only a damaged record holds, as it is."""
    return {names.get(name, name): value for name, value in values.items()} if isinstance(values, dict) else values
