"""Groups of studies for a comparison: which studies repeat each other, and in what they differ."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from search.record.lookup import shown_settings
from search.record.provenance import Machine, format_field
from search.record.study_record import StudyRecord
from search.record.warm_start import describe_warm_start
from search.space.search_space import describe, describe_hyperparameter
from training.console.terminal import short_path

REPEAT = re.compile(r"[-_](seed)?\d+$", re.IGNORECASE)
"""The end of the names of repeats: tpe-1, tpe_2, tpe-seed3."""
TIME_OF_DAY = re.compile(r"-\d{8}-\d{6}([-_]\d+)?$")
"""The end of default names; studies with such names do not repeat each other."""
WITHOUT_EFFECT = {"name", "results_dir", "checkpoints_dir", "data_dir", "dashboard"}
"""Settings without an effect on the results of a study."""
UNKNOWN = "none"


@dataclass(frozen=True)
class Group:
    """A study, or several studies that repeat each other."""

    name: str
    records: tuple[StudyRecord, ...]

    @property
    def first(self) -> StudyRecord:
        """A study of the group; metric, mode and data are the same in all of them."""
        return self.records[0]

    @property
    def splits(self) -> int:
        """Number of different validation splits on which the metric was measured; 1 for a test metric."""
        if self.first.metric.startswith("test_"):
            return 1
        return len({record.metadata.settings.seed for record in self.records})


@dataclass(frozen=True)
class Difference:
    """A property that is not the same in all groups, or not in all studies of a group."""

    name: str
    values: tuple[str, ...]
    """The property of each group, as text."""


def check_comparable(records: Sequence[StudyRecord]) -> None:
    """Raise a ValueError if a study is given twice, or if metrics or data sets of studies differ."""
    first, *others = records
    for number, record in enumerate(records):
        if record.folder in [earlier.folder for earlier in records[:number]]:
            raise ValueError(f"study {record.folder.name} is named twice; a comparison needs different studies")
    for other in others:
        names = f"{first.folder.name} and {other.folder.name} cannot be compared"
        if other.metric != first.metric:
            raise ValueError(f"{names}: their metrics are {first.metric} and {other.metric}")
        if other.mode != first.mode:
            raise ValueError(f"{names}: the modes of {first.metric} are {first.mode} and {other.mode}")
        is_known = first.metadata.origin is None and other.metadata.origin is None
        if is_known and other.metadata.task.name != first.metadata.task.name:
            raise ValueError(f"{names}: they are about {first.metadata.task.name} and {other.metadata.task.name}")
        data, others_data = first.metadata.dataset, other.metadata.dataset
        if data and others_data and others_data.sha256 != data.sha256:
            checksums = f"sha256 {data.sha256[:12]} and {others_data.sha256[:12]}"
            raise ValueError(f"{names}: their images of {data.name} differ, {checksums}")


def group_studies(records: Sequence[StudyRecord]) -> list[Group]:
    """Group studies that repeat each other; if all names have the same stem, each study is a group of its own."""
    groups: dict[str, list[StudyRecord]] = defaultdict(list)
    for record in records:
        groups[_stem(record.folder.name)].append(record)
    if len(groups) == 1:
        return [Group(name, (record,)) for name, record in zip(_names(records), records, strict=True)]
    return [Group(stem if len(group) > 1 else group[0].folder.name, tuple(group)) for stem, group in groups.items()]


def have_repeats(groups: Iterable[Group]) -> bool:
    """Whether a group has several studies."""
    return any(len(group.records) > 1 for group in groups)


def _stem(name: str) -> str:
    return name if TIME_OF_DAY.search(name) else REPEAT.sub("", name)


def _names(records: Sequence[StudyRecord]) -> list[str]:
    names = [record.folder.name for record in records]
    return names if len(set(names)) == len(names) else [str(short_path(record.folder)) for record in records]


def differences(groups: Sequence[Group]) -> list[Difference]:
    """The differences between studies in settings, search space, software and machine.

    Repeats must have different seeds, so the seed is compared only if no group has repeats.
    """
    ignored = {"setting seed"} if have_repeats(groups) else set()
    properties = [[dict(_properties(record)) for record in group.records] for group in groups]
    names = dict.fromkeys(name for studies in properties for study in studies for name in study)
    result = []
    for name in names:
        values = [dict.fromkeys(study.get(name, UNKNOWN) for study in studies) for studies in properties]
        if name not in ignored and len({value for group_values in values for value in group_values}) > 1:
            result.append(Difference(name, tuple(map(" or ".join, values))))
    return result


def _properties(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Name and value of each property of a study."""
    metadata = record.metadata
    settings = shown_settings(metadata.settings, has_baseline=metadata.task.may_have_defaults)
    for name, value in settings.items():
        if name not in WITHOUT_EFFECT:
            yield f"setting {name}", "none" if value is None else str(value)
    for name, described in describe(metadata.space).items():
        yield f"range of {name}", describe_hyperparameter(described)
    if dataset := metadata.dataset:
        yield "training images", f"{dataset.training_images:,}"
        yield "validation images", f"{dataset.validation_images:,}"
        yield "test images", f"{dataset.test_images:,}"
    if metadata.warm_start:
        yield "warm start", "; ".join(map(describe_warm_start, metadata.warm_start))
    for module, checksum in metadata.code.items():
        yield f"code of {module}", checksum[:12]
    sessions = metadata.sessions
    if not sessions:
        return
    for package in dict.fromkeys(name for session in sessions for name in session.versions):
        yield f"version of {package}", _join_changes(session.versions.get(package, "none") for session in sessions)
    yield "commit", _join_changes(str(session.git_commit)[:12] for session in sessions)
    for name in (field.name for field in fields(Machine)):
        yield f"machine {name}", _join_changes(format_field(getattr(session.machine, name)) for session in sessions)
    yield "trials at the same time", _join_changes(str(session.max_concurrent_trials) for session in sessions)


def _join_changes(values: Iterable[str]) -> str:
    """The values of the sessions of a study, without repetitions."""
    return ", then ".join(dict.fromkeys(values))
