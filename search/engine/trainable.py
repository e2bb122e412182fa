"""The trainable: the function that Ray Tune calls for each trial."""

import faulthandler
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray import tune

from search.engine.command_training import ProgramError, train_by_command
from search.engine.custom_training import train_custom
from search.engine.shared_data import SharedData
from search.ray_environment import set_ray_environment
from search.record.custom_metrics import CustomMetrics, metric_value
from search.record.trial import Failure, FailureKind, Objective
from search.settings import Mode
from training.checkpoint import Checkpoint
from training.config_fields import make_config
from training.console.terminal import format_metric, format_value, type_and_text
from training.custom_checkpoint import CustomCheckpoint
from training.images.image_data import ImageData
from training.loop import TrainingDivergedError, is_out_of_memory, train
from training.metrics import EpochMetrics
from training.networks.network_config import config_type
from training.user_code import UserCode, describe_error, pass_code


def trainable(
    sample: dict[str, Any],
    *,
    data: ImageData | None,
    shared_data: SharedData | None,
    fixed: dict[str, Any],
    threads: int,
    device: str,
    metric: str,
    mode: Mode,
    timeout: float | None,
    working_folder: Path,
    passed: UserCode | None = None,
) -> None:
    """Train one sampled configuration and report the metrics of each epoch.

    A failure is reported with its text, because the driver does not receive the text of an exception. A training that
    ends before the last epoch reports that it has ended by itself.

    Args:
        sample: The proposal of `SearchAlgorithm.suggest`.
        data: Data of the study, the same object in every trial of a worker; None with a training of the user's own.
        shared_data: Data of a training function, if it has loaded some for all trials.
        fixed: Values that are the same in every trial, those of `Task`.
        threads: Threads that torch, or the user's program, uses.
        device: Device of the network, `cpu` or `cuda`.
        metric: Field of `EpochMetrics` that decides which epoch is the best.
        mode: `max` or `min`.
        timeout: Seconds after which the worker ends itself; None for never.
        working_folder: The folder of the command, in which the user's code runs.
        passed: The training function, if a Python program passed it; None if its import path says where it is.
    """
    set_ray_environment()  # also on the nodes of a cluster
    if passed is not None:
        pass_code(fixed["train_function"], passed)
    torch.set_num_threads(threads)
    # `LocalRay` blocks it; processes of a training need it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    checkpoint = Checkpoint(Path(sample["checkpoint"]), metric, mode) if data else _custom_checkpoint(sample)
    reports = _Reports(sample, checkpoint, Objective(metric, mode))
    try:
        if working_folder.is_dir():  # a node of a cluster may not have it
            os.chdir(working_folder)
        _train(
            fixed,
            sample,
            checkpoint,
            reports,
            data=data.to(device) if data else None,
            shared_data=shared_data,
            threads=threads,
            timeout=timeout,
        )
        if not reports.has_ended and (fixed["epochs"] is None or reports.epoch < fixed["epochs"]):
            tune.report({"ended": True})
    except Exception as error:
        tune.report({"failure": asdict(_failure(error, time.perf_counter() - reports.last_report))})
        if not isinstance(error, TrainingDivergedError | ProgramError):
            raise  # Ray then replaces the worker, whose state is unknown


def _train(
    fixed: dict[str, Any],
    sample: dict[str, Any],
    checkpoint: Checkpoint | CustomCheckpoint,
    report: "_Reports",
    *,
    data: ImageData | None,
    shared_data: SharedData | None,
    threads: int,
    timeout: float | None,
) -> None:
    """Run the training of a task; in the engine, this is where its kind matters."""
    if isinstance(checkpoint, Checkpoint):
        assert data is not None, "the data of an image classification"
        with _time_limit(timeout, checkpoint.file):
            _classify(fixed, sample, data, checkpoint, report)
        return
    own = {"epochs": fixed["epochs"], "seed": sample["seed"], "objective": report.objective, "report": report}
    if "command" in fixed:
        own |= {"pattern": fixed["parse"], "threads": threads, "timeout": timeout}
        train_by_command(fixed["command"], sample["hyperparameters"], checkpoint=checkpoint, **own)
        return
    with _time_limit(timeout, checkpoint.file):
        own |= {"number": sample["number"], "data": shared_data}
        train_custom(fixed["train_function"], sample["hyperparameters"], checkpoint=checkpoint, **own)


