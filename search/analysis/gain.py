"""The gain of a study over its baseline."""

from search.record.custom_metrics import metric_value
from search.record.metadata import StudyMetadata
from search.record.ranking import baseline_trial
from search.record.study_record import StudyRecord
from search.record.trial import Metrics
from training.config import TrialConfig


def baseline_name(metadata: StudyMetadata) -> str:
    """The name of the baseline: the tutorial's settings, or the default settings if some values are fixed."""
    is_unchanged = metadata.task.network == TrialConfig.network and len(metadata.space) == len(metadata.space.ranges)
    return "tutorial's settings" if is_unchanged else "default settings"


def gain_over_baseline(record: StudyRecord, best: Metrics, name: str) -> str | None:
    """The difference of a metric from the baseline's best epoch, as text; None without a baseline."""
    baseline = baseline_trial(record.trials)
    if baseline is None or baseline.best_epoch is None:
        return None
    value, before = metric_value(best, name), metric_value(baseline.best_epoch, name)
    if value is None or before is None:
        return None
    gain = value - before
    in_points = record.metadata.task.is_accuracy(name)
    return f"{gain * 100:+.1f} points of {name}" if in_points else f"{gain:+.4g} {name}"
