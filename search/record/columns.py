"""Names of columns: those of the user, hyperparameters and metrics, never meet ours or each other."""

from collections.abc import Collection, Iterable

from search.record.study_record import StudyRecord

TRIAL_COLUMNS = (
    *("trial_number", "trial_id", "status", "epochs", "best_epoch"),
    *("seconds", "peak_memory_mb", "peak_gpu_memory_mb", "micro_batch_size", "seed", "error"),
)
"""Our own columns of `trials.csv`."""
EPOCH_COLUMNS = (
    *("trial_number", "epoch", "seconds", "evaluation_seconds"),
    *("session", "node", "pid", "waiting_seconds", "reported"),
)
"""Our own columns of `epochs.csv`."""


def metric_columns(record: StudyRecord) -> dict[str, str]:
    """The column of each metric, the same in all tables and loggers: its name, or `metric_NAME` if that is ours."""
    return distinct_columns("metric", record.metadata.task.metric_names, {*TRIAL_COLUMNS, *EPOCH_COLUMNS})


def hyperparameter_columns(record: StudyRecord) -> dict[str, str]:
    """The column of each searched hyperparameter: its name, or `hyperparameter_NAME` if another column has it."""
    others = {*TRIAL_COLUMNS, *metric_columns(record).values()}
    return distinct_columns("hyperparameter", record.space, others)


def distinct_columns(prefix: str, names: Iterable[str], others: Collection[str]) -> dict[str, str]:
    """The column of each name: the name itself, behind a prefix if it is among the others."""
    names = list(names)
    columns = {}
    for name in names:
        column = name
        while column in others or (column != name and column in names):
            column = f"{prefix}_{column}"
        columns[name] = column
    return columns
