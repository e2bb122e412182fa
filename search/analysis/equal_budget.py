"""Trials compared after the same number of epochs: what a stopped trial had reached is not held against it."""

from dataclasses import dataclass

from search.record.ranking import valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord

ENOUGH_TRIALS = 10
"""So many trials, and an effect of a hyperparameter may show."""
NEARLY_ALL = 0.9
"""Of the trials: those that a scheduler let go on were chosen by their values, which hides effects."""


@dataclass(frozen=True)
class EqualBudget:
    """The trials of a study that have come so far, with the best value that each had reached by then."""

    epochs: int
    is_full: bool
    """Whether no trial of the study was to run longer."""
    trials: tuple[TrialRecord, ...]
    values: tuple[float, ...]

    is_all: bool
    """Whether every trial that measured anything is among them."""

    @property
    def words(self) -> str:
        """What the values are, after the name of the metric."""
        if self.is_full:
            return f"of the {len(self.trials)} trials that ran in full"
        which = f"all {len(self.trials)}" if self.is_all else str(len(self.trials))
        return f"after {self.epochs} epoch{'s' * (self.epochs > 1)}, which {which} trials reached"


def equal_budget(record: StudyRecord) -> EqualBudget | None:
    """Compare the trials that ran in full, or if they are too few, nearly all after as many epochs as these have run.

    Trials that diverged or failed are left out: what they measured does not stand.

    Returns:
        None if there are too few trials in any case.
    """
    measured = valid_trials(record.trials)
    for epochs in range(record.epochs, 0, -1):
        trials = [trial for trial in measured if len(trial.epochs) >= epochs]
        is_full = epochs == record.epochs
        if len(trials) >= ENOUGH_TRIALS and (is_full or len(trials) >= NEARLY_ALL * len(measured)):
            best = [min(trial.epochs[:epochs], key=record.objective.minimized) for trial in trials]
            values = tuple(record.objective.value(metrics) for metrics in best)
            return EqualBudget(epochs, is_full, tuple(trials), values, len(trials) == len(measured))
    return None
