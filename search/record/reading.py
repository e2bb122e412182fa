"""Reads the trials of a record back, and refuses a damaged one."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.record.metadata import StudyMetadata
from search.record.trial import FAILED, OPTUNA_STATE, Failure, MemoryUse, Status, Timing, TrialRecord
from search.record.upgrade import upgrade_trial
from training.config import check_seed
from training.json_data import check_type, from_json

Measured = TypeVar("Measured")


@contextmanager
def refuse_damage(folder: Path) -> Iterator[None]:
    """Turn any error that a damaged or foreign record causes in this context into one sentence."""
    try:
        yield
    except Exception as error:  # whatever the damage does to sqlite, Optuna and ourselves
        cause = str(getattr(error.__cause__ or error, "orig", error))
        what = ": ".join(filter(None, [type(error).__name__, cause]))
        raise ValueError(f"the record of study {folder.name} is damaged: {what}") from error


def read_trials(study: optuna.Study, metadata: StudyMetadata) -> Iterator[TrialRecord]:
    """Read all trials that were begun, but no queued or warm-start trials; an error says which trial is damaged."""
    stored_trials = study.get_trials(deepcopy=False)
    if [stored.number for stored in stored_trials] != list(range(len(stored_trials))):
        raise ValueError("a trial is missing, or is recorded twice")
    for stored in stored_trials:
        attributes = upgrade_trial(stored.user_attrs, metadata.task.epoch_type)
        if "ray_trial_id" in attributes:
            trial = _read_trial(stored, attributes, metadata)
            if not _agrees(stored, trial, metadata):
                raise ValueError(f"its values of trial {trial.number} contradict each other")
            yield trial
        elif stored.state.is_finished() and "warm_start" not in attributes:
            raise ValueError(f"trial {stored.number} has ended, but it never began")


def is_paused(stored: FrozenTrial) -> bool:
    """Whether a trial in Optuna's study is paused: for Optuna, it runs."""
    return stored.state == TrialState.RUNNING and stored.user_attrs.get("status") == "paused"


def _read_trial(stored: FrozenTrial, attributes: dict[str, Any], metadata: StudyMetadata) -> TrialRecord:
    """Read one trial from Optuna's study; a trial that has not ended is interrupted, unless it is paused."""
    has_ended = stored.state.is_finished() or is_paused(stored)
    seed = None
    if metadata.origin is None or "seed" in attributes:
        seed = check_type("seed", attributes["seed"], int)
        check_seed("seed", seed)
    trial = TrialRecord(
        stored.number,
        check_type("ray_trial_id", attributes["ray_trial_id"], str),
        check_type("hyperparameters", stored.params, dict[str, float | int | str | bool]),
        seed,
        metadata.objective,
        check_type("baseline", attributes.get("baseline", False), bool),
        check_type("status", attributes["status"], Status) if has_ended else "interrupted",
        ended_by_itself=check_type("ended_by_itself", attributes.get("ended_by_itself", False), bool),
        worker_failures=check_type("worker_failures", attributes.get("worker_failures", 0), int),
        memory=from_json(MemoryUse, attributes.get("memory", {})),
        redrawn=check_type("redrawn", attributes.get("redrawn", 0), int),
        whole_seconds=check_type("whole_seconds", attributes.get("whole_seconds"), float | None),
    )
    measured = [
        _read_with_timing(metadata.task.epoch_type, attributes[name])
        for name in attributes
        if name.startswith("epoch ")
    ]
    for metrics, timing in sorted(measured, key=lambda pair: int(pair[0].epoch)):
        metadata.task.check_epoch(metrics)
        trial.add_epoch(metrics, timing)
    if has_ended and "failure" in attributes:
        trial.add_failure(*_read_with_timing(Failure, attributes["failure"]))
    return trial


def _agrees(stored: FrozenTrial, trial: TrialRecord, metadata: StudyMetadata) -> bool:
    """Whether Optuna's fields of a trial agree with our attributes of it: most values are in the record twice."""
    if any(timing.session >= len(metadata.sessions) for timing in trial.timings.values()):
        return False
    curve = trial.curve
    if (
        not metadata.has_point(trial.hyperparameters)
        or [metrics.epoch for metrics in trial.epochs] != list(range(1, len(trial.epochs) + 1))
        or stored.intermediate_values != curve
    ):
        return False
    if trial.status in ("interrupted", "paused"):
        return not stored.state.is_finished()
    values = [None, *curve.values()]
    value = {"completed": trial.best_value if trial.best_epoch else None, "stopped_early": values[-1]}
    return (
        stored.state == OPTUNA_STATE.get(trial.status)
        and stored.value == value.get(trial.status)
        and (trial.status != "completed" or trial.reached(metadata.settings.epochs or math.inf))
        and (trial.failure.status if trial.failure else None) == (trial.status if trial.status in FAILED else None)
    )


def _read_with_timing(measured: type[Measured], stored: object) -> tuple[Measured, Timing | None]:
    values = dict(check_type(measured.__name__, stored, dict[str, object]))
    timing = values.pop("timing", None)
    return from_json(measured, values), None if timing is None else from_json(Timing, timing)
