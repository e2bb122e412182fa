"""What a new study takes from earlier ones: trials like its own, or configurations that it tries first."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from search.record.metadata import StudyMetadata, WarmStart
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from search.space.distributions import HyperparameterValue
from search.space.search_space import Point, similar_point
from training.console.terminal import counted

MOST_TRIED_FIRST = 3
"""A study tries this number of configurations of other tasks first, or one of each earlier study if these are more."""


def check_warm_start(earlier: StudyRecord, metadata: StudyMetadata) -> None:
    """Raise a ValueError if a new study with these metadata can take nothing from an earlier one.

    The earlier study must be no confirmation, and if its task is another one, have a hyperparameter that is searched.
    """
    study, old = earlier.folder.name, earlier.metadata
    if old.plan:
        parent = old.plan.study
        raise ValueError(f"study {study} is the confirmation of study {parent}: start from {parent} instead")
    differences = _differences(old, metadata)
    if differences and not {*earlier.space.ranges} & {*metadata.space}:
        names = ", ".join(metadata.space)
        raise ValueError(
            f"study {study} cannot be a warm start: it has {', '.join(differences)}, and no hyperparameter {names}"
        )


def start_from(record: StudyRecord, earlier: Sequence[StudyRecord], *, starting_points: bool) -> None:
    """Give a new study its first points and what earlier studies have, and note in its metadata what this is.

    Of a study with the same metric, network and data, these are its trials, from which only the sampler learns. Of the
    others, the best configurations are queued after the starting points: the best of each, in their order, then the
    second best.

    Args:
        record: The record of the new study, without trials.
        earlier: Earlier studies, each of which has passed `check_warm_start`.
        starting_points: Whether the starting points of the space are queued; of these only the baseline if trials of
            earlier studies are known.
    """
    differences = [_differences(study.metadata, record.metadata) for study in earlier]
    known = [
        0 if different else record.add_warm_start(study) for study, different in zip(earlier, differences, strict=True)
    ]
    queued = list[Point]()
    if starting_points:
        queued += record.enqueue_starting_points(most=1 if any(known) else record.num_samples)
    others = [number for number, different in enumerate(differences) if different]
    most = min(max(MOST_TRIED_FIRST, len(others)), record.num_samples - len(queued))
    tried_first: Counter[int] = Counter()
    for number, point in _best_points(record, [(number, earlier[number]) for number in others]):
        if point and point not in queued and tried_first.total() < most:
            record.enqueue(point)
            queued.append(point)
            tried_first[number] += 1
    if earlier:
        warm_starts = [
            WarmStart(
                study=study.folder.name,
                trials=known[number],
                of=len(study.trials),
                differences=differences[number],
                tried_first=tried_first[number],
            )
            for number, study in enumerate(earlier)
        ]
        record.update(warm_start=warm_starts)


def _best_points(record: StudyRecord, others: Sequence[tuple[int, StudyRecord]]) -> Iterator[tuple[int, Point]]:
    """The best configurations of other studies as points of a new one, each with the number of its study."""
    defaults = record.metadata.task.defaults()
    configurations: list[list[tuple[int, dict[str, HyperparameterValue]]]] = [
        [
            (number, study.space.add_fixed(trial.hyperparameters))
            for trial in best_configurations(study.trials, MOST_TRIED_FIRST)
        ]
        for number, study in others
    ]
    for rank in zip_longest(*configurations):
        for number, configuration in filter(None, rank):
            yield number, similar_point(record.space, configuration, defaults)


def describe_warm_start(warm_start: WarmStart) -> str:
    """Say what a study has taken from an earlier one."""
    if not warm_start.differences:
        return f"{warm_start.trials} of {counted(warm_start.of, 'trial')} of study {warm_start.study}"
    of_study = f"of study {warm_start.study}, which has {', '.join(warm_start.differences)}"
    if not warm_start.tried_first:
        return f"no further configuration {of_study}"
    return f"first {counted(warm_start.tried_first, 'configuration')} of the best {of_study}"


def _differences(old: StudyMetadata, new: StudyMetadata) -> list[str]:
    """Why trials of an earlier study do not count as trials of a new one.

    On what imported trials were trained is not known. Of a training of the user's own, names are compared.
    """
    compared = [
        ("metric", old.settings.metric_name, new.settings.metric_name),
        ("mode", old.settings.direction, new.settings.direction),
    ]
    if old.task.imported_from is None:
        if old.task.network and new.task.network:
            compared.append(("network", old.task.network, new.task.network))
        compared.append(("data", old.task.name, new.task.name))
    differences = [f"{name} {before} (here {now})" for name, before, now in compared if before != now]
    if old.dataset and new.dataset and old.dataset.name == new.dataset.name:
        differences += [f"other images of {new.dataset.name}"] * (old.dataset.sha256 != new.dataset.sha256)
    return differences