class _Reports:
    """Reports the epochs of a trial to Ray Tune, and prints them into the log of the worker."""

    def __init__(self, sample: dict[str, Any], checkpoint: Checkpoint | CustomCheckpoint, objective: Objective) -> None:
        self.last_report = time.perf_counter()
        self.epoch: int = sample["epochs_recorded"]
        """The newest epoch that was reported, by this process or an earlier one."""
        self.has_ended = False
        """Whether the last report said that the training has ended by itself."""
        self._number = sample["number"]
        self._checkpoint = checkpoint
        self.objective = objective
        point = ", ".join(f"{name} {format_value(value)}" for name, value in sample["hyperparameters"].items())
        # the log of a worker is what the Ray dashboard shows of a trial
        print(f"trial {self._number}: {point}; seed of the trial {sample['seed']}", flush=True)

    def __call__(self, metrics: EpochMetrics | CustomMetrics, *, is_last: bool = False) -> None:
        """Report an epoch, unless an earlier process has; Ray ends the trial in this call.

        With `is_last`, the training has ended by itself after this epoch, so that no scheduler can stop it any more.
        """
        if metrics.epoch <= self.epoch:
            return
        self.epoch = metrics.epoch
        now = time.perf_counter()
        earlier = metrics.epoch <= self._checkpoint.epochs_restored  # trained, but not reported
        waiting_seconds = None if earlier else now - self.last_report - metrics.seconds
        self.last_report = now
        name = self.objective.metric
        value = metric_value(metrics, name)
        shown = "not measured" if value is None else format_metric(value)
        print(f"trial {self._number}: epoch {self.epoch}: {name} {shown}", flush=True)
        report = {"epoch": self.epoch, "objective": value, "metrics": asdict(metrics)}
        self.has_ended = is_last
        report |= {"ended": True} if is_last else {}
        tune.report(report | {"waiting_seconds": waiting_seconds, "warning": self._checkpoint.take_warning()})


def _custom_checkpoint(sample: dict[str, Any]) -> CustomCheckpoint:
    return CustomCheckpoint(
        Path(sample["checkpoint"]), Path(sample["folder"]), sample["epochs_recorded"], sample["best"]
    )


def _failure(error: Exception, seconds: float) -> Failure:
    """What an error says, in words; `seconds` is the time since the last report."""
    if isinstance(error, TrainingDivergedError):
        return Failure("diverged", str(error), seconds=seconds)
    if isinstance(error, ProgramError):
        return Failure("timeout" if error.is_timeout else "exception", str(error), error.output, seconds)
    trace = "".join(traceback.format_exception(error))
    try:
        kind: FailureKind = "out_of_memory" if is_out_of_memory(error) else "exception"
        text = type_and_text(error) if str(error) else describe_error(error)
    except Exception:  # a class of the user's own that cannot say what is wrong
        kind, text = "exception", type(error).__name__
    return Failure(kind, text, trace, seconds)


def _classify(
    fixed: dict[str, Any], sample: dict[str, Any], data: ImageData, checkpoint: Checkpoint, report: _Reports
) -> None:
    """Train a network to classify images."""
    values = {**fixed, **sample["hyperparameters"], "seed": sample["seed"]}
    training = train(make_config(config_type(fixed["network"]), values), data, checkpoint)
    while (metrics := _next_epoch(training)) is not None:
        report(metrics)


def _next_epoch(training: Iterator[EpochMetrics]) -> EpochMetrics | None:
    """Train one more epoch; a network of the user's own may exit."""
    try:
        return next(training, None)
    except Exception:
        raise
    except BaseException as error:  # not that of Ray, which ends the trial from `report`
        raise RuntimeError(describe_error(error)) from error


def timeout_file(checkpoint: Path) -> Path:
    """Name the file into which a worker writes its stack when its time is up."""
    return checkpoint.with_suffix(".timeout.txt")


@contextmanager
def _time_limit(seconds: float | None, checkpoint: Path) -> Iterator[None]:
    """End this process if the block takes longer; a C thread does this, so it works even if Python hangs."""
    if seconds is None:
        yield
        return
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    timeout_file(checkpoint).unlink(missing_ok=True)
    with timeout_file(checkpoint).open("x") as stream:  # x: a link in a folder that somebody sent is not followed
        faulthandler.dump_traceback_later(seconds, exit=True, file=stream)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
