"""Studies driven by hand, without Ray and without training, for tests."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import optuna

from search.algorithms.samplers import tpe
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.engine.custom_training import train_custom
from search.record.metadata import Dataset, StudyMetadata
from search.record.postgresql import ServerStorage
from search.record.provenance import Machine, Session
from search.record.study_record import StudyRecord
from search.record.trial import Failure, Objective, Timing, TrialRecord
from search.settings import StudySettings
from search.simulation.simulator import MemoryStorage
from search.space.encoding import SpaceEncoding
from search.space.search_space import SearchSpace
from search.space.toml_file import default_space
from search.task.custom_metrics import CustomMetrics
from search.task.image_task import MetricName
from training.checkpoint import Checkpoint
from training.images import image_data
from training.metrics import EpochMetrics
from training.networks.network_config import config_type

DEFAULT_SPACE = default_space("mlp")
BY_LOSS = Objective("val_loss", "min")


def reported(
    training: Iterable[EpochMetrics], checkpoint: Checkpoint, objective: Objective = BY_LOSS
) -> Iterator[EpochMetrics]:
    """The epochs of a training of images, of which a study tells its checkpoint that they are recorded."""
    for metrics in training:
        checkpoint.measured(metrics.epoch, objective.minimized(metrics))
        checkpoint.reported(metrics.epoch)
        yield metrics


def without_seconds(epochs: list[EpochMetrics]) -> list[EpochMetrics]:
    """The epochs of a training, which are equal in equal trainings."""
    return [replace(metrics, seconds=0, evaluation_seconds=0) for metrics in epochs]


DEFAULTS = asdict(config_type("mlp")())
FULL_EPOCHS = 3
NUMBERS = ["epoch", "train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]
"""Columns of `epochs.csv` that are equal in equal trainings: not when and where an epoch was run."""


def metrics(epoch: int, val_accuracy: float) -> EpochMetrics:
    """Metrics whose other numbers can be told from the validation accuracy."""
    return EpochMetrics(
        epoch=epoch,
        train_loss=1.5 - val_accuracy,
        val_accuracy=val_accuracy,
        val_loss=1.2 - val_accuracy,
        test_accuracy=max(0.0, val_accuracy - 0.01),
        test_loss=1.3 - val_accuracy,
        seconds=0.5,
        evaluation_seconds=0.1,
    )


def search(record: StudyRecord, num_ended: int = 1000) -> SearchAlgorithm:
    """A search algorithm that has as many trials to propose as a test wants."""
    return SearchAlgorithm(record, tpe(len(record.trials)), seed=0, num_ended=num_ended, stopper=StudyStopper())


def run_function(
    import_path: str, hyperparameters: dict[str, Any], *, epochs: int, seed: int = 0, folder: Path
) -> list[CustomMetrics]:
    """Run a training function for its `loss`, the lowest of which is the best."""
    measured: list[CustomMetrics] = []
    objective, checkpoint = Objective("loss", "min"), Checkpoint(folder / "trial-0000.pt", folder / "0000")
    train_custom(
        import_path,
        hyperparameters,
        number=0,
        epochs=epochs,
        seed=seed,
        objective=objective,
        checkpoint=checkpoint,
        report=lambda metrics, **_: measured.append(metrics),
    )
    return measured


SESSION = Session(
    time="2026-01-01T00:00:00+00:00",
    command="python search/run.py",
    versions={"python": "3.11"},
    git_commit=None,
    machine=Machine(system="Linux", processor="a processor", cpus=2, memory_gib=24.0, gpus=[]),
    max_concurrent_trials=2,
    cpus_per_trial=1,
)


def metadata(metric: MetricName = "val_accuracy", space: SearchSpace = DEFAULT_SPACE, **settings: Any) -> StudyMetadata:
    """What a study that was run says of itself."""
    dataset = Dataset(
        name="digits",
        sha256="not the whole data set",
        classes=[str(digit) for digit in range(10)],
        training_images=1198,
        validation_images=240,
        test_images=359,
        image_shape=[1, 8, 8],
        class_images=[180] * 10,
    )
    values: dict[str, Any] = {"dataset": "digits", "epochs": FULL_EPOCHS, "metric": metric} | settings
    return StudyMetadata(settings=StudySettings(**values), space=space, dataset=dataset, sessions=[SESSION])


@contextmanager
def few_digits() -> Iterator[None]:
    """While this lasts, studies of this process that load the digits get a fifth of them."""
    (images, labels), (test_images, test_labels), classes = image_data._load_digits()
    few = (images[::5], labels[::5]), (test_images[::5], test_labels[::5]), classes
    with mock.patch.object(image_data, "_load_digits", return_value=few):
        yield


class HandDrivenStudy:
    """Asks, reports and ends trials in the order that Ray does."""

    def __init__(
        self,
        folder: Path,
        *,
        metric: Literal["val_accuracy", "val_loss"] = "val_accuracy",
        server: ServerStorage | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.record = StudyRecord.create(folder, metadata(metric), server=server)
        self.record.enqueue_starting_points(most=1)
        self.search = search(self.record)
        self._clock = 10.0

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Ask for a configuration that there is."""
        proposal = self.search.suggest(trial_id)
        assert isinstance(proposal, dict)
        return proposal

    def timing(self) -> Timing:
        """Where and when the next epoch is run: by one worker, with a quarter of a second between two epochs."""
        self._clock += 0.75
        return Timing(session=0, node=0, pid=1, waiting_seconds=0.25, reported=self._clock)

    def run_trial(self, *val_accuracies: float, failure: Failure | None = None) -> TrialRecord:
        """Run one trial that reports these accuracies, and then perhaps fails."""
        trial_id = f"ray{len(self.record.trials)}"
        self.suggest(trial_id)
        for epoch, accuracy in enumerate(val_accuracies, start=1):
            self.record.add_epoch(trial_id, metrics(epoch, accuracy), self.timing())
        if failure:
            self.record.add_failure(trial_id, failure, self.timing())
        return self.record.finish(trial_id)

    def run_one_of_each(self) -> None:
        """Run a completed baseline, a better trial, one stopped, one diverged, two failed, one cut off."""
        self.run_trial(0.5, 0.6, 0.6)
        self.run_trial(0.7, 0.9, 0.8)
        self.run_trial(0.4)
        self.run_trial(0.99, failure=Failure("diverged", "train_loss is nan in epoch 2 after 64 images"))
        self.run_trial(failure=Failure("exception", "ValueError: boom", "Traceback ...\nValueError: boom"))
        self.run_trial(0.65, failure=Failure("worker_died", "worker died: killed"))
        self.suggest("cut off")
        self.record.add_epoch("cut off", metrics(1, 0.55))
        self.record.interrupt_running()


