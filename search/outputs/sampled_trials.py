"""Chooses the trials that charts and tables of a page show where a study has too many for a browser."""

import copy
from dataclasses import replace
from itertools import accumulate

from search.analysis.equal_budget import EqualBudget
from search.record.ranking import baseline_trial, ranked, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord

MOST_SHOWN = 1000
"""Trials in the charts and in the table at most: a page with 10,000 takes a browser half a minute."""
BEST_SHOWN = 200
"""How many of them are the best ones in the charts."""


def drawn(record: StudyRecord) -> StudyRecord:
    """The study with the trials that charts show.

    Of too many they show the baseline, the best ones, each that was the best so far, and others at equal distances in
    the order of proposal.
    """
    trials = record.trials
    if len(trials) <= MOST_SHOWN:
        return record
    best = [trial.number for trial in ranked(trials)[:BEST_SHOWN]]
    incumbents = [trial.number for trial in accumulate(valid_trials(trials), _better)]
    baseline = baseline_trial(trials)
    chosen = {*best, *incumbents, *([baseline.number] if baseline else [])}
    others = [trial.number for trial in trials if trial.number not in chosen]
    places = max(0, MOST_SHOWN - len(chosen))
    chosen |= {others[place * len(others) // places] for place in range(min(places, len(others)))}
    shown = copy.copy(record)
    shown.trials = [trial for trial in trials if trial.number in chosen]
    return shown


def drawn_of(compared: EqualBudget, shown: StudyRecord) -> EqualBudget:
    """Those of the compared trials that charts show."""
    numbers = {trial.number for trial in shown.trials}
    kept = [place for place, trial in enumerate(compared.trials) if trial.number in numbers]
    return replace(
        compared,
        trials=tuple(compared.trials[place] for place in kept),
        values=tuple(compared.values[place] for place in kept),
        costs=tuple(compared.costs[place] for place in kept),
    )


def describe_drawn(record: StudyRecord) -> list[str]:
    """Say which trials a page shows, if it does not show all."""
    total = len(record.trials)
    if total <= MOST_SHOWN:
        return []
    charted = len(drawn(record).trials)
    return [
        f"The charts show {charted:,} of the {total:,} trials: the best {BEST_SHOWN}, each that was the best so far, "
        f"and others at equal distances. The table has the best {MOST_SHOWN:,}; trials.csv has all."
    ]


def _better(earlier: TrialRecord, later: TrialRecord) -> TrialRecord:
    objective = earlier.objective
    return later if objective.minimized(later.best_epoch) < objective.minimized(earlier.best_epoch) else earlier
