"""How a study stands, for somebody who looks at it from another process."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from search.monitoring.terminal import HEADER_LABEL, header_line
from search.outputs.trial_objects import TrialResult, trial_result
from search.record.ranking import ended_trials, leading_trial
from search.record.requests import AnsweredRequest
from search.record.study_record import StudyRecord
from search.record.trial import Status, TrialRecord
from training.console.terminal import counted, format_metric, format_value, printable, wrapped

State = Literal["running", "paused", "ended", "complete"]
LATEST_REQUESTS = 5
"""Number of requests that are shown to people."""


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """How a study stands."""

    type: Literal["status"] = "status"
    name: str
    folder: str
    """Absolute path."""
    state: State
    """running; paused by a request; ended before all its trials had; complete."""
    num_samples: int
    """Number of trials after which the study is complete."""
    ended: int
    """Number of trials that have ended."""
    trials: dict[Status, int]
    """Number of trials of each status; the trials that wait until they continue are `interrupted`."""
    queued: int
    """Number of trials that were queued and have not begun."""
    running: list[TrialResult]
    """The trials that run now, with their best epoch so far."""
    best_trial: TrialResult | None
    """The best trial so far, which may still run; null if no trial has valid metrics."""
    requests: list[AnsweredRequest]
    """What users have asked of the study, the earliest first."""


def study_status(record: StudyRecord, *, runs: bool) -> StudyStatus:
    """How a study stands.

    Args:
        record: Its record.
        runs: Whether a process runs it.
    """
    metadata, numbers = record.metadata, record.numbers_of_running() if runs else []
    running = [trial for trial in record.trials if trial.number in numbers]
    for trial in running:
        trial.status = "running"
    best, ended = leading_trial(record.trials), len(ended_trials(record.trials))
    complete: State = "complete" if ended >= metadata.settings.num_samples else "ended"
    return StudyStatus(
        name=record.folder.name,
        folder=str(record.folder.resolve()),
        state=("paused" if metadata.is_paused else "running") if runs else complete,
        num_samples=metadata.settings.num_samples,
        ended=ended,
        trials=dict(Counter(trial.status for trial in record.trials)),
        queued=len(record.queued()),
        running=[trial_result(record, trial) for trial in running],
        best_trial=trial_result(record, best) if best else None,
        requests=metadata.requests,
    )


def show_status(status: StudyStatus, record: StudyRecord, owner: str) -> None:
    """Print how a study stands; `owner` is the process that runs it, or empty."""
    state = {"running": "runs", "paused": "is paused", "ended": "does not run", "complete": "is complete"}[status.state]
    print(wrapped(f"Study {status.name} {state}{f' ({owner})' if owner else ''}"))
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in status.trials.items())
    queued = f", {status.queued} queued" if status.queued else ""
    print(header_line("trials", f"{status.ended} of {status.num_samples} ended: {counts or 'none'}{queued}"))
    for label, results in (("best", [status.best_trial] if status.best_trial else []), ("running", status.running)):
        for number, result in enumerate(results):
            trial = next(trial for trial in record.trials if trial.number == result.trial_number)
            print(wrapped(header_line("" if number else label, _describe(record, trial)), hanging=" " * HEADER_LABEL))
    for answered in status.requests[-LATEST_REQUESTS:]:
        request = answered.request
        print(
            wrapped(
                header_line("asked", f"{request.text} ({request.time}): {answered.answer}"), hanging=" " * HEADER_LABEL
            )
        )


def _describe(record: StudyRecord, trial: TrialRecord) -> str:
    values = ", ".join(f"{printable(name)} {format_value(value)}" for name, value in trial.hyperparameters.items())
    reached = f"{record.metric} {format_metric(trial.best_value)}" if trial.best_epoch else "no value yet"
    return f"trial {trial.number}: {reached} after {counted(len(trial.epochs), 'epoch')}; {values}"
