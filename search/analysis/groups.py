"""Studies to be compared: whether they can be, which are repeats of each other, and in what they differ."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from search.record.lookup import settings_to_json
from search.record.provenance import Machine, format_field
from search.record.study_record import StudyRecord
from search.space.search_space import describe, describe_hyperparameter
from training.console.terminal import short_path

REPEAT = re.compile(r"[-_](seed)?\d+$", re.IGNORECASE)
"""What names of repeats end with: tpe-1, tpe_2, tpe-seed3."""
TIME_OF_DAY = re.compile(r"-\d{8}-\d{6}([-_]\d+)?$")
"""What names end with that nobody chose: such studies are no repeats of each other."""
WITHOUT_EFFECT = {"name", "results_dir", "data_dir", "dashboard"}
"""Settings that say nothing about what a study finds."""
UNKNOWN = "none"


@dataclass(frozen=True)
class Group:
    """One side of a comparison: a study, or several that repeat each other."""

    name: str
    records: tuple[StudyRecord, ...]

    @property
    def first(self) -> StudyRecord:
        """One of them, which tells what all have in common: the metric, its direction and the data."""
        return self.records[0]

    @property
    def splits(self) -> int:
        """On how many different choices of images the metric was measured."""
        if self.first.metric.startswith("test_"):
            return 1
        return len({record.metadata.settings.seed for record in self.records})


@dataclass(frozen=True)
class Difference:
    """Something that is not the same in all groups, or not in all studies of one."""

    name: str
    values: tuple[str, ...]
    """By group, in words."""


def check_comparable(records: Sequence[StudyRecord]) -> None:
    """Raise a ValueError if a study is given twice, or if metrics or data sets of studies differ."""
    first, *others = records
    for place, record in enumerate(records):
        if record.folder in [earlier.folder for earlier in records[:place]]:
            raise ValueError(f"study {record.folder.name} is given twice; there must be two to compare")
    for other in others:
        names = f"{first.folder.name} and {other.folder.name} cannot be compared"
        if other.metric != first.metric:
            raise ValueError(f"{names}: their metrics are {first.metric} and {other.metric}")
        if other.metadata.task.name != first.metadata.task.name:
            raise ValueError(f"{names}: they are about {first.metadata.task.name} and {other.metadata.task.name}")
        data, others_data = first.metadata.dataset, other.metadata.dataset
        if data and others_data and others_data.sha256 != data.sha256:
            checksums = f"sha256 {data.sha256[:12]} and {others_data.sha256[:12]}"
            raise ValueError(f"{names}: their files of data set {data.name} are not the same, {checksums}")


def group_studies(records: Sequence[StudyRecord]) -> list[Group]:
    """Group repeats, in the order in which they are given; if all have the same stem, each is an group of its own."""
    groups: dict[str, list[StudyRecord]] = defaultdict(list)
    for record in records:
        groups[_stem(record.folder.name)].append(record)
    if len(groups) == 1:
        return [Group(name, (record,)) for name, record in zip(_names(records), records, strict=True)]
    return [Group(stem if len(group) > 1 else group[0].folder.name, tuple(group)) for stem, group in groups.items()]


def have_repeats(groups: Iterable[Group]) -> bool:
    """Whether an group has several studies."""
    return any(len(group.records) > 1 for group in groups)


def _stem(name: str) -> str:
    return name if TIME_OF_DAY.search(name) else REPEAT.sub("", name)


def _names(records: Sequence[StudyRecord]) -> list[str]:
    names = [record.folder.name for record in records]
    return names if len(set(names)) == len(names) else [str(short_path(record.folder)) for record in records]


def differences(groups: Sequence[Group]) -> list[Difference]:
    """What the studies do not have in common: settings, search space, software and machine.

    The seed counts only where no group has repeats, which must differ in it.
    """
    ignored = {"setting seed"} if have_repeats(groups) else set()
    properties = [[dict(_properties(record)) for record in group.records] for group in groups]
    names = dict.fromkeys(name for of_group in properties for of_study in of_group for name in of_study)
    found = []
    for name in names:
        values = [dict.fromkeys(of_study.get(name, UNKNOWN) for of_study in of_group) for of_group in properties]
        if name not in ignored and len({value for of_group in values for value in of_group}) > 1:
            found.append(Difference(name, tuple(" or ".join(of_group) for of_group in values)))
    return found


def _properties(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Name and value of everything that a record says of its study as a whole."""
    metadata = record.metadata
    for name, value in settings_to_json(metadata.settings).items():
        if name not in WITHOUT_EFFECT:
            yield f"setting {name}", "none" if value is None else str(value)
    for name, described in describe(metadata.space).items():
        yield f"range of {name}", describe_hyperparameter(described)
    if dataset := metadata.dataset:
        yield "training images", f"{dataset.training_images:,}"
        yield "validation images", f"{dataset.validation_images:,}"
        yield "test images", f"{dataset.test_images:,}"
    if warm_start := metadata.warm_start:
        yield "warm start", f"{warm_start.trials} trials of {warm_start.study}"
    for module, checksum in metadata.code.items():
        yield f"code of {module}", checksum[:12]
    sessions = metadata.sessions
    if not sessions:
        return
    for package in dict.fromkeys(name for session in sessions for name in session.versions):
        yield f"version of {package}", _in_turn(session.versions.get(package, "none") for session in sessions)
    yield "commit", _in_turn(str(session.git_commit)[:12] for session in sessions)
    for part in fields(Machine):
        yield (
            f"machine {part.name}",
            _in_turn(format_field(getattr(session.machine, part.name)) for session in sessions),
        )
    yield "trials at once", _in_turn(str(session.max_concurrent_trials) for session in sessions)


def _in_turn(values: Iterable[str]) -> str:
    """The value in the first session of a study, then those of later sessions where they differ."""
    return ", then ".join(dict.fromkeys(values))
