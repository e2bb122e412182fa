"""Sets gauges at Ray's metrics endpoint while a study runs, for Prometheus and Grafana."""

import re
from typing import get_args

from ray.util.metrics import Gauge

from search.record.columns import distinct_columns
from search.record.ranking import epochs_run
from search.record.study_record import StudyRecord
from search.record.trial import Status, TrialRecord

MOST_SERIES = 1000
"""The first so many trials have a series of their own; each stays in the memory of Ray and of Prometheus to the end."""


class Gauges:
    """The gauges of one study; Ray puts `ray_` before each name."""

    def __init__(self, record: StudyRecord) -> None:
        """Create the gauges, which have no value before the first trial reports."""
        self._record = record
        self._study = {"study": record.folder.name}
        description = f"{record.metric} of a trial after its newest epoch"
        metric = re.sub(r"\W", "_", record.metric)
        (name,) = distinct_columns("metric", [metric], ("epochs", "trials")).values()
        self._metric = Gauge(f"tunesmith_{name}", description, ("study", "trial"))
        self._epochs = Gauge("tunesmith_epochs", "epochs that all trials have run", ("study",))
        self._trials = Gauge("tunesmith_trials", "trials by state", ("study", "state"))
        self._epochs_run = epochs_run(record.trials)  # a counter, because the sum over all trials takes ever longer

    def epoch(self, trial: TrialRecord) -> None:
        """Set the gauges after a new epoch of a trial."""
        self._epochs_run += 1
        self._epochs.set(self._epochs_run, self._study)
        if trial.number >= MOST_SERIES:
            return
        for metrics in self._record.objective.measured(trial.epochs[-1:]):
            self._metric.set(self._record.objective.value(metrics), {**self._study, "trial": str(trial.number)})

    def ended(self) -> None:
        """Count the trials by state, after a trial has ended."""
        counts = self._record.standings.counts
        for state in get_args(Status):
            self._trials.set(counts[state], {**self._study, "state": state})
