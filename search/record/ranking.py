"""Selects and counts trials of a study: the valid ones, the best ones, their epochs."""

from collections.abc import Iterable

from search.record.trial import FAILED, VALID, Metrics, TrialRecord


def ended_trials(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials that will not go on."""
    return [trial for trial in trials if trial.has_ended]


def valid_trials(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials that have reported and whose metrics are valid, in order of proposal."""
    return [trial for trial in trials if trial.is_valid]


def has_measured(trials: Iterable[TrialRecord]) -> bool:
    """Whether a trial has metrics that are valid, so that trials of other code would not be comparable with it."""
    return any(trial.epochs and trial.status not in FAILED for trial in trials)


def ranked(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials that are not running, best first; trials without valid metrics come last, in order of proposal."""

    def rank(trial: TrialRecord) -> tuple[bool, float, int]:
        best = trial.best_epoch if trial.status in VALID else None
        return best is None, trial.objective.minimized(best) if best else 0.0, trial.number

    return sorted((trial for trial in trials if trial.status != "running"), key=rank)


def best_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best trial that is not running and whose metrics are valid."""
    return next((trial for trial in ranked(trials) if trial.is_valid), None)


def leading_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best trial whose metrics are valid, which may still run."""
    measured = [trial for trial in trials if trial.best_epoch and (trial.is_valid or trial.status == "running")]
    return min(measured, key=lambda trial: (trial.objective.minimized(trial.best_epoch), trial.number), default=None)


def best_configurations(trials: Iterable[TrialRecord], most: int) -> list[TrialRecord]:
    """The best trials with different hyperparameters; trials that were stopped early may be among them."""
    chosen: list[TrialRecord] = []
    for trial in ranked(trials):
        if len(chosen) == most:
            break
        if trial.is_valid and all(trial.hyperparameters != other.hyperparameters for other in chosen):
            chosen.append(trial)
    return chosen


def best_within(trial: TrialRecord, epochs: int) -> Metrics | None:
    """The epoch that counts of the first epochs of a trial; None if none of them has measured the metric."""
    return trial.objective.chosen(trial.epochs[:epochs])


def baseline_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial with the tutorial's settings."""
    return next((trial for trial in trials if trial.is_baseline), None)


def epochs_run(trials: Iterable[TrialRecord]) -> int:
    """Number of epochs that all trials ran."""
    return sum(len(trial.epochs) for trial in trials)


def epochs_saved(trials: Iterable[TrialRecord], epochs: int | None) -> int:
    """Number of epochs that trials did not run because they were stopped early; 0 if nobody knows.

    A full trial runs `epochs`; None if there is no limit. Nobody knows, either, if trials end by themselves before it.
    """
    trials = list(trials)
    if any(trial.ended_by_itself for trial in trials):
        return 0
    stopped = [trial for trial in trials if trial.status in ("stopped_early", "paused")]
    return 0 if epochs is None else sum(epochs - len(trial.epochs) for trial in stopped)
