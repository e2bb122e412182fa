"""The result of a confirmation: means and intervals of the best configurations over new seeds, and the winner."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from search.space.distributions import HyperparameterValue
from training.metrics import CONFIDENCE, EpochMetrics, accuracy_interval

FEWEST_SEEDS = 2
"""A standard deviation needs two trainings."""
_UPPER = 0.5 + CONFIDENCE / 200


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the interval in which the mean over all possible seeds is expected."""

    mean: float
    deviation: float
    """Standard deviation of one training; 0 where all agree."""
    low: float
    high: float


def t_interval(values: Sequence[float], deviation: float | None = None) -> Estimate:
    """Mean and Student's interval, mean +- t s / sqrt(n) (Student 1908, "The Probable Error of a Mean", Biometrika 6).

    Args:
        values: Measured in independent trainings; two or more.
        deviation: The standard deviation s if it is known; by default that of the values.
    """
    number, mean = len(values), float(np.mean(values))
    deviation = float(np.std(values, ddof=1)) if deviation is None else deviation
    reach = float(stdtrit(number - 1, _UPPER)) * deviation / math.sqrt(number)
    return Estimate(mean, deviation, mean - reach, mean + reach)


def accuracy_estimate(accuracies: Sequence[float], deviation: float | None = None) -> Estimate:
    """Mean and Student's interval of accuracies, cut off at 0 and 1."""
    estimate = t_interval(accuracies, deviation)
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration of a study, and its metrics from new seeds after its confirmed number of epochs."""

    trial: int
    """Number of its trial in the study."""
    hyperparameters: dict[str, HyperparameterValue]
    metric_name: str
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
    test_accuracies: list[float]
    test_losses: list[float]

    def __post_init__(self) -> None:
        """Refuse values that no trainings can measure."""
        numbers = [self.search_value, self.usual_deviation, *self.values, *self.test_accuracies, *self.test_losses]
        lengths = {len(self.seeds), len(self.values), len(self.test_accuracies), len(self.test_losses)}
        if len(lengths) > 1 or min(numbers) < 0 or max(self.test_accuracies, default=0) > 1 or self.failed < 0:
            raise ValueError(f"the confirmation of trial {self.trial} contradicts itself")
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
        interval = accuracy_estimate if self.metric_name.endswith("accuracy") else t_interval
        return interval(self.values, deviation)

    @property
    def own_deviation(self) -> float:
        """Standard deviation of the metric over its own seeds."""
        return float(np.std(self.values, ddof=1))

    @property
    def optimism(self) -> float:
        """By how much the search's value was better than the mean over new seeds; in units of the metric."""
        difference = self.search_value - self.metric.mean
        return -difference if self.metric_name.endswith("_loss") else difference

    @property
    def test_accuracy(self) -> Estimate:
        """Mean and interval of the test accuracy, which chooses nothing."""
        return accuracy_estimate(self.test_accuracies)

    @property
    def test_loss(self) -> Estimate:
        """Mean and interval of the test loss, which chooses nothing."""
        return t_interval(self.test_losses)


def best_mean_epoch(curves: Sequence[Sequence[float]], *, lowest: bool = False) -> int:
    """The epoch, from 1, with the best mean over trainings of equal length; the earliest of equals.

    There is one epoch for all trainings, because noise would choose the best epoch of each training.
    """
    means = np.mean(np.array(curves), axis=0)
    return int(means.argmin() if lowest else means.argmax()) + 1


def measure(
    trial: int,
    hyperparameters: Mapping[str, HyperparameterValue],
    search_value: float,
    trainings: Mapping[int, Sequence[EpochMetrics] | None],
    metric: str,
    *,
    epochs: int | None = None,
) -> Configuration:
    """Combine the trainings of one configuration.

    Args:
        trial: Number of its trial in the study.
        hyperparameters: The searched hyperparameters.
        search_value: The metric of its trial in the search.
        trainings: By seed, all epochs of each training; None if it did not complete.
        metric: The metric of the study.
        epochs: The trainings are compared after this number; by default the one with the best mean of the metric.
    """
    complete = {seed: training for seed, training in trainings.items() if training is not None}
    if len(complete) < FEWEST_SEEDS:
        complete, epochs = {}, 0
    elif epochs is None:
        curves = [[float(getattr(metrics, metric)) for metrics in training] for training in complete.values()]
        epochs = best_mean_epoch(curves, lowest=metric.endswith("_loss"))
    ends = [training[epochs - 1] for training in complete.values()]
    return Configuration(
        trial=trial,
        hyperparameters=dict(hyperparameters),
        metric_name=metric,
        search_value=search_value,
        epochs=epochs,
        failed=sum(training is None for training in trainings.values()),
        seeds=[*complete],
        values=(values := [float(getattr(metrics, metric)) for metrics in ends]),
        usual_deviation=float(np.std(values, ddof=1)) if values else 0.0,
        test_accuracies=[metrics.test_accuracy for metrics in ends],
        test_losses=[metrics.test_loss for metrics in ends],
    )


def measure_again(winner: Configuration, trainings: Mapping[int, Sequence[EpochMetrics] | None]) -> Configuration:
    """Combine trainings of the winner from other seeds, which chose neither it nor its number of epochs.

    Args:
        winner: The first configuration that `rank` returned.
        trainings: By seed, as for `measure`.
    """
    again = measure(
        winner.trial, winner.hyperparameters, winner.search_value, trainings, winner.metric_name, epochs=winner.epochs
    )
    return replace(again, usual_deviation=winner.usual_deviation)


