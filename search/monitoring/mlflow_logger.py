"""Shows a study in MLflow: a run for the study, and in it a nested run for each trial."""

import os
import re
import time
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from search.monitoring.logger import best_epoch, best_name, hyperparameters_and_seed, metric_values
from search.record.file_names import REPORT
from search.record.lookup import shown_settings
from search.record.ranking import best_trial, ended_trials
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord
from training.checkpoint import best_files

EPOCHS_PER_CALL = 100
"""A server accepts up to 1000 metrics in one call."""
MAX_RUNS = 50_000
"""The largest number of runs that a server returns in one answer."""


class MlflowLog:
    """Writes the runs of a study; it finds the runs of earlier sessions by their tags, and continues them."""

    def __init__(self, record: StudyRecord, *, uri: str) -> None:
        """Find or create the run of the study.

        Args:
            record: The study.
            uri: Address of a database or of an MLflow server.
        """
        self._record = record
        self._client = MlflowClient(uri)
        self._experiment = self._find_experiment(uri)
        self._study = self._open_study_run()
        runs = self._find_runs({"mlflow.parentRunId": self._study})
        self._runs: dict[int, str] = {int(run.data.tags["trial_number"]): run.info.run_id for run in runs}
        """Run of each trial, by its number."""
        ended = ("FINISHED", "FAILED")
        self._ended = {int(run.data.tags["trial_number"]) for run in runs if run.info.status in ended}
        self._epochs: dict[int, int] = {}
        """The last epoch that is written of each trial, by its number."""

    def epoch(self, trial: TrialRecord) -> None:
        """Write the new epochs of a trial."""
        run_id, now = self._run(trial), _now()
        new = [metrics for metrics in trial.epochs if metrics.epoch > self._epochs[trial.number]]
        for first in range(0, len(new), EPOCHS_PER_CALL):
            batch = new[first : first + EPOCHS_PER_CALL]
            values = [
                Metric(name, value, now, metrics.epoch)
                for metrics in batch
                for name, value in metric_values(self._record, metrics).items()
            ]
            self._client.log_batch(run_id, metrics=values)
            self._epochs[trial.number] = batch[-1].epoch

    def ended(self, trial: TrialRecord) -> None:
        """Write how a trial ended, and its best value if its metrics are valid."""
        if trial.number in self._ended:
            return
        self.epoch(trial)
        tags = [RunTag("status", trial.status)] + ([RunTag("error", trial.failure.error)] if trial.failure else [])
        values = []
        if best := best_epoch(trial):
            values = [Metric(best_name(self._record), self._record.objective.value(best), _now(), best.epoch)]
        self._client.log_batch(self._runs[trial.number], metrics=values, tags=tags)
        self._client.set_terminated(self._runs[trial.number], "FAILED" if trial.status in FAILED else "FINISHED")
        self._ended.add(trial.number)

    def close(self) -> None:
        """Write the best value of the study, its best model and its report."""
        record, best = self._record, best_trial(self._record.trials)
        for number in self._runs.keys() - self._ended:
            self._client.set_terminated(self._runs[number], "KILLED")
        if best:
            self._client.log_metric(self._study, best_name(record), best.best_value)
            self._client.set_tag(self._study, "best_trial", best.number)
            for file in best_files(record.checkpoints.file(best.number)):
                log = self._client.log_artifacts if file.is_dir() else self._client.log_artifact
                log(self._study, str(file))
        if (record.folder / REPORT).exists():
            self._client.log_artifact(self._study, str(record.folder / REPORT))
        is_complete = len(ended_trials(record.trials)) >= record.metadata.settings.num_samples
        self._client.set_terminated(self._study, "FINISHED" if is_complete else "KILLED")

    def _find_experiment(self, uri: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "tunesmith"
        experiment = self._client.get_experiment_by_name(name)
        if experiment:
            return str(experiment.experiment_id)
        # without a server, MLflow would write into the current folder
        artifacts = None if uri.startswith(("http", "databricks")) else self._record.folder.parent / "mlflow-artifacts"
        return str(self._client.create_experiment(name, artifacts and artifacts.resolve().as_uri()))

    def _open_study_run(self) -> str:
        """Find the run of the study by its name and its first session, or create it; names are not unique."""
        record = self._record
        tags = {"study": record.study.study_name, "study_began": record.metadata.sessions[0].time}
        if runs := self._find_runs(tags):
            run = runs[0]
            self._client.update_run(run.info.run_id, "RUNNING")
            return str(run.info.run_id)
        run = self._client.create_run(self._experiment, tags=tags, run_name=record.folder.name)
        settings = record.metadata.settings
        params = shown_settings(settings, has_baseline=settings.task.may_have_defaults)
        self._client.log_batch(run.info.run_id, params=_params(params))
        return str(run.info.run_id)

    def _find_runs(self, tags: dict[str, str]) -> list[Any]:
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(self._client.search_runs([self._experiment], condition, max_results=MAX_RUNS))

    def _run(self, trial: TrialRecord) -> str:
        """Find or create the run of a trial; the run of an interrupted trial is continued."""
        number = trial.number
        if number not in self._runs:
            tags = {"mlflow.parentRunId": self._study, "trial_number": str(number)}
            run = self._client.create_run(self._experiment, tags=tags, run_name=f"trial-{number:04}")
            self._runs[number] = run.info.run_id
            self._epochs[number] = 0
            self._client.log_batch(run.info.run_id, params=_params(hyperparameters_and_seed(self._record, trial)))
        elif number not in self._epochs:
            history = self._client.get_metric_history(self._runs[number], "seconds")
            self._epochs[number] = max((metric.step for metric in history), default=0)
            self._client.update_run(self._runs[number], "RUNNING")
        return self._runs[number]


def _params(values: dict[str, Any]) -> list[Param]:
    """Make parameters of values; MLflow takes only these characters in a name."""
    return [Param(re.sub(r"[^\w.:/ -]", "_", name), str(value)) for name, value in values.items()]


def _now() -> int:
    """Return the time in milliseconds, as MLflow expects it."""
    return int(time.time() * 1000)
