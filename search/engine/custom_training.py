"""Runs a training function, of the user's own or that of images: it yields, reports or returns its metrics."""

import os
import traceback
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from optuna.exceptions import TrialPruned

from search.engine.function_call import SHARED_DATA, FunctionCall, prepare_call
from search.engine.optuna_objective import ObjectiveTrial
from search.engine.reporter import LimitReachedError, OnRefused, Report, Reporter, as_number, end_forked_process
from search.engine.shared_data import SharedData
from search.engine.trial_folder import in_trial_folder
from search.engine.tune_calls import outside_of_tune_calls, tune_calls
from search.record.trial import Objective
from search.space.objective_space import OPTION, TRIAL
from search.task.image_task import image_metrics
from training import image_training
from training.checkpoint import Checkpoint
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.loop import TrainingDivergedError
from training.random_state import seed_generators
from training.user_code import describe_error, running


def train_custom(
    import_path: str,
    hyperparameters: Mapping[str, Any],
    *,
    number: int,
    epochs: int | None,
    seed: int,
    objective: Objective,
    checkpoint: Checkpoint,
    report: Report,
    data: SharedData | None = None,
    on_refused: OnRefused | None = None,
) -> None:
    """Run a training function until it returns, or calls `sys.exit(0)`; report the metrics of each epoch.

    The function yields metrics, calls a parameter `report` or Ray's `tune.report` with them, returns one result, or is
    an Optuna objective. The random generators of Python, NumPy and torch start from the seed, so that the same call
    gives the same metrics.
    After `epochs` epochs it may return by itself if it knows their number; otherwise it ends in its last report.

    Args:
        import_path: Import path of the function, `path/to/file.py:train` or `package.module:train`.
        hyperparameters: Searched and fixed ones.
        number: Number of the trial.
        epochs: The largest number of epochs; None if there is none.
        seed: Seed of the trial.
        objective: What is searched for.
        checkpoint: The function receives it if it has a parameter `checkpoint`. The first epoch that it reports is the
            one after those that it has loaded. What the function prints goes to `log.txt` in the folder of the trial.
        report: Receives the metrics of each epoch; what it raises ends the training.
        data: The function receives its value if it has a parameter `data`.
        on_refused: Is called, once, with what ended the trial if the function reports nevertheless.

    Raises:
        TrainingDivergedError: The metric is not finite and stays so, or the function raises FloatingPointError.
        ValueError: The function reports something else, or nothing, or it changes the data.
        RuntimeError: The function exits with a text or with a status other than 0.
    """
    report = outside_of_tune_calls(report)
    if data:
        report = data.checked_before(report)
    with in_trial_folder(checkpoint.folder), running(OPTION, import_path) as function:
        reporter = Reporter(objective, checkpoint, limit=epochs, report=report)
        reporter.on_refused = on_refused
        limit = {} if epochs is None else {"epochs": epochs}
        values = {**limit, "seed": seed, "trial_folder": str(checkpoint.folder), **hyperparameters}
        study = checkpoint.folder.absolute().parents[1].name  # which holds the folders of its trials
        trial = ObjectiveTrial(hyperparameters, number, objective, reporter, study=study)
        shared = {SHARED_DATA: data.value} if data else {}
        services = {"checkpoint": checkpoint, "report": reporter, TRIAL: trial, **shared}
        run_call(prepare_call(import_path, function, values, services), reporter, checkpoint, seed=seed)
    if data:
        data.check()
    reporter.check_end()


def train_images(
    config: TrialConfig, data: ImageData, *, objective: Objective, checkpoint: Checkpoint, report: Report
) -> None:
    """Run the training of images, in the same way; its arguments are known.

    Args:
        config: The hyperparameters, with the number of epochs and the seed.
        data: The images, on the device of the network.
        objective: What is searched for.
        checkpoint: Holds the training after each epoch.
        report: Receives the metrics of each epoch; what it raises ends the training.

    Raises:
        TrainingDivergedError: A loss is not finite.
    """
    reporter = Reporter(
        objective, checkpoint, limit=config.epochs, report=outside_of_tune_calls(report), epoch_type=image_metrics
    )
    call = FunctionCall(image_training.train, (config,), {"data": data, "checkpoint": checkpoint}, knows_epochs=True)
    run_call(call, reporter, checkpoint, seed=config.seed)
    reporter.check_end()


def run_call(call: FunctionCall, reporter: Reporter, checkpoint: Checkpoint, *, seed: int) -> None:
    """Run a training function with its arguments until it ends, and report what it yields or returns.

    `Reporter.check_end` says afterwards whether it has reported what it must; its reports lead out of `tune_calls`.
    """
    reporter.ends_at_limit = not call.knows_epochs
    seed_generators(seed)
    with tune_calls(reporter, checkpoint):
        try:
            _run(call, reporter)
        finally:
            reporter.close()


def _run(call: FunctionCall, reporter: Reporter) -> None:
    """Run a training function to its end; its own end is told from one that comes from outside."""
    error: BaseException | None = None
    process = os.getpid()
    try:
        _receive(call(), reporter)
    except BaseException as raised:
        error = raised
    if os.getpid() != process:
        end_forked_process()
    if reporter.end is not None:  # whatever the function made of it
        if not isinstance(reporter.end, LimitReachedError):
            raise reporter.end
        if isinstance(error, Exception):
            traceback.print_exception(error)  # in the log, for the trial is complete
    elif isinstance(error, TrialPruned):  # an objective ends by itself like this
        if reporter.epochs == 0:
            raise ValueError("the objective raised TrialPruned before its first report")
    elif isinstance(error, FloatingPointError):  # this is how Python names it
        raise TrainingDivergedError(str(error) or describe_error(error)) from error
    elif isinstance(error, Exception):
        raise error
    elif error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0)):
        raise RuntimeError(describe_error(error)) from error


def _receive(result: object, reporter: Reporter) -> None:
    """Receive what a training function returned: metrics, or a generator that yields them."""
    if result is None or isinstance(result, Mapping) or as_number(result) is not None:
        reporter.receive_result(result)
    elif isinstance(result, Generator) or (isinstance(result, Iterable) and not reporter.epochs):
        if isinstance(result, str | bytes | tuple):
            raise ValueError(
                "the training function must yield metrics, or return one number or one dictionary of numbers, "
                f"got {type(result).__name__}"
            )
        _report_all(result, reporter)
    elif reporter.epochs == 0:
        raise ValueError(f"the training function ended without a metric; it returned {type(result).__name__}")
    # a function that has reported all of its metrics by a call may return its model, for example


def _report_all(training: Iterable[Any], reporter: Reporter) -> None:
    """Report all that a generator yields; it is closed at its last `yield` if it ends from outside."""
    try:
        for metrics in training:
            reporter(metrics)
    finally:
        if isinstance(training, Generator):
            training.close()
