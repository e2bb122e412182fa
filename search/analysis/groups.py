"""Studies to be compared: whether they can be, which are repeats of each other, and in what they differ."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from search.monitoring.terminal import as_typed
from search.record.study_record import StudyRecord
from search.space.search_space import words

REPEAT = re.compile(r"[-_](seed)?\d+$", re.IGNORECASE)
"""What names of repeats end with: tpe-1, tpe_2, tpe-seed3."""
TIME_OF_DAY = re.compile(r"-\d{8}-\d{6}([-_]\d+)?$")
"""What names end with that nobody chose: such studies are no repeats of each other."""
WITHOUT_EFFECT = {"name", "results_dir", "data_dir", "dashboard"}
"""Settings that say nothing about what a study finds."""
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Arm:
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
        return len({record.facts["settings"].get("seed") for record in self.records})


@dataclass(frozen=True)
class Difference:
    """Something that is not the same in all arms, or not in all studies of one."""

    name: str
    values: tuple[str, ...]
    """By arm, in words."""


def check_comparable(records: Sequence[StudyRecord]) -> None:
    """Refuse studies whose numbers do not measure the same.

    Raises:
        ValueError: A study is given twice, or metric or data set differ; the message says which.
    """
    first, *others = records
    for place, record in enumerate(records):
        if record.folder in [earlier.folder for earlier in records[:place]]:
            raise ValueError(f"study {record.folder.name} is given twice; there must be two to compare")
    for other in others:
        names = f"{first.folder.name} and {other.folder.name} cannot be compared"
        if other.metric != first.metric:
            raise ValueError(f"{names}: their metrics are {first.metric} and {other.metric}")
        if other.subject.name != first.subject.name:
            raise ValueError(f"{names}: they are about {first.subject.name} and {other.subject.name}")
        data, others_data = (record.facts.get("dataset", {"sha256": ""}) for record in (first, other))
        if others_data["sha256"] != data["sha256"]:
            checksums = f"sha256 {data['sha256'][:12]} and {others_data['sha256'][:12]}"
            raise ValueError(f"{names}: their files of data set {data['name']} are not the same, {checksums}")


def into_arms(records: Sequence[StudyRecord]) -> list[Arm]:
    """Group repeats, in the order in which they are given; if all have the same stem, each is an arm of its own."""
    groups: dict[str, list[StudyRecord]] = defaultdict(list)
    for record in records:
        groups[_stem(record.folder.name)].append(record)
    if len(groups) == 1:
        return [Arm(name, (record,)) for name, record in zip(_names(records), records, strict=True)]
    return [Arm(stem if len(group) > 1 else group[0].folder.name, tuple(group)) for stem, group in groups.items()]


def have_repeats(arms: Iterable[Arm]) -> bool:
    """Whether an arm has several studies."""
    return any(len(arm.records) > 1 for arm in arms)


def _stem(name: str) -> str:
    return name if TIME_OF_DAY.search(name) else REPEAT.sub("", name)


def _names(records: Sequence[StudyRecord]) -> list[str]:
    names = [record.folder.name for record in records]
    return names if len(set(names)) == len(names) else [str(as_typed(record.folder)) for record in records]


def differences(arms: Sequence[Arm]) -> list[Difference]:
    """What the studies do not have in common: settings, search space, software and machine.

    The seed counts only where no arm has repeats, which must differ in it.
    """
    ignored = {"setting seed"} if have_repeats(arms) else set()
    told = [[dict(_told(record)) for record in arm.records] for arm in arms]
    names = dict.fromkeys(name for of_arm in told for of_study in of_arm for name in of_study)
    found = []
    for name in names:
        values = [dict.fromkeys(of_study.get(name, NOT_RECORDED) for of_study in of_arm) for of_arm in told]
        if name not in ignored and len({value for of_arm in values for value in of_arm}) > 1:
            found.append(Difference(name, tuple(" or ".join(of_arm) for of_arm in values)))
    return found


def _told(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Name and value of everything that a record says of its study as a whole."""
    facts = record.facts
    for name, value in facts["settings"].items():
        if name not in WITHOUT_EFFECT:
            yield f"setting {name}", "none" if value is None else str(value)
    for name, described in facts["space"].items():
        yield f"range of {name}", words(described)
    for part in ("training", "validation", "test"):
        if "dataset" in facts:
            yield f"{part} images", f"{facts['dataset'][f'{part}_images']:,}"
    if "evidence" in facts:
        yield "evidence", f"{facts['evidence']['trials']} trials of {facts['evidence']['study']}"
    for path, checksum in facts.get("code", {}).items():
        yield f"code of {path}", checksum[:12]
    starts = facts.get("starts", [])
    if not starts:
        return
    for package in dict.fromkeys(name for start in starts for name in start["versions"]):
        yield f"version of {package}", _in_turn(start["versions"].get(package, "none") for start in starts)
    yield "commit", _in_turn(str(start["git_commit"])[:12] for start in starts)
    for name in dict.fromkeys(name for start in starts for name in start["machine"]):
        yield f"machine {name}", _in_turn(_words(start["machine"].get(name)) for start in starts)
    yield "trials at once", _in_turn(str(start.get("trials_at_once", NOT_RECORDED)) for start in starts)


def _in_turn(values: Iterable[str]) -> str:
    """What was so in the first start of a study, and what became of it in later ones."""
    return ", then ".join(dict.fromkeys(values))


def _words(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
