"""The trainable: the function that Ray Tune calls for each trial."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import ray
from ray import tune

from search.engine.command_training import ProgramError
from search.engine.memory_meter import MemoryMeter, give_back_memory
from search.engine.runners import TrialRun, runner_of
from search.engine.shared_data import SharedData
from search.engine.trial_files import TrialFiles, trial_files
from search.ray_environment import set_ray_environment
from search.record.trial import Failure, FailureKind, Objective
from search.task.custom_metrics import CustomMetrics, metric_value
from search.task.task import Task
from training.checkpoint import Checkpoint
from training.console.terminal import format_metric, format_value, type_and_text
from training.images.image_data import ImageData
from training.loop import TrainingDivergedError, TrainingLeftError
from training.metrics import EpochMetrics
from training.micro_batch import is_out_of_memory
from training.threads import THREAD_VARIABLES, use_threads
from training.user_code import UserCode, describe_error, pass_code

SECONDS_BETWEEN_LOOKS = 2.0
"""How often a worker looks whether its machine will be switched off."""


@dataclass(frozen=True, kw_only=True)
class TrainableOptions:
    """What all trials of a study have in common, besides their data."""

    task: Task
    objective: Objective
    """Decides which epoch is the best."""
    threads: int
    """Threads that torch, or the user's program, uses."""
    device: str
    """Device of a network that the image training builds, `cpu` or `cuda`."""
    timeout: float | None
    """Seconds after which a worker ends itself; None for never."""
    working_folder: Path
    """The folder of the command, in which the user's code runs."""
    passed: Mapping[str, UserCode] = field(default_factory=dict)
    """Code that a Python program passed, by import path; other paths say where the code is."""
    leaves: Callable[[], bool] = bool
    """Says whether the machine of a worker will be switched off."""


def trainable(
    sample: dict[str, Any], *, options: TrainableOptions, images: ImageData | None, shared_data: SharedData | None
) -> None:
    """Train one sampled configuration and report the metrics of each epoch.

    A failure is reported with its text, because the driver does not receive the text of an exception. A training that
    ends before the last epoch reports that it has ended by itself.

    Args:
        sample: The proposal of `SearchAlgorithm.suggest`.
        options: What all trials of the study have in common.
        images: Those of the study, the same object in every trial of a worker; None if there are none.
        shared_data: Data of a training function, if it has loaded some for all trials.
    """
    _prepare_process(options)
    memory = MemoryMeter()
    reports = _Reports(sample, options.objective, memory)
    try:
        _train(sample, options, reports, memory, images=images, shared_data=shared_data)
        if not reports.has_ended and (options.task.epochs is None or reports.epoch < options.task.epochs):
            _report({"ended": True, "memory": asdict(memory.peaks())})
    except TrainingLeftError:
        _report({"left": True, "memory": asdict(memory.peaks())})
    except Exception as error:
        failure = _failure(error, time.perf_counter() - reports.last_report)
        _report({"failure": asdict(failure), "memory": asdict(memory.peaks())})
        if not isinstance(error, TrainingDivergedError | ProgramError):
            raise  # Ray then replaces the worker, whose state is unknown


def _prepare_process(options: TrainableOptions) -> None:
    """Make a worker, or the process of a test, ready for a trial."""
    set_ray_environment()  # also on the nodes of a cluster
    for path, code in options.passed.items():
        pass_code(path, code)
    use_threads(options.threads)
    # `LocalRay` blocks it; processes of a training need it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if ray.is_initialized():  # a worker, which runs many trials
        os.environ |= dict.fromkeys(THREAD_VARIABLES, str(options.threads))  # for what the training imports
        give_back_memory()


