"""What a new study takes from earlier ones: trials like its own, or configurations that it tries first."""

from collections.abc import Sequence
from itertools import zip_longest

from search.record.metadata import StudyMetadata, WarmStart
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from search.space.search_space import Point, nearest_point
from training.console.terminal import counted

MOST_TRIED_FIRST = 3
"""A study tries this number of configurations of other tasks first, or one of each earlier study if these are more."""


def check_warm_start(earlier: StudyRecord, metadata: StudyMetadata) -> None:
    """Raise a ValueError if a new study with these metadata can take nothing from an earlier one.

    The earlier study must be no confirmation, and have a hyperparameter that is searched.
    """
    study, old = earlier.folder.name, earlier.metadata
    if old.plan:
        parent = old.plan.study
        raise ValueError(f"study {study} is the confirmation of study {parent}: start from {parent} instead")
    if not set(earlier.space) & set(metadata.space):
        names = ", ".join(metadata.space)
        raise ValueError(f"study {study} cannot be a warm start: it searched none of the hyperparameters {names}")


def add_warm_starts(record: StudyRecord, earlier: Sequence[StudyRecord]) -> list[Point]:
    """Add what earlier studies have to the record of a new study, and note in its metadata what this is.

    Of a study with the same metric, network and data, these are its trials, from which only the sampler learns.

    Returns:
        The best configurations of the other studies, as points of the space: the best of each, in their order, then the
        second best. The new study tries them after its starting points.
    """
    warm_starts, others = [], []
    for study in earlier:
        differences = _differences(study.metadata, record.metadata)
        trials = 0 if differences else record.add_warm_start(study)
        if differences:
            others.append(study)
        warm_starts.append(
            WarmStart(study=study.folder.name, trials=trials, of=len(study.trials), differences=differences)
        )
    record.update(warm_start=warm_starts)
    return _best_points(record, others)


def _best_points(record: StudyRecord, others: Sequence[StudyRecord]) -> list[Point]:
    """The best configurations of other studies, as different points of the space of a record."""
    most = max(MOST_TRIED_FIRST, len(others))
    by_rank = zip_longest(*(best_configurations(study.trials, most) for study in others))
    trials = [trial for rank in by_rank for trial in rank if trial]
    defaults = record.metadata.task.defaults()
    tried_anyway, points = record.starting_points(), list[Point]()
    for trial in trials:
        point = nearest_point(record.space, trial.hyperparameters, defaults)
        if point not in tried_anyway and point not in points:
            points.append(point)
    return points[:most]


def describe_warm_start(warm_start: WarmStart) -> str:
    """Say what a study has taken from an earlier one."""
    if warm_start.differences:
        return f"the best of study {warm_start.study} first, which has {', '.join(warm_start.differences)}"
    return f"{warm_start.trials} of {counted(warm_start.of, 'trial')} of study {warm_start.study}"


def _differences(old: StudyMetadata, new: StudyMetadata) -> list[str]:
    """Why trials of an earlier study do not count as trials of a new one.

    On what imported trials were trained is not known.
    """
    is_known = old.task.imported_from is None
    return [
        f"{name} {before} (here {now})"
        for name, before, now in (
            ("metric", old.settings.metric_name, new.settings.metric_name),
            ("mode", old.settings.direction, new.settings.direction),
            *((("network", old.task.network, new.task.network), ("data", old.task.name, new.task.name)) * is_known),
        )
        if before != now
    ]
