"""A study as objects for other programs: the end of `search/run.py --json`, and the document of `search/report.py`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.analysis.findings import Findings
from search.analysis.fixing import Fixing
from search.analysis.gain import gain_over_start
from search.analysis.importance import Importance
from search.analysis.recommendations import Recommendation
from search.analysis.time_accounting import time_accounting, wall_seconds
from search.outputs.best_model import exported_best, exported_confirmed, predict_line
from search.outputs.confirmation_objects import ConfirmationEnded, ConfirmationResult, confirmation_result
from search.outputs.summary import can_be_confirmed
from search.outputs.trial_objects import TrialResult, metric_values, trial_result
from search.record.file_names import CONFIRM_CSV, EPOCHS_CSV, PLOTS, REPORT, STUDY_DB, STUDY_JSON, TRIALS_CSV
from search.record.lookup import confirm_line, reproduce_line, resume_command
from search.record.metadata import Origin
from search.record.ranking import best_trial, ended_trials, ranked
from search.record.study_record import StudyRecord
from search.record.trial import Status, TrialRecord
from search.task.metric_names import Mode


@dataclass(frozen=True, kw_only=True)
class GainOverStart:
    """The gain of the best trial over the settings with which the study started."""

    name: str
    """What these settings are."""
    trial_number: int
    """Their trial."""
    epochs: int
    """Both trials are compared by their best epoch within this number of epochs."""
    metrics: dict[str, float | None]
    """Those of the best trial."""
    reference_metrics: dict[str, float | None]
    """Those of the settings at the start."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """Paths of the files of a study; null where there is no such file."""

    report: str | None
    trials: str | None
    epochs: str | None
    study: str | None
    record: str | None
    """study.db; null if a server has the record."""
    plots: str | None
    model: str | None
    """Folder of the best model."""
    confirm: str | None
    """confirm.csv."""


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Command lines that go on from here, for the folder in which the command ran; null where there is none."""

    resume: str | None
    """Continues the study; with `--num-samples +N`, also one that is complete; null if it was imported."""
    reproduce: str | None
    """Trains the best trial again and compares."""
    confirm: str | None
    predict: str | None
    """Classifies images; replace IMAGE."""


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """What a study has found so far."""

    name: str
    folder: str
    """Absolute path."""
    task: str
    """What was trained: the data set, or the training function or the program."""
    origin: Origin | None
    """Where the trials are from, if the study was imported."""
    metric: str
    mode: Mode
    num_samples: int
    """Number of trials after which the study is complete."""
    ended: int
    """Number of trials that have ended."""
    trials: dict[Status, int]
    """Number of trials of each status."""
    seconds: float
    """Wall-clock time of all sessions."""
    time: dict[str, float]
    """What the cores did in this time, in core seconds: `time` of study.json."""
    best_trial: TrialResult | None
    """null if no trial has valid metrics."""
    gain: GainOverStart | None
    """null without such settings, or if they are the best."""
    importances: list[Importance]
    """Of the hyperparameters, the most important one first; empty if the trials are too few."""
    fixings: list[Fixing]
    """What it costs to fix each hyperparameter."""
    recommendations: list[Recommendation]
    """What to try next, the most important one first."""
    confirmation: ConfirmationResult | None
    files: Files
    commands: Commands


@dataclass(frozen=True, kw_only=True)
class StudyEnded(StudySummary):
    """The trials of the study have run, or it ended early; its files are written."""

    type: Literal["study_ended"] = "study_ended"
    exit_status: int
    reason: str | None
    """Why the study ended before all its trials had; null if they have."""


@dataclass(frozen=True, kw_only=True)
class Report(StudySummary):
    """The document of `search/report.py`: a study that has run or is running."""

    type: Literal["report"] = "report"
    ranking: list[TrialResult]
    """All trials that do not run, the best first, as in trials.csv."""


def confirmation_ended(parent: StudyRecord, *, exit_status: int, resume: str) -> ConfirmationEnded:
    """The document about a confirmation that has ended with this status.

    Args:
        parent: The record of the study that was confirmed.
        exit_status: 0 if there is a result.
        resume: The command line that continues the confirmation.
    """
    confirmation = parent.metadata.confirmation if exit_status == 0 else None
    model = exported_confirmed(parent) if confirmation else None
    return ConfirmationEnded(
        name=parent.folder.name,
        folder=str(parent.folder.resolve()),
        exit_status=exit_status,
        result=confirmation_result(confirmation) if confirmation else None,
        model=str(model.resolve()) if model else None,
        resume=resume,
    )


def study_ended(
    record: StudyRecord, findings: Findings, *, exit_status: int, reason: str | None, resume: str
) -> StudyEnded:
    """The object with which a study ends; `resume` is the command line that continues it as this session ran it."""
    return StudyEnded(**_summary_values(record, findings, resume), exit_status=exit_status, reason=reason)


def report(record: StudyRecord, findings: Findings) -> Report:
    """The document about a study."""
    ranking = [trial_result(record, trial) for trial in ranked(record.trials)]
    resume = resume_command(record.folder, record.address, record.metadata.settings)
    return Report(**_summary_values(record, findings, resume), ranking=ranking)


def _summary_values(record: StudyRecord, findings: Findings, resume: str) -> dict[str, Any]:
    metadata, best = record.metadata, best_trial(record.trials)
    return {
        "name": record.folder.name,
        "folder": str(record.folder.resolve()),
        "task": metadata.task.name,
        "origin": metadata.origin,
        "metric": record.metric,
        "mode": record.mode,
        "num_samples": metadata.settings.num_samples,
        "ended": len(ended_trials(record.trials)),
        "trials": dict(Counter(trial.status for trial in record.trials)),
        "seconds": wall_seconds(record),
        "time": time_accounting(record),
        "best_trial": trial_result(record, best) if best else None,
        "gain": _gain(record, best) if best else None,
        "importances": findings.importances,
        "fixings": findings.fixings,
        "recommendations": findings.recommendations,
        "confirmation": confirmation_result(metadata.confirmation) if metadata.confirmation else None,
        "files": study_files(record),
        "commands": _commands(record, best, resume),
    }


def _gain(record: StudyRecord, best: TrialRecord) -> GainOverStart | None:
    gain = gain_over_start(record, best)
    if gain is None:
        return None
    return GainOverStart(
        name=gain.name,
        trial_number=gain.reference.number,
        epochs=gain.epochs,
        metrics=metric_values(record, gain.metrics),
        reference_metrics=metric_values(record, gain.reference_metrics),
    )


def study_files(record: StudyRecord) -> Files:
    """The files of a study that are there."""
    folder = record.folder.resolve()

    def there(path: Path | None) -> str | None:
        return str(path) if path is not None and path.exists() else None

    return Files(
        report=there(folder / REPORT),
        trials=there(folder / TRIALS_CSV),
        epochs=there(folder / EPOCHS_CSV),
        study=there(folder / STUDY_JSON),
        record=there(folder / STUDY_DB),
        plots=there(folder / PLOTS),
        model=there(exported_best(record) or exported_confirmed(record)),
        confirm=there(folder / CONFIRM_CSV),
    )


def _commands(record: StudyRecord, best: TrialRecord | None, resume: str) -> Commands:
    where = record.folder, record.address, record.metadata.settings
    is_own = record.metadata.origin is None
    return Commands(
        resume=resume if is_own else None,
        reproduce=reproduce_line(*where, best.number) if best and is_own else None,
        confirm=confirm_line(*where) if best and can_be_confirmed(record) else None,
        predict=predict_line(record),
    )
