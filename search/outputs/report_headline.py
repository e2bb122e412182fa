"""The cards at the top of a report: the best configuration, its metrics, and what the study cost."""

from collections import Counter
from collections.abc import Iterator, Mapping

from search.analysis.gain import gain_over_start
from search.analysis.time_accounting import wall_seconds
from search.outputs.confirmation_text import describe_epochs, describe_estimate, describe_interval
from search.outputs.summary import describe_epoch, duration
from search.record.confirmation import Confirmation
from search.record.ranking import baseline_trial, best_trial, ended_trials, epochs_run, epochs_saved, ranked
from search.record.study_record import StudyRecord
from search.record.trial import Metrics, TrialRecord
from search.space.search_space import starting_points
from training.console.terminal import counted, format_metric, format_value
from training.metrics import CONFIDENCE, accuracy_interval


def headline(record: StudyRecord) -> list[tuple[str, str, str]]:
    """Build the cards at the top: the title, the figure and a remark of each."""
    best = best_trial(record.trials)
    metrics = best.best_epoch if best else None
    if best is None or metrics is None:
        return [("trials", str(len(ended_trials(record.trials))), "no trial has valid metrics")]
    if confirmation := record.metadata.confirmation:
        cards = [*_confirmed_cards(confirmation)]
    else:
        values = _listed(best.hyperparameters)
        cards = [("best configuration", values, describe_epoch(record, best))]
        cards += _metric_cards(record, best, metrics)
    counts = Counter(trial.status for trial in record.trials)
    listed = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.most_common())
    cards.append(("trials", str(len(record.trials)), listed))
    if saved := epochs_saved(record.trials, record.epoch_limit):
        total = saved + epochs_run(record.trials)
        cards.append(("epochs saved", f"{saved / total:.0%}", f"{saved} of {total}, by stopping weak trials early"))
    if record.metadata.origin:
        seconds = [trial.seconds for trial in record.trials if trial.seconds is not None]
        return [*cards, ("time of all trials", duration(sum(seconds)), "one after the other")] if seconds else cards
    sessions = record.metadata.sessions
    machine = f"{counted(sessions[-1].cpus, 'core')}, {sessions[-1].machine.processor}" if sessions else ""
    return [*cards, ("time", duration(wall_seconds(record)), machine)]


def _confirmed_cards(confirmation: Confirmation) -> Iterator[tuple[str, str, str]]:
    """Build the cards of a confirmed study: its best configuration, what to expect of it, and the model."""
    confirmed, final, best = confirmation.confirmed, confirmation.final, confirmation.best
    remark = f"trial {confirmed.trial} after {describe_epochs(confirmed.epochs)}, confirmed from new seeds"
    yield "best configuration", _listed(confirmed.hyperparameters), remark
    expected = confirmed.metric
    seeds = f"mean over {len(confirmed.seeds)} new seeds that chose nothing"
    remark = f"{seeds}, {describe_estimate(expected)}"
    yield f"expected {confirmed.metric_name}", format_metric(expected.mean), remark
    if final:
        remark = f"trained once, on all training images; {describe_interval(*final.interval)}"
        yield "test_accuracy of the model", f"{final.test_accuracy:.4f}", remark
    if best:
        remark = f"of all trainings of this configuration, epoch {best.epoch} with seed {best.seed}, so optimistic"
        yield f"{confirmed.metric_name} of the best training", format_metric(best.value), remark


def _listed(hyperparameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in hyperparameters.items())


def _metric_cards(record: StudyRecord, best: TrialRecord, metrics: Metrics) -> Iterator[tuple[str, str, str]]:
    """Build the cards of the best trial's metrics, and of its gain over the settings with which the study started."""
    gain = gain_over_start(record, best)
    if record.metadata.dataset is None:
        extreme, value = "lowest" if record.mode == "min" else "highest", record.objective.value(metrics)
        yield record.metric, format_metric(value), f"the {extreme} of all trials, so slightly optimistic"
        if gain:
            reference = record.objective.value(gain.reference_metrics)
            yield (
                f"gain over the {gain.over}",
                gain.difference(record, record.metric),
                f"these settings reached {record.metric} {format_metric(reference)}",
            )
        return
    if metrics.val_accuracy is not None:
        yield "val_accuracy", f"{metrics.val_accuracy:.4f}", "this metric chose the trial, so it is slightly optimistic"
    images = record.metadata.images.test_images
    low, high = accuracy_interval(metrics.test_accuracy, images)
    interval = f"{CONFIDENCE} % interval {low:.4f} to {high:.4f}, {images:,} images"
    by_test = record.metric.startswith("test_")
    yield (
        "test_accuracy",
        f"{metrics.test_accuracy:.4f}",
        "this metric chose the trial, so it is optimistic" if by_test else interval,
    )
    if gain:
        remark = f"these settings reached test_accuracy {gain.reference_metrics.test_accuracy:.4f}"
        if gain.reference.is_baseline:
            remark += _other_starting_points(record)
        yield f"gain over the {gain.over}", gain.difference(record, "test_accuracy").partition(" of ")[0], remark


def _other_starting_points(record: StudyRecord) -> str:
    """Describe the best starting point with another optimizer: its accuracy takes no search."""
    baseline = baseline_trial(record.trials)
    others = starting_points(record.space, baseline.hyperparameters)[1:] if baseline else []
    best = next((trial for trial in ranked(record.trials) if trial.hyperparameters in others), None)
    metrics = best.best_epoch if best else None
    return (
        f"; the same with optimizer {best.hyperparameters['optimizer']}: {metrics.test_accuracy:.4f}"
        if best and metrics
        else ""
    )
