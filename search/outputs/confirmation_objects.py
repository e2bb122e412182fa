"""A confirmation as objects for other programs: the document of `search/confirm.py --json`."""

from dataclasses import dataclass
from typing import Literal

from search.outputs.confirmation_text import describe_result
from search.record.configuration import Configuration
from search.record.confirmation import BestTraining, Confirmation, Final
from search.record.estimate import Estimate
from search.space.distributions import HyperparameterValue
from search.task.metric_names import Mode


@dataclass(frozen=True, kw_only=True)
class MeanOverSeeds:
    """The mean of a metric over seeds."""

    mean: float | None
    standard_deviation: float | None
    """Of one training."""
    low: float | None
    """Lower bound of the 95 % interval of the mean over all possible seeds; null where all values are equal."""
    high: float | None


@dataclass(frozen=True, kw_only=True)
class ConfirmedConfiguration:
    """A configuration that was trained again from new seeds: a row of confirm.csv."""

    trial_number: int
    hyperparameters: dict[str, HyperparameterValue | None]
    epochs: int | None
    """The number of epochs after which the mean is best; null if fewer than two trainings completed."""
    seeds: list[int]
    """Those of the trainings that completed."""
    failed: int
    """Number of trainings that did not complete."""
    values: list[float | None]
    """The metric, by seed."""
    metric: MeanOverSeeds | None
    """Of the metric of the study; null if fewer than two trainings completed."""
    search_value: float | None
    """What the search had measured."""
    optimism: float | None
    """By how much the search's value was better than the mean."""
    test_metrics: dict[str, MeanOverSeeds]
    """Of each metric on test data, which chose nothing."""


@dataclass(frozen=True, kw_only=True)
class FinalTraining:
    """The winner, trained once on all training images: the result of the study."""

    epochs: int
    seed: int
    training_images: int
    test_images: int
    test_accuracy: float
    test_accuracy_low: float
    """Lower bound of Wilson's 95 % interval for the number of test images."""
    test_accuracy_high: float
    test_loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ConfirmationResult:
    """The best configurations of a study, measured over new seeds."""

    metric: str
    mode: Mode
    configurations: list[ConfirmedConfiguration]
    """The winner first, each with the trainings that chose it."""
    confirmed: ConfirmedConfiguration
    """The winner, trained from further seeds, which chose nothing: its mean is the value to expect."""
    final: FinalTraining | None
    """null with a training of your own."""
    best: BestTraining | None
    """Instead of it, the training of the winner from which the model comes."""
    sentences: list[str]
    """The result for people."""


@dataclass(frozen=True, kw_only=True)
class ConfirmationEnded:
    """The document of `search/confirm.py`."""

    type: Literal["confirmation"] = "confirmation"
    name: str
    """The name of the study."""
    folder: str
    exit_status: int
    result: ConfirmationResult | None
    """null if the confirmation ended before its result; standard error says why."""
    model: str | None
    """Folder of the winner's model."""
    resume: str
    """The command line that continues a confirmation without a result."""


def confirmation_result(confirmation: Confirmation) -> ConfirmationResult:
    """The result of a confirmation as an object."""
    return ConfirmationResult(
        metric=confirmation.confirmed.metric_name,
        mode=confirmation.confirmed.mode,
        configurations=[*map(_configuration, confirmation.configurations)],
        confirmed=_configuration(confirmation.confirmed),
        final=_final(confirmation.final) if confirmation.final else None,
        best=confirmation.best,
        sentences=describe_result(confirmation),
    )


def _configuration(one: Configuration) -> ConfirmedConfiguration:
    return ConfirmedConfiguration(
        trial_number=one.trial,
        hyperparameters={**one.hyperparameters},
        epochs=one.epochs or None,
        seeds=one.seeds,
        failed=one.failed,
        values=[*one.values],
        metric=_mean(one.metric, one.own_deviation) if one.is_measured else None,
        search_value=one.search_value,
        optimism=one.optimism if one.is_measured else None,
        test_metrics={name: _mean(test, test.deviation) for name, test in one.test_metrics.items()},
    )


def _mean(estimate: Estimate, deviation: float) -> MeanOverSeeds:
    low, high = (estimate.low, estimate.high) if estimate.has_interval else (None, None)
    return MeanOverSeeds(mean=estimate.mean, standard_deviation=deviation, low=low, high=high)


def _final(final: Final) -> FinalTraining:
    low, high = final.interval
    return FinalTraining(
        epochs=final.epochs,
        seed=final.seed,
        training_images=final.training_images,
        test_images=final.test_images,
        test_accuracy=final.test_accuracy,
        test_accuracy_low=low,
        test_accuracy_high=high,
        test_loss=final.test_loss,
        seconds=final.seconds,
    )