def rank(configurations: Sequence[Configuration]) -> list[Configuration]:
    """The configurations with their usual deviation, best first.

    The best configuration has the best lower bound of its interval (the best upper bound of a loss). Configurations
    with failed trainings come last: their means are means over the lucky trainings.
    """

    def sort_key(one: Configuration) -> tuple[bool, int, float, float]:
        if not one.is_measured:
            return True, one.failed, 0.0, 0.0
        estimate = one.metric
        if one.metric_name.endswith("_loss"):
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
    """In this unit, above 0 if the first configuration is better, for an accuracy and for a loss."""

    @property
    def is_clear(self) -> bool:
        """Whether the difference is larger than chance explains: its interval excludes 0."""
        return self.estimate.low > 0 or self.estimate.high < 0

    @property
    def sentence(self) -> str:
        """The difference with its interval, as one sentence."""
        digits = 2 if self.unit == "points" else 4
        low, high = (f"{round(bound, digits) + 0.0:+.{digits}f}" for bound in (self.estimate.low, self.estimate.high))
        if not self.is_clear:
            return (
                f"{self.seeds} seeds show no difference between trial {self.first} and trial {self.second} "
                f"({CONFIDENCE} % interval {low} to {high} {self.unit}, paired by seed)."
            )
        comparison = "better" if self.estimate.mean > 0 else "worse"
        return (
            f"Trial {self.first} is {comparison} than trial {self.second} by {abs(self.estimate.mean):.{digits}f} "
            f"{self.unit} ({CONFIDENCE} % interval {low} to {high}, {self.seeds} seeds, paired by seed)."
        )


def difference(first: Configuration, second: Configuration) -> Difference | None:
    """Compare two configurations seed by seed; None if fewer than two seeds are common to both."""
    values, reference = (dict(zip(one.seeds, one.values, strict=True)) for one in (first, second))
    common = [seed for seed in values if seed in reference]
    if len(common) < FEWEST_SEEDS:
        return None
    unit, scale = ("points", 100.0) if first.metric_name.endswith("accuracy") else ("nats", -1.0)
    gains = [scale * (values[seed] - reference[seed]) for seed in common]
    return Difference(first.trial, second.trial, len(common), unit, t_interval(gains))


@dataclass(frozen=True, kw_only=True)
class Final:
    """The winner, trained once on all training images and measured once on the test images."""

    trial: int
    """Number of the configuration in the study."""
    epochs: int
    seed: int
    training_images: int
    test_images: int
    test_accuracy: float
    test_loss: float
    seconds: float

    def __post_init__(self) -> None:
        """Refuse values that no training can measure."""
        numbers = (self.epochs, self.training_images, self.test_images)
        if not 0 <= self.test_accuracy <= 1 or min(self.test_loss, self.seconds) < 0 or min(numbers) < 1:
            raise ValueError(f"a final training cannot have measured {self}")

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the test accuracy on other images of the same kind."""
        return accuracy_interval(self.test_accuracy, self.test_images)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The trainings of a confirmation: configurations from the same new seeds, then the winner from other seeds."""

    study: str
    top: int
    """Number of configurations that the user asked for; the study may have fewer."""
    trials: list[int]
    """Numbers of the configurations' trials in the study, the best first."""
    values: list[float]
    """The metric of each trial in the search."""
    seeds: list[int]
    """The seeds of the trainings that choose the winner."""
    winner_seeds: list[int]
    """The seeds of the trainings that measure the winner."""
    final_seed: int
    """The seed of the training on all images."""

    def __post_init__(self) -> None:
        """Refuse a plan that contradicts itself."""
        if not self.trials or len(self.trials) != len(self.values) or len(self.trials) > self.top:
            raise ValueError(f"trials {self.trials} cannot be the best {self.top}")
        seeds = [*self.seeds, *self.winner_seeds, self.final_seed]
        if min(len(self.seeds), len(self.winner_seeds)) < FEWEST_SEEDS or len({*seeds}) < len(seeds):
            raise ValueError(f"seeds cannot be {seeds}")

    @property
    def choosing_trainings(self) -> int:
        """Number of trainings that choose the winner."""
        return len(self.trials) * len(self.seeds)

    @property
    def all_trainings(self) -> int:
        """Number of trainings that choose the winner or measure it."""
        return self.choosing_trainings + len(self.winner_seeds)


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The result of a confirmation, as the record of the study stores it."""

    configurations: list[Configuration]
    """The configurations and the trainings that chose among them, the winner first; all have the same metric."""
    confirmed: Configuration
    """The winner, measured from seeds that chose nothing."""
    final: Final

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        if not self.configurations or not self.winner.is_measured:
            raise ValueError("a confirmation has no winner")
        if len({one.metric_name for one in [*self.configurations, self.confirmed]}) > 1:
            raise ValueError("a confirmation is of several metrics")
        parts = (self.winner, self.confirmed, self.final)
        if len({(part.trial, part.epochs) for part in parts}) > 1:
            raise ValueError("what was confirmed and trained at last was not the winner")

    @property
    def winner(self) -> Configuration:
        """The chosen configuration."""
        return self.configurations[0]

    @property
    def first_two(self) -> Difference | None:
        """How much better the winner is than the second configuration; None if there is no second one."""
        measured = [one for one in self.configurations if one.is_measured]
        return difference(*measured[:2]) if len(measured) > 1 else None