def _train(
    sample: dict[str, Any],
    options: TrainableOptions,
    reports: "_Reports",
    memory: MemoryMeter,
    *,
    images: ImageData | None,
    shared_data: SharedData | None,
) -> None:
    """Train in the user's folder, with the files of the trial, and keep these also if the training has to leave."""
    if options.working_folder.is_dir():  # a node of a cluster may not have it
        os.chdir(options.working_folder)
    with trial_files(sample) as files:
        checkpoint = Checkpoint(files.checkpoint, files.folder, sample["epochs_recorded"], sample["best"])
        checkpoint.must_leave = _asked_seldom(options.leaves)
        run = TrialRun(
            number=sample["number"],
            hyperparameters=sample["hyperparameters"],
            seed=sample["seed"],
            objective=options.objective,
            checkpoint=checkpoint,
            report=reports.of(files, checkpoint),
            images=images,
            shared_data=shared_data,
            threads=options.threads,
            device=options.device,
            timeout=options.timeout,
            publish=files.publishes,
            in_worker=True,
        )
        try:
            with memory:
                runner_of(options.task).train(run)
        except TrainingLeftError:
            files.push()
            raise
        files.push()


def _asked_seldom(leaves: Callable[[], bool]) -> Callable[[], bool]:
    """Ask whether the worker must leave at most every few seconds, because a training asks after each step."""
    next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS

    def must_leave() -> bool:
        nonlocal next_look
        if time.monotonic() < next_look:
            return False
        next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        return leaves()

    return must_leave


class _Reports:
    """Reports the epochs of a trial to Ray Tune, and prints them into the log of the worker."""

    def __init__(self, sample: dict[str, Any], objective: Objective, memory: MemoryMeter) -> None:
        self.last_report = time.perf_counter()
        self.epoch: int = sample["epochs_recorded"]
        """The newest epoch that was reported, by this process or an earlier one."""
        self.has_ended = False
        """Whether the last report said that the training has ended by itself."""
        self._number = sample["number"]
        self._memory = memory
        self.objective = objective
        point = ", ".join(f"{name} {format_value(value)}" for name, value in sample["hyperparameters"].items())
        # the log of a worker is what the Ray dashboard shows of a trial
        print(f"trial {self._number}: {point}; seed of the trial {sample['seed']}", flush=True)

    def of(self, files: TrialFiles, checkpoint: Checkpoint) -> Self:
        """The same, as soon as the files of the trial are here."""
        self._files, self._checkpoint = files, checkpoint
        return self

    def __call__(self, metrics: EpochMetrics | CustomMetrics, *, is_last: bool = False) -> None:
        """Report an epoch, unless an earlier process has; Ray ends the trial in this call.

        With `is_last`, the training has ended by itself after this epoch, so that no scheduler can stop it any more.
        """
        if metrics.epoch <= self.epoch:
            return
        self.epoch = metrics.epoch
        now = time.perf_counter()
        earlier = metrics.epoch <= self._checkpoint.epochs_restored  # trained, but not reported
        waiting_seconds = None if earlier else now - self.last_report - (metrics.seconds or 0.0)
        self.last_report = now
        name = self.objective.metric
        value = metric_value(metrics, name)
        shown = "not measured" if value is None else format_metric(value)
        print(f"trial {self._number}: epoch {self.epoch}: {name} {shown}", flush=True)
        memory = self._memory.peaks(self._checkpoint.micro_batch_size)
        report = {"epoch": self.epoch, "objective": value, "metrics": asdict(metrics), "memory": asdict(memory)}
        self.has_ended = is_last
        report |= {"ended": True} if is_last else {}
        self._files.push()
        if warning := self._files.take_warning():
            self._checkpoint.warn(warning)
        _report(report | {"waiting_seconds": waiting_seconds, "warning": self._checkpoint.take_warning()})


def _report(report: dict[str, Any]) -> None:
    """Report to Ray Tune, from which node."""
    tune.report(report | {"node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""})


def _failure(error: Exception, seconds: float) -> Failure:
    """What an error says, in words; `seconds` is the time since the last report."""
    kind: FailureKind
    if isinstance(error, TrainingDivergedError):
        return Failure("diverged", str(error), seconds=seconds)
    if isinstance(error, ProgramError):
        kind = "timeout" if error.is_timeout else "out_of_memory" if error.is_out_of_memory else "exception"
        return Failure(kind, str(error), error.output, seconds)
    trace = "".join(traceback.format_exception(error))
    try:
        kind = "out_of_memory" if is_out_of_memory(error) else "exception"
        text = type_and_text(error) if str(error) else describe_error(error)
    except Exception:  # a class of the user's own that cannot say what is wrong
        kind, text = "exception", type(error).__name__
    return Failure(kind, text, trace, seconds)
