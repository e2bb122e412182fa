"""A study of another program as its reader returns it, the same for all programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.record.trial import CountedEpoch, Status
from search.task.metric_names import Mode

LARGEST_FILE = 1 << 28
"""Largest size of a file in bytes that is read."""
LARGEST_DATABASE = 1 << 30
"""Largest size of a database in bytes."""
MOST_TRIALS = 100_000
MOST_VALUES = 2_000_000
"""Most values of the metric in all trials together."""
MOST_METRICS = 50
"""Most metrics of a trial; of more, the first ones are kept."""

STATUSES: dict[str, Status] = {
    **dict.fromkeys(("complete", "completed", "finished", "terminated", "success", "done", "ok"), "completed"),
    **dict.fromkeys(("pruned", "stopped", "stopped_early", "early_stopped"), "stopped_early"),
    **dict.fromkeys(("fail", "failed", "error", "errored", "crashed", "crash"), "failed"),
    "diverged": "diverged",
    **dict.fromkeys(("running", "paused", "killed", "preempted", "preempting", "interrupted"), "interrupted"),
}
"""How other programs call the end of a trial, in lower case."""
NEVER_BEGAN = ("waiting", "pending", "queued")


@dataclass(kw_only=True)
class ForeignTrial:
    """A trial of another program."""

    label: str
    """Its name or number there."""
    status: Status
    hyperparameters: Mapping[str, Any]
    """Numbers, texts, true or false; one that the trial does not have is missing."""
    steps: dict[float, dict[str, float]] = field(default_factory=dict)
    """The metrics after each step or epoch, by its number there; a value may be infinite or not a number."""
    values: dict[str, float] = field(default_factory=dict)
    """The metrics of the whole trial."""
    seconds: float | None = None
    """Wall clock of the whole trial."""
    step_seconds: dict[float, float] = field(default_factory=dict)
    """Wall clock of each step."""
    seed: int | None = None
    error: str = ""


@dataclass(kw_only=True)
class ForeignStudy:
    """A study of another program."""

    program: str
    """The program that wrote it, with its version where the source has it."""
    name: str
    trials: list[ForeignTrial]
    metric: str | None = None
    """The metric by which it was searched, if the source says it."""
    mode: Mode | None = None
    ranges: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The ranges of hyperparameters that the source names, in the form of a search space file."""
    counted: CountedEpoch = "best"
    """The step of which a trial has its value."""
    remarks: list[str] = field(default_factory=list)
    """Sentences on what is not as in the source."""


def status_of(text: str, missing: Status = "completed") -> Status | None:
    """The status of a trial that another program calls so; None if it never began, `missing` for an empty text."""
    name = text.strip().lower().rpartition(".")[2]  # TrialState.COMPLETE
    if name in NEVER_BEGAN:
        return None
    if not name:
        return missing
    if name not in STATUSES:
        raise ValueError(f"no trial has state {text!r:.80}; known are {', '.join(STATUSES)}, {', '.join(NEVER_BEGAN)}")
    return STATUSES[name]
