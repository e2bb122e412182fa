"""The gain of the best trial over the settings with which a study starts."""

from dataclasses import dataclass

from search.record.metadata import StudyMetadata
from search.record.ranking import baseline_trial, best_within, ranked
from search.record.study_record import StudyRecord
from search.record.trial import Metrics, TrialRecord
from search.space.search_space import starting_points
from search.task.custom_metrics import metric_value
from training.config import TrialConfig
from training.console.terminal import counted

TUTORIAL_DATASET = "fashion-mnist"
"""The data set for which the tutorial's settings were made; on others they may learn nothing."""


@dataclass(frozen=True)
class Gain:
    """A trial against a reference, both by their best epoch within the same number of epochs."""

    name: str
    """What the reference is."""
    reference: TrialRecord
    epochs: int
    """Epochs of both trials that are compared."""
    metrics: Metrics
    reference_metrics: Metrics
    is_full: bool
    """Whether these are all epochs of both trials."""

    @property
    def over(self) -> str:
        """What the gain is over, and after how many epochs if the trials ran different numbers of them."""
        return self.name if self.is_full else f"{self.name}, both after {counted(self.epochs, 'epoch')}"

    def difference(self, record: StudyRecord, name: str) -> str:
        """The difference of a metric in words; empty if one of the two epochs has not measured it."""
        value, reference = metric_value(self.metrics, name), metric_value(self.reference_metrics, name)
        if value is None or reference is None:
            return ""
        difference = value - reference
        if record.metadata.task.is_accuracy(name):
            return f"{difference * 100:+.1f} points of {name}"
        return f"{name} {'lower' if difference < 0 else 'higher'} by {abs(difference):.4g}"


def baseline_name(metadata: StudyMetadata) -> str:
    """The name of the baseline: the tutorial's settings, or the default settings if some values are fixed."""
    is_unchanged = metadata.task.network == TrialConfig.network and len(metadata.space) == len(metadata.space.ranges)
    return "tutorial's settings" if is_unchanged else "default settings"


def gain_over_start(record: StudyRecord, best: TrialRecord) -> Gain | None:
    """The gain over the tutorial's settings on their own data set, elsewhere over the best of the starting points.

    None says that there is no such trial with valid metrics, or that it is the best one itself.
    """
    baseline = baseline_trial(record.trials)
    if baseline is None:
        return None
    name, reference = baseline_name(record.metadata), baseline
    if record.metadata.task.name != TUTORIAL_DATASET:
        points = starting_points(record.space, baseline.hyperparameters)
        first = record.trials[: len(points)]  # a study begins with them
        at_points = [trial for trial in first if trial.hyperparameters in points]
        if len(at_points) > 1:
            reference = next(iter(ranked(at_points)), baseline)
            name = f"best starting point, trial {reference.number}"
    if reference is best or reference.failure:
        return None
    epochs = min(len(best.epochs), len(reference.epochs))
    best_epoch, reference_epoch = (best_within(trial, epochs) for trial in (best, reference))
    if best_epoch is None or reference_epoch is None:
        return None
    is_full = len(best.epochs) == len(reference.epochs)
    return Gain(name, reference, epochs, best_epoch, reference_epoch, is_full=is_full)
