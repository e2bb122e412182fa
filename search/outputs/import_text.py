"""Prints what was imported: the kinds of the hyperparameters, and what is not as in the source."""

from collections import Counter

from search.record.study_record import StudyRecord
from search.space.search_space import describe, describe_hyperparameter
from training.console.terminal import counted, short_path, wrapped


def show_import(record: StudyRecord) -> None:
    """Print what a study was imported from, the range of each hyperparameter, and the remarks on it."""
    origin, metadata = record.metadata.origin, record.metadata
    assert origin is not None, "a study that was imported has an origin"
    counts = Counter(trial.status for trial in record.trials)
    listed = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    print(
        wrapped(
            f"{counted(len(record.trials), 'trial')} {metadata.task.name} into {short_path(record.folder)}: {listed}"
        )
    )
    print(wrapped(f"Metric: {record.metric}, the {'lowest' if record.mode == 'min' else 'highest'} is the best"))
    for name, described in describe(metadata.space).items():
        guessed = " (guessed)" if name in origin.guessed else ""
        print(wrapped(f"{name}: {describe_kind(described)}{guessed}", indent="  ", hanging="    "))
    for remark in origin.remarks:
        print(wrapped(remark))


def describe_kind(described: object) -> str:
    """The kind of a hyperparameter, and its range, as text; `described` is what `describe` returned for it."""
    table = described[0] if isinstance(described, list) else described
    assert isinstance(table, dict), "a range is a table"
    kinds = {"value": "always", "ordered": "a list of numbers,", "choices": "one of"}
    kind = next((kinds[key] for key in kinds if key in table), "numbers from")
    return f"{kind} {describe_hyperparameter(table)}"
