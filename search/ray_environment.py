"""Environment variables that configure Ray."""

import logging
import os

_VARIABLES = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints boxes even with verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a Ray that we start listens on loopback only, on every system
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # a dead worker is a row of the table, not a page on the terminal
    "RAY_preload_python_modules": "torch,ray.tune,optuna",  # by workers that start before the first trial
    "PL_DISABLE_FORK": "1",  # Ray Tune would set it in each worker; of workers that start with Ray it can set nothing
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the record holds what they would write
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `StudyStopper` handles the signals
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the report of a failure has no metric
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "1000000",  # a training may take time to end, and Ray would lose the next trial
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Ray's own snapshots are never read
}


def set_ray_environment() -> None:
    """Set the variables in this process; call this before Ray is imported, because Ray reads two of them at import."""
    os.environ |= _VARIABLES
    logging.getLogger("ray.widgets").setLevel(logging.ERROR)  # in a notebook it would advise to install ipywidgets
