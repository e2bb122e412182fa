"""Train one configuration and print what the PyTorch tutorial prints."""

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from training.config import DataConfig, TrialConfig, check_seed
from training.console.command_line import option_value, parse, refuse, run_command
from training.console.json_output import write_object
from training.networks.network_config import config_type

if TYPE_CHECKING:
    from training.images.image_data import ImageData
    from training.metrics import EpochMetrics


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(DataConfig, TrialConfig):
    """Options of `python training/run.py`."""

    split_seed: int | None = None
    """Seed of the choice of the validation images; by default the same as --seed."""
    threads: int | None = None
    """Number of torch threads; by default torch chooses it."""
    json: bool = False
    """For other programs: write one JSON object a line to standard output while the training runs, and all text to
    standard error. docs/programs.md explains it."""

    def __post_init__(self) -> None:
        TrialConfig.__post_init__(self)
        DataConfig.__post_init__(self)
        if self.split_seed is not None:
            check_seed("split_seed", self.split_seed)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be >= 1, got {self.threads}")


@dataclass(frozen=True, kw_only=True)
class TrainingStarted:
    """A training begins."""

    type: Literal["training_started"] = "training_started"
    dataset: str
    training_images: int
    validation_images: int
    test_images: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class TrainingEpoch:
    """A training has finished an epoch."""

    type: Literal["training_epoch"] = "training_epoch"
    epoch: int
    """From 1."""
    metrics: dict[str, float | None]
    """By name; null without validation images."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainingEnded:
    """A training has ended."""

    type: Literal["training_ended"] = "training_ended"
    exit_status: int
    epochs: int
    """Number of finished epochs."""
    error: str | None
    """Why it ended early."""


def settings_type(network: str) -> type[TrainingSettings]:
    """`TrainingSettings` with the hyperparameters of a network; a ValueError says that there is no such network."""
    config = config_type(network)

    def check(self: TrainingSettings) -> None:
        TrainingSettings.__post_init__(self)
        config.__post_init__(self)

    namespace = {"__doc__": TrainingSettings.__doc__, "__post_init__": check, "__module__": __name__}
    return dataclass(frozen=True, kw_only=True)(type("TrainingSettings", (TrainingSettings, config), namespace))


def main() -> int:
    """Train as the command line says; returns the exit status."""
    try:
        settings_class = settings_type(option_value(sys.argv[1:], "--network") or TrialConfig.network)
    except ValueError as error:
        refuse(str(error))
    settings = parse(settings_class, __doc__ or "")

    from training.micro_batch import is_out_of_memory  # torch takes a second or two: --help does without

    try:
        return _train(settings)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        refuse(f"this training needs more memory than is available: {error}")


def _train(settings: TrainingSettings) -> int:
    """Train; returns the exit status."""
    import torch

    from training.console.progress_bar import progress_bar, shows_more_than_lines
    from training.images.image_data import load_data
    from training.loop import Training, TrainingDivergedError

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        data, warning = load_data(settings, settings.seed if settings.split_seed is None else settings.split_seed)
    except (ValueError, OSError) as error:
        refuse(str(error))
    if warning:
        print(f"WARNING: {warning}\n")
    print(f"{data.name}: {len(data.train)} training, {len(data.val)} validation, {len(data.test)} test images\n")
    try:
        training = Training(settings, data)
    except ValueError as error:
        refuse(str(error))
    write_object(_started(settings, data))
    on_terminal = shows_more_than_lines()
    reason, status, together = None, 0, None
    try:
        for epoch in range(1, settings.epochs + 1):
            print(f"Epoch {epoch}\n-------------------------------")
            with progress_bar(f"Epoch {epoch} of {settings.epochs}", len(data.train)) as show:
                for batch, (loss, images_seen) in enumerate(training.train_epoch()):
                    if batch % 100 == 0:
                        line = f"loss: {loss.item():>7f}  [{images_seen:>5d}/{len(data.train):>5d}]"
                        show(images_seen, line) if on_terminal else print(line)
                metrics = training.measure_epoch()
            if training.micro_batch.size != together:
                together = training.micro_batch.size
                limit = f"at most {together} images go through the network at a time, and gradients are added up"
                print(f"The memory does not suffice for whole batches: {limit}.\n")
            if metrics.val_accuracy is not None:
                print(f"Validation Error: \n Accuracy: {metrics.val_accuracy:.1%}, Avg loss: {metrics.val_loss:>8f} \n")
            print(f"Test Error: \n Accuracy: {metrics.test_accuracy:.1%}, Avg loss: {metrics.test_loss:>8f} \n")
            write_object(_finished_epoch(metrics))
    except TrainingDivergedError as diverged:
        reason, status = f"Diverged: {diverged}; a lower learning rate usually helps", 1
        print(reason, file=sys.stderr)
    except KeyboardInterrupt:
        reason, status = f"Interrupted in epoch {training.epoch}.", 130
        print(f"\n{reason}", file=sys.stderr)
    else:
        print("Done!")
    write_object(TrainingEnded(exit_status=status, epochs=len(training.metrics), error=reason))
    return status


def _started(settings: TrainingSettings, data: "ImageData") -> TrainingStarted:
    return TrainingStarted(
        dataset=data.name,
        training_images=len(data.train),
        validation_images=len(data.val),
        test_images=len(data.test),
        epochs=settings.epochs,
    )


def _finished_epoch(measured: "EpochMetrics") -> TrainingEpoch:
    values = asdict(measured)
    metrics = {name: value for name, value in values.items() if name.endswith(("_loss", "_accuracy"))}
    return TrainingEpoch(epoch=measured.epoch, metrics=metrics, seconds=measured.seconds)


if __name__ == "__main__":
    run_command(main, outlive_reader=False)
