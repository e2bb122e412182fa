"""The equal budget: trials are compared after the same number of epochs, which is fair to trials that were stopped."""

from dataclasses import dataclass

from search.record.ranking import best_within, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.terminal import counted

ENOUGH_TRIALS = 10
"""Fewer trials are not compared, because they hardly show the effect of a hyperparameter."""
NEARLY_ALL = 0.9
"""At least this part of the trials is compared: a scheduler keeps trials with good values, which hides effects."""


@dataclass(frozen=True)
class EqualBudget:
    """The trials of a study that ran at least `epochs` epochs, with the best value of each in these epochs.

    A training that ended by itself before counts, too: it would not have got better.
    """

    epochs: int
    is_full: bool
    """Whether `epochs` is the number of epochs of a trial that is not stopped early."""
    trials: tuple[TrialRecord, ...]
    values: tuple[float, ...]
    costs: tuple[float, ...]
    """The values, negated if the metric is maximised."""
    part: float
    """The compared part of the valid trials of the study; 1 if all are compared."""

    @property
    def phrase(self) -> str:
        """A phrase that follows the name of the metric and says which values are compared."""
        if self.is_full:
            return f"of the {len(self.trials)} trials that ran in full"
        which = f"all {len(self.trials)}" if self.part == 1 else str(len(self.trials))
        return f"after {counted(self.epochs, 'epoch')}, which {which} trials reached"


def equal_budget(record: StudyRecord) -> EqualBudget | None:
    """Compare the trials that ran in full; if they are too few, compare nearly all trials after fewer epochs.

    Trials that diverged or failed are left out, because their metrics are not valid. None says that there are too few
    trials after any number of epochs.
    """
    measured = valid_trials(record.trials)
    for epochs in range(record.epochs, 0, -1):
        is_full = epochs == record.epochs
        least = max(ENOUGH_TRIALS, 0 if is_full else NEARLY_ALL * len(measured))
        reached = [trial for trial in measured if trial.reached(epochs)]
        if len(reached) < least:
            continue  # most numbers of epochs end here, before the epochs of all trials are looked through
        best = {trial.number: metrics for trial in reached if (metrics := best_within(trial, epochs)) is not None}
        trials = [trial for trial in reached if trial.number in best]
        if len(trials) >= least:
            values = tuple(map(record.objective.value, best.values()))
            costs = tuple(map(record.objective.minimized, best.values()))
            return EqualBudget(epochs, is_full, tuple(trials), values, costs, len(trials) / len(measured))
    return None