def planted_study(
    folder: Path,
    curve: Callable[[dict[str, Any]], list[float]],
    *,
    trials: int = 40,
    space: SearchSpace = DEFAULT_SPACE,
    epochs: int = 10,
    seed: int = 0,
) -> StudyRecord:
    """A study of random points whose validation accuracies a function gives, by epoch; nothing is written.

    A curve shorter than the epochs is that of a trial that was stopped early; one that ends in NaN diverged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    server: Any = MemoryStorage()
    planted = metadata(space=space, epochs=epochs, num_samples=trials)
    record = StudyRecord.create(folder, planted, server=server)
    encoding = SpaceEncoding(space)
    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    for number in range(trials):
        point = encoding.decode(drawing.ask(encoding.optuna_distributions).params)
        trial = TrialRecord(number, f"ray{number}", point, seed + number, record.objective)
        record.trials.append(trial)
        accuracies = curve(point)
        diverged = bool(accuracies) and math.isnan(accuracies[-1])
        for epoch, accuracy in enumerate(accuracies[:-1] if diverged else accuracies, start=1):
            trial.add_epoch(metrics(epoch, accuracy), None)
        trial.status = "completed" if len(trial.epochs) == epochs else "stopped_early"
        if diverged:
            trial.add_failure(Failure("diverged", "train_loss is nan"), None)
            trial.status = "diverged"
    return record
