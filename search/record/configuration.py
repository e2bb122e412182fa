"""A configuration of a study, measured from several seeds: means and intervals, the winner, differences."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from search.record.estimate import FEWEST_SEEDS, Estimate, accuracy_estimate, best_mean_epoch, cut, t_interval
from search.record.trial import Metrics, Objective
from search.space.distributions import HyperparameterValue
from search.task.custom_metrics import metric_value
from search.task.metric_names import Mode, words_of
from search.task.task import POINTS, Task
from training.metrics import CONFIDENCE

SHARES = {"accuracy", "acc", "f1", "auc", "auroc", "precision", "recall", "iou", "dice", "percent", "percentage", "pct"}
"""Words in the name of a metric that is a part of a whole."""
NO_SHARES = {"loss", "error", "err", "log", "difference", "diff", "delta"}
"""Words in the name of a metric that is none in spite of such a word."""
UNMEASURED = "so the influence of the seed could not be measured"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration of a study, and its metrics from new seeds after its confirmed number of epochs."""

    trial: int
    """Number of its trial in the study."""
    hyperparameters: dict[str, HyperparameterValue]
    metric_name: str
    mode: Mode
    unit: str
    """The unit of differences of the metric, as `Task.unit` gives it."""
    search_value: float
    """The metric of its trial in the search, at the trial's best epoch."""
    epochs: int
    """The trainings are compared after this number of epochs; 0 if fewer than two of them completed."""
    failed: int
    """Number of trainings that did not complete; they have no seeds and values here."""
    seeds: list[int]
    values: list[float]
    """The metric of the study, by seed."""
    usual_deviation: float
    """Median of the standard deviations over seeds of the configurations that were confirmed together."""
    test_values: dict[str, list[float]]
    """By name, each metric on test data, by seed; these chose nothing."""
    validation_images: int = 0
    """0 without images, and in the records of earlier versions."""
    test_images: int = 0
    largest_values: dict[str, float] = field(default_factory=dict)
    """By name, the largest possible value of each metric of a user's training that is a part of a whole, 1 or 100."""

    def __post_init__(self) -> None:
        """Refuse values that no trainings can measure."""
        tested = [value for values in self.test_values.values() for value in values]
        lengths = {len(self.seeds), *map(len, [self.values, *self.test_values.values()])}
        if len(lengths) > 1 or self.usual_deviation < 0 or self.failed < 0:
            raise ValueError(f"the confirmation of trial {self.trial} contradicts itself")
        if self._has_unit:
            accuracies = self.test_values.get("test_accuracy", [])
            if min([self.search_value, *self.values, *tested]) < 0 or max(accuracies, default=0) > 1:
                raise ValueError(f"the confirmation of trial {self.trial} has metrics that no images have")
        if not {*self.largest_values.values()} <= {1.0, 100.0}:
            raise ValueError(f"the metrics of trial {self.trial} cannot have the bounds {self.largest_values}")
        if self.epochs < 0 or (self.epochs > 0) != (len(self.seeds) >= FEWEST_SEEDS):
            raise ValueError(f"trial {self.trial} cannot have {self.epochs} confirmed epochs")

    @property
    def is_measured(self) -> bool:
        """Whether enough trainings completed for an interval."""
        return self.epochs > 0

    @property
    def metric(self) -> Estimate:
        """The metric of the study; the interval allows for the choice of a winner.

        The best lower bound of several intervals probably belongs to a configuration whose few seeds agree by luck, and
        whose own deviation makes the interval too short. So the deviation is at least the median of all deviations;
        `docs/confirm.md` measures the effect of this rule.
        """
        deviation = max(self.own_deviation, self.usual_deviation)
        if self.is_accuracy:
            return accuracy_estimate(self.values, self.validation_images, deviation)
        return cut(t_interval(self.values, deviation), self.largest_values.get(self.metric_name))

    @property
    def cut_off_at(self) -> list[float]:
        """The bounds at which the interval of the metric ends, because a part of a whole lies between them."""
        largest = self.largest_values.get(self.metric_name)
        if largest is None or not self.metric.has_interval:
            return []
        return [bound for bound in (0.0, largest) if bound in (self.metric.low, self.metric.high)]

    @property
    def own_deviation(self) -> float:
        """Standard deviation of the metric over its own seeds."""
        return float(np.std(self.values, ddof=1))

    @property
    def optimism(self) -> float:
        """By how much the search's value was better than the mean over new seeds; in units of the metric."""
        difference = self.search_value - self.metric.mean
        return -difference if self.mode == "min" else difference

    @property
    def test_metrics(self) -> dict[str, Estimate]:
        """Mean and interval of each metric on test data, which chooses nothing; empty without enough trainings."""
        if not self.is_measured:
            return {}
        return {
            name: accuracy_estimate(values, self.test_images)
            if self._has_unit and name.endswith("accuracy")
            else cut(t_interval(values), self.largest_values.get(name))
            for name, values in self.test_values.items()
        }

    @property
    def varies(self) -> bool:
        """Whether trainings from different seeds measured different values."""
        return any(len({*values}) > 1 for values in (self.values, *self.test_values.values()))

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric is an accuracy in [0, 1], which differs by points."""
        return self._has_unit and self.unit == POINTS

    @property
    def _has_unit(self) -> bool:
        return self.unit != self.metric_name  # that of a training function has no other unit


def measure(
    trial: int,
    hyperparameters: Mapping[str, HyperparameterValue],
    search_value: float,
    trainings: Mapping[int, Sequence[Metrics] | None],
    *,
    objective: Objective,
    task: Task,
    epochs: int | None = None,
) -> Configuration:
    """Combine the trainings of one configuration.

    Args:
        trial: Number of its trial in the study.
        hyperparameters: The searched hyperparameters.
        search_value: The metric of its trial in the search.
        trainings: By seed, all epochs of each training; None if it did not complete.
        objective: The objective of the study.
        task: The task of the study, which names its metrics.
        epochs: The trainings are compared after this number; by default the one with the best mean of the metric.
    """
    if epochs is None:
        curves = [_curve(training, objective) for training in trainings.values() if training is not None]
        epochs = best_mean_epoch(curves, lowest=objective.mode == "min") if curves else 0
    measured = {seed: objective.measured((training or [])[:epochs]) for seed, training in trainings.items()}
    complete = {seed: epochs_measured[-1] for seed, epochs_measured in measured.items() if epochs_measured}
    if len(complete) < FEWEST_SEEDS:
        complete, epochs = {}, 0
    ends = [*complete.values()]
    tested = {name: [metric_value(metrics, name) for metrics in ends] for name in task.test_metrics}
    return Configuration(
        trial=trial,
        hyperparameters=dict(hyperparameters),
        metric_name=objective.metric,
        mode=objective.mode,
        unit=task.unit(objective.metric),
        search_value=search_value,
        epochs=epochs,
        failed=sum(not epochs_measured for epochs_measured in measured.values()),
        seeds=[*complete],
        values=(values := [objective.value(metrics) for metrics in ends]),
        usual_deviation=float(np.std(values, ddof=1)) if values else 0.0,
        test_values={
            name: numbers
            for name, values in tested.items()
            if len(numbers := [value for value in values if value is not None]) == len(values)
        },
    )


def _curve(training: Sequence[Metrics], objective: Objective) -> list[float]:
    """The metric after each epoch, or its last value where an epoch has none; infinitely bad before the first value."""
    newest, curve = math.inf if objective.mode == "min" else -math.inf, []
    for metrics in training:
        value = metric_value(metrics, objective.metric)
        newest = newest if value is None else value
        curve.append(newest)
    return curve


def measure_again(
    winner: Configuration, trainings: Mapping[int, Sequence[Metrics] | None], *, objective: Objective, task: Task
) -> Configuration:
    """Combine trainings of the winner from other seeds, which chose neither it nor its number of epochs.

    Args:
        winner: The first configuration that `rank` returned.
        trainings: By seed, as for `measure`.
        objective: The objective of the study.
        task: The task of the study.
    """
    values = (winner.trial, winner.hyperparameters, winner.search_value)
    again = measure(*values, trainings, objective=objective, task=task, epochs=winner.epochs)
    return replace(
        again,
        usual_deviation=winner.usual_deviation,
        validation_images=winner.validation_images,
        test_images=winner.test_images,
        largest_values=winner.largest_values,
    )


def largest_value(name: str, values: Iterable[float]) -> float | None:
    """The largest possible value of a metric of a user's training that is a part of a whole; None if it is not one.

    Nobody has told what the metric is: its name must say so, and all its values must lie in [0, 1], or in [0, 100] for
    a percentage.
    """
    words, values = words_of(name), list(values)
    if not words & SHARES or words & NO_SHARES or not values or min(values) < 0 or max(values) > 100:
        return None
    return 1.0 if max(values) <= 1 else 100.0


def rank(configurations: Sequence[Configuration]) -> list[Configuration]:
    """The configurations with their usual deviation, best first.

    The best configuration has the best lower bound of its interval; where the lowest value is the best, the best upper
    bound. Configurations with failed trainings come last: their means are means over the lucky trainings.
    """

    def sort_key(one: Configuration) -> tuple[bool, int, float, float]:
        if not one.is_measured:
            return True, one.failed, 0.0, 0.0
        estimate = one.metric
        if one.mode == "min":
            return False, one.failed, estimate.high, estimate.mean
        return False, one.failed, -estimate.low, -estimate.mean

    deviations = [one.own_deviation for one in configurations if one.is_measured]
    usual = float(np.median(deviations)) if deviations else 0.0
    return sorted((replace(one, usual_deviation=usual) for one in configurations), key=sort_key)


@dataclass(frozen=True)
class Difference:
    """How much better one configuration is than another, over the seeds from which both were trained."""

    first: int
    second: int
    seeds: int
    unit: str
    estimate: Estimate
    """In this unit, above 0 if the first configuration is better, whether the metric is maximised or minimised."""

    @property
    def is_clear(self) -> bool:
        """Whether the difference is larger than chance explains: its interval excludes 0."""
        return self.estimate.has_interval and (self.estimate.low > 0 or self.estimate.high < 0)

    @property
    def sentence(self) -> str:
        """The difference with its interval, as one sentence."""
        low, high = (_signed(bound, self.unit) for bound in (self.estimate.low, self.estimate.high))
        comparison = "better" if self.estimate.mean > 0 else "worse"
        size = format_difference(abs(self.estimate.mean), self.unit)
        better_by = f"{comparison} than trial {self.second} by {size} {self.unit}"
        if not self.estimate.has_interval and self.estimate.mean:
            return f"Trial {self.first} was {better_by} from each of {self.seeds} seeds, {UNMEASURED}."
        if not self.is_clear:
            return (
                f"{self.seeds} seeds show no difference between trial {self.first} and trial {self.second} "
                f"({CONFIDENCE} % interval {low} to {high} {self.unit}, paired by seed)."
            )
        interval = f"{CONFIDENCE} % interval {low} to {high}, {self.seeds} seeds, paired by seed"
        return f"Trial {self.first} is {better_by} ({interval})."


def format_difference(size: float, unit: str) -> str:
    """The size of a difference as text, without its unit."""
    return f"{size:.2f}" if unit == POINTS else f"{size:.4g}"


def _signed(difference: float, unit: str) -> str:
    size = format_difference(abs(difference), unit)
    return f"{'-' if difference < 0 and float(size) else '+'}{size}"


def difference(first: Configuration, second: Configuration) -> Difference | None:
    """Compare two configurations seed by seed; None if fewer than two seeds are common to both."""
    values, reference = (dict(zip(one.seeds, one.values, strict=True)) for one in (first, second))
    common = [seed for seed in values if seed in reference]
    if len(common) < FEWEST_SEEDS:
        return None
    scale = (100.0 if first.is_accuracy else 1.0) * (-1 if first.mode == "min" else 1)
    gains = [scale * (values[seed] - reference[seed]) for seed in common]
    step = abs(scale) / first.validation_images if first.is_accuracy and first.validation_images else 0.0
    return Difference(first.trial, second.trial, len(common), first.unit, t_interval(gains, step=step))
