"""Reads the trials of a record back, and refuses a damaged one."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.trial import FrozenTrial

from search.record.trial import FAILED, OPTUNA_STATE, Failure, Run, Status, TrialRecord
from search.space.search_space import contains
from training.console.plain_data import check_type, from_plain
from training.loop import EpochMetrics

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord

Measured = TypeVar("Measured")


@contextmanager
def damage_told(folder: Path) -> Iterator[None]:
    """Turn what a damaged or foreign record does to its reader into one sentence."""
    try:
        yield
    except Exception as error:  # whatever the damage does to sqlite, Optuna and ourselves
        cause = str(getattr(error.__cause__ or error, "orig", error))
        raise ValueError(f"the record of study {folder.name} is damaged: {type(error).__name__}: {cause}") from error


def read_trials(record: "StudyRecord") -> Iterator[TrialRecord]:
    """Read all trials that were begun; others were queued, or are evidence.

    Raises:
        ValueError: One is missing, or holds what no trial of ours can.
        KeyError: A part of one is missing.
    """
    stored_trials = record.study.get_trials(deepcopy=False)
    if [stored.number for stored in stored_trials] != list(range(len(stored_trials))):
        raise ValueError("a trial is missing or there twice")
    for stored in stored_trials:
        if "ray_trial_id" in stored.user_attrs:
            trial = _read_trial(record, stored)
            if not _agrees(record, stored, trial):
                raise ValueError(f"what it says of trial {trial.number} contradicts itself")
            yield trial
        elif stored.state.is_finished() and "evidence" not in stored.user_attrs:
            raise ValueError(f"trial {stored.number} has ended and never begun")


def _read_trial(record: "StudyRecord", stored: FrozenTrial) -> TrialRecord:
    """Read one trial back from Optuna's study; one that has not ended counts as interrupted."""
    facts = stored.user_attrs
    ended = stored.state.is_finished()  # else the process ended first, perhaps while it was writing how the trial did
    trial = TrialRecord(
        stored.number,
        check_type("ray_trial_id", facts["ray_trial_id"], str),
        check_type("hyperparameters", stored.params, dict[str, float | str | bool]),
        check_type("seed", facts["seed"], int),
        check_type("baseline", facts.get("baseline", False), bool),
        check_type("status", facts["status"], Status) if ended else "interrupted",
        deaths=check_type("deaths", facts.get("deaths", 0), int),
    )
    for name in facts:
        if name.startswith("epoch "):
            metrics, run = _read_with_run(record.subject.epoch_type, facts[name])
            if isinstance(metrics, EpochMetrics):
                _check_range(metrics)
            trial.add_epoch(metrics, run)
    trial.epochs.sort(key=lambda metrics: metrics.epoch)
    if ended and "failure" in facts:
        trial.add_failure(*_read_with_run(Failure, facts["failure"]))
    return trial


def _agrees(record: "StudyRecord", stored: FrozenTrial, trial: TrialRecord) -> bool:
    """Whether all that the record says of one trial fits together: most of it is there twice, as Optuna's and ours.

    An epoch whose process died while it was being recorded has no value in Optuna's curve.
    """
    curve = {metrics.epoch: record.value(metrics) for metrics in trial.epochs}
    if (
        not contains(record.space, trial.hyperparameters)
        or list(curve) != list(range(1, len(trial.epochs) + 1))
        or not stored.intermediate_values.items() <= curve.items()
    ):
        return False
    if trial.status == "interrupted":
        return not stored.state.is_finished()
    best = min(trial.epochs, key=record.to_minimize, default=None)
    value = {
        "completed": record.value(best) if best else None,
        "stopped_early": stored.intermediate_values.get(stored.last_step or 0),
    }
    return (
        stored.state == OPTUNA_STATE.get(trial.status)
        and stored.value == value.get(trial.status)
        and (trial.status != "completed" or len(trial.epochs) >= record.epochs)
        and (trial.failure.status if trial.failure else None) == (trial.status if trial.status in FAILED else None)
    )


def _read_with_run(measured: type[Measured], stored: object) -> tuple[Measured, Run | None]:
    values = dict(check_type(measured.__name__, stored, dict[str, Any]))
    run = values.pop("run", None)
    return from_plain(measured, values), None if run is None else from_plain(Run, run)


def _check_range(metrics: EpochMetrics) -> None:
    for name, value in asdict(metrics).items():
        if value is not None and not 0 <= value <= (1 if name.endswith("accuracy") else math.inf):
            raise ValueError(f"{name} cannot be {value}")
