"""Numbers the steps of an imported study as epochs, and makes its trials those of a record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search.importing.foreign_study import MOST_METRICS, MOST_VALUES, ForeignStudy, ForeignTrial
from search.importing.names import metric_names
from search.record.trial import MOST_SECONDS, Failure, FailureKind, Objective, TrialRecord
from search.space.distributions import HyperparameterValue
from search.task.custom_metrics import CustomMetrics
from training.config import MAX_SEED
from training.console.terminal import printable, shorten

MOST_STEPS = 3
"""Where the trials have more than this times as many different steps as the longest has, each is numbered by itself."""
_LONGEST_LABEL = 60


@dataclass
class Curves:
    """How the steps of a study are numbered."""

    epochs: list[dict[float, int]]
    """The epoch of each step of each trial."""
    metrics: dict[str, str]
    """The name of each metric here."""
    remarks: list[str] = field(default_factory=list)


def number_steps(study: ForeignStudy) -> Curves:
    """Number the steps of all trials, so that equal steps are equal epochs: the first one is epoch 1."""
    metrics = dict.fromkeys(
        name for trial in study.trials for values in (*trial.steps.values(), trial.values) for name in values
    )
    kept = dict.fromkeys([*([study.metric] if study.metric in metrics else []), *metrics])
    renamed = metric_names([*kept][:MOST_METRICS])
    changed = [f"{printable(name)} is called {new}" for name, new in renamed.items() if name != new]
    curves = Curves([], renamed, [f"Metrics have other names: {', '.join(changed)}."] if changed else [])
    if len(kept) > MOST_METRICS:
        curves.remarks.append(f"Of its {len(kept)} metrics, {MOST_METRICS} are imported.")
    steps = sorted({step for trial in study.trials for step in trial.steps})
    longest = max((len(trial.steps) for trial in study.trials), default=0)
    if len(steps) > MOST_STEPS * longest:
        curves.epochs = [{step: epoch for epoch, step in enumerate(sorted(trial.steps), 1)} for trial in study.trials]
        curves.remarks.append("The trials have values at different steps, so those of each are its epochs 1, 2, ...")
    else:
        numbers = {step: epoch for epoch, step in enumerate(steps, 1)}
        curves.epochs = [{step: numbers[step] for step in trial.steps} for trial in study.trials]
        if steps and (steps[0], steps[-1]) != (1, len(steps)):
            curves.remarks.append(
                f"Its {len(steps)} steps from {steps[0]:g} to {steps[-1]:g} are the epochs 1 to {len(steps)} here."
            )
    if sum(max(epochs.values(), default=1) for epochs in curves.epochs) > MOST_VALUES:
        raise ValueError(f"its trials have more than {MOST_VALUES:,} values per step, which are too many to import")
    return curves


def as_records(
    study: ForeignStudy, curves: Curves, points: Sequence[dict[str, HyperparameterValue]], objective: Objective
) -> tuple[list[TrialRecord], int | None]:
    """The trials of a record, and the number of epochs of a complete one; None where it differs."""
    records = [
        _as_record(number, trial, epochs=epochs, names=curves.metrics, point=point, objective=objective)
        for number, (trial, epochs, point) in enumerate(zip(study.trials, curves.epochs, points, strict=True))
    ]
    completed = {len(record.epochs) for record in records if record.status == "completed"}
    longest = max(len(record.epochs) for record in records)
    if completed == {longest} and longest:
        return records, longest
    for record in records:
        record.ended_by_itself = record.status == "completed"
    return records, None


def _as_record(
    number: int,
    trial: ForeignTrial,
    *,
    epochs: Mapping[float, int],
    names: Mapping[str, str],
    point: dict[str, HyperparameterValue],
    objective: Objective,
) -> TrialRecord:
    seed = trial.seed if trial.seed is not None and 0 <= trial.seed <= MAX_SEED else None
    record = TrialRecord(number, shorten(printable(trial.label), _LONGEST_LABEL), point, seed, objective)
    measured = _measured(trial, epochs, names)
    seconds = {epochs[step]: _time(time) for step, time in trial.step_seconds.items() if step in epochs}
    for epoch in range(1, max(measured, default=0) + 1):
        values = {name: value if math.isfinite(value) else None for name, value in measured.get(epoch, {}).items()}
        record.add_epoch(CustomMetrics(epoch=epoch, seconds=seconds.get(epoch), values=values), None)
    record.status = trial.status
    failure = _failure(trial, record, measured)
    if failure:
        record.add_failure(failure, None)
        record.status = failure.status
    if any(metrics.seconds is None for metrics in record.epochs) or not record.epochs:
        record.whole_seconds = _time(trial.seconds)
    return record


def _measured(
    trial: ForeignTrial, epochs: Mapping[float, int], names: Mapping[str, str]
) -> dict[int, dict[str, float]]:
    """The metrics of a trial by epoch; a value of the whole trial is one of its last epoch."""
    measured = {
        epochs[step]: {names[name]: value for name, value in values.items() if name in names}
        for step, values in trial.steps.items()
    }
    of_steps = {name for values in measured.values() for name in values}
    whole = {names[name]: value for name, value in trial.values.items() if name in names}
    whole = {name: value for name, value in whole.items() if name not in of_steps}
    if whole:
        last = max(measured, default=1)
        measured[last] = whole | measured.get(last, {})
    return measured


def _failure(trial: ForeignTrial, record: TrialRecord, measured: Mapping[int, Mapping[str, float]]) -> Failure | None:
    """Why a trial failed, or why its value is not one of the best."""
    metric = record.objective.metric
    if trial.status in ("failed", "diverged"):
        kind: FailureKind = "diverged" if trial.status == "diverged" else "exception"
        return Failure(kind, trial.error or "the source does not say why")
    values = [measured[epoch][metric] for epoch in sorted(measured) if metric in measured[epoch]]
    decisive = values[-1:] if record.objective.counted == "last" else values
    if trial.status != "completed" or any(map(math.isfinite, decisive)):
        return None
    if values:
        return Failure("diverged", f"its {metric} is {values[-1]}")
    return Failure("exception", f"the source has no {metric} of this trial")


def _time(seconds: float | None) -> float | None:
    return float(seconds) if seconds is not None and 0 <= seconds <= MOST_SECONDS else None
