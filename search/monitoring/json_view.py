"""Writes what happens in a running study as objects for other programs, beside the plain view for people."""

from dataclasses import dataclass
from typing import Any, Literal

from search.monitoring.terminal import PlainView
from search.outputs.trial_objects import TrialResult, metric_values, trial_values
from search.record.lookup import shown_settings
from search.record.metadata import Dataset
from search.record.ranking import baseline_trial
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.space.distributions import HyperparameterValue
from search.space.search_space import describe
from search.task.metric_names import Mode
from training.console.json_output import write_object


@dataclass(frozen=True, kw_only=True)
class StudyStarted:
    """A study has started, or continues."""

    type: Literal["study_started"] = "study_started"
    name: str
    folder: str
    """Absolute path."""
    task: str
    """What is trained: the data set, or the training function or the program."""
    metric: str
    mode: Mode
    num_samples: int
    """Number of trials after which the study is complete."""
    epochs: int | None
    """Largest number of epochs of a trial; null without a limit."""
    ended: int
    """Number of trials that had ended before; above 0 in a study that is resumed."""
    settings: dict[str, Any]
    """The settings, as in study.json."""
    space: dict[str, Any]
    """The search space, as in study.json: a table for each hyperparameter, with a `value` for a fixed one."""
    dataset: Dataset | None
    """The images; null with a training of your own."""
    max_concurrent_trials: int
    versions: dict[str, str]
    """Of Python and of the packages."""
    dashboard: str | None
    """Address of the Ray dashboard; null without one."""


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A worker begins with a trial, or continues it."""

    type: Literal["trial_started"] = "trial_started"
    trial_number: int
    trial_id: str
    """Ray's name of the trial; a trial that continues gets another one."""
    hyperparameters: dict[str, HyperparameterValue | None]
    """The searched hyperparameters by name; one whose condition does not hold is missing."""
    seed: int
    epochs: int
    """Number of epochs that were finished before; above 0 in a trial that continues."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A trial has finished an epoch, and its metrics are recorded."""

    type: Literal["epoch"] = "epoch"
    trial_number: int
    epoch: int
    """From 1."""
    metrics: dict[str, float | None]
    """All metrics by name; null where nothing was measured, or the value is not finite."""
    seconds: float
    is_best: bool
    """Whether no trial of the study has reached a better value of its metric so far."""


@dataclass(frozen=True, kw_only=True)
class TrialEnded(TrialResult):
    """A trial has ended, or is paused; the last such object of a trial has its final status.

    A trial that is only interrupted does not end.
    """

    type: Literal["trial_ended"] = "trial_ended"
    is_best: bool
    """Whether it is the best of the trials that do not run."""


class JsonView(PlainView):
    """Writes an object for each event of a study, and prints the lines of the plain view, which are for people."""

    def __init__(self, header: list[str], record: StudyRecord, *, max_concurrent_trials: int) -> None:
        """Prepare the view of a study that is about to run.

        Args:
            header: The lines of the header.
            record: The record of the study.
            max_concurrent_trials: Number of trials that can run at the same time.
        """
        super().__init__(header, record)
        self._max_concurrent_trials = max_concurrent_trials
        self._dashboard: str | None = None
        self._has_started = False

    def __exit__(self, *_: object) -> None:
        """Write that the study has started, if no trial had to run."""
        self._write_started()

    def show_dashboard(self, url: str | None, sign_in: str | None = None) -> None:
        """Print the address of the dashboard; the study has not started yet."""
        super().show_dashboard(url, sign_in)
        self._dashboard = f"http://{url}" if url else None

    def begin_trials(self) -> None:
        """Write that the study has started."""
        super().begin_trials()
        self._write_started()

    def show_started(self, trial: TrialRecord) -> None:
        """Write that a trial has started."""
        started = TrialStarted(
            trial_number=trial.number,
            trial_id=trial.trial_id,
            hyperparameters={**trial.hyperparameters},
            seed=trial.seed,
            epochs=len(trial.epochs),
        )
        write_object(started)

    def show_epoch(self, trial: TrialRecord) -> None:
        """Write the last epoch of a trial."""
        metrics = trial.epochs[-1]
        is_best = trial.best_epoch is metrics and self._record.standings.leader is trial
        values = metric_values(self._record, metrics)
        seconds = metrics.seconds
        epoch = Epoch(trial_number=trial.number, epoch=metrics.epoch, metrics=values, seconds=seconds, is_best=is_best)
        write_object(epoch)

    def show_ended(self, trial: TrialRecord) -> None:
        """Write how a trial has ended, and print its line."""
        super().show_ended(trial)
        self._write_ended(trial)

    def show_stopped(self, trial: TrialRecord) -> None:
        """Write that a paused trial has ended."""
        self._write_ended(trial)

    def _write_ended(self, trial: TrialRecord) -> None:
        is_best = trial is self._record.standings.best
        write_object(TrialEnded(**trial_values(self._record, trial), is_best=is_best))

    def _write_started(self) -> None:
        if self._has_started:
            return
        self._has_started = True
        record, metadata = self._record, self._record.metadata
        has_baseline = baseline_trial(record.trials) is not None
        started = StudyStarted(
            name=record.folder.name,
            folder=str(record.folder.resolve()),
            task=metadata.task.name,
            metric=record.metric,
            mode=record.mode,
            num_samples=metadata.settings.num_samples,
            epochs=record.epoch_limit,
            ended=record.standings.num_ended,
            settings=shown_settings(metadata.settings, has_baseline=has_baseline),
            space=describe(record.space),
            dataset=metadata.dataset,
            max_concurrent_trials=self._max_concurrent_trials,
            versions=metadata.sessions[-1].versions,
            dashboard=self._dashboard,
        )
        write_object(started)
