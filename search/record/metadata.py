"""What is true of a study as a whole: collected when it starts, checked when it is read, compared with another's."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.record import provenance
from search.record.confirmation import Final, Plan, read_confirmation
from search.record.lookup import OF_ONE_START, known_settings, not_comparable
from search.record.task import subject_of
from search.record.trial import MOST_SECONDS
from search.settings import MetricName, Mode, StudySettings, check_metric_name
from search.space.search_space import SearchSpace, describe, parse
from training.config import check_choice
from training.console.plain_data import check_type, from_plain
from training.images.image_data import ImageData


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images that the trials were trained on."""

    name: str
    sha256: str
    classes: list[str]
    training_images: int
    validation_images: int
    test_images: int
    image_shape: list[int] | None = None
    """Channels, height and width; None in studies from before it was recorded."""
    class_images: list[int] | None = None
    """Images of each class in all three parts; None in studies from before it was counted."""

    def __post_init__(self) -> None:
        """Refuse what no study writes."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(f"a data set cannot be called {self.name!r}")
        if self.class_images is not None and (
            len(self.class_images) != len(self.classes) or min(self.class_images, default=0) < 0
        ):
            raise ValueError(f"{len(self.classes)} classes cannot have {self.class_images!r} images")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The earlier study whose trials the sampler knew from the beginning."""

    study: str
    trials: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Start:
    """When, how and on what the study was started or resumed."""

    time: str
    command: str
    versions: dict[str, str]
    git_commit: str | None
    machine: dict[str, Any]
    cluster: dict[str, int] | None = None
    trials_at_once: int | None = None
    """None, as `cpus_per_trial`, in studies from before there was a time ledger."""
    cpus_per_trial: int | None = None
    seconds: float | None = None
    """Wall clock from the command to the summary; None if it was killed."""

    def __post_init__(self) -> None:
        """Refuse what the time ledger cannot reckon with."""
        cpus = check_type("cpus", (self.cluster or self.machine).get("cpus"), int)
        room = (self.trials_at_once, self.cpus_per_trial)
        if room != (None, None) and not all(number and 0 < number <= 10**6 for number in (cpus, *room)):
            raise ValueError(f"{cpus} cores cannot have room for {room}")
        if not 0 <= (self.seconds or 0) <= MOST_SECONDS:
            raise ValueError(f"seconds cannot be {self.seconds}")


def collect_facts(settings: StudySettings, space: SearchSpace, data: ImageData | None) -> dict[str, Any]:
    """All of it that is known before the first trial, as plain data."""
    values = asdict(settings) | {"metric": settings.metric_name}
    if data:
        values["dataset"] = data.name if settings.dataset == "auto" else settings.dataset
    return {
        "settings": {
            name: provenance.project_path(value) if isinstance(value, Path) else value
            for name, value in values.items()
            if name not in OF_ONE_START  # the command of each start tells them
        },
        "space": describe(space),
        **({"dataset": asdict(_dataset(data))} if data else {}),
        "code": provenance.code(settings.network) if data else provenance.own_code(str(settings.train_function)),
    }


def _dataset(data: ImageData) -> Dataset:
    return Dataset(
        name=data.name,
        sha256=data.sha256,
        classes=list(data.classes),
        training_images=len(data.train),
        validation_images=len(data.val),
        test_images=len(data.test),
        image_shape=list(data.image_shape),
        class_images=data.class_sizes(),
    )


def check_comparable(study: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with a study whose new trials would measure something else than its old ones.

    Args:
        study: Its name.
        old: What was true of it.
        new: What is.

    Raises:
        ValueError: Data, search space or code differ; the message says what to do.
    """
    differences = []
    if old.get("dataset", {}).get("sha256") != new.get("dataset", {}).get("sha256"):
        differences.append(f"on other data than {new['dataset']['name']} in {new['settings']['data_dir']}")
    if old["space"] != new["space"]:
        names = [name for name in {**old["space"], **new["space"]} if old["space"].get(name) != new["space"].get(name)]
        differences.append(f"with another search space: {', '.join(names)} differ")
    changed = [name for name, checksum in new["code"].items() if old.get("code", {}).get(name) != checksum]
    if changed:
        *_, last_start = old.get("starts") or [{"git_commit": None}]
        commit = last_start["git_commit"] or "an unknown commit"
        differences.append(f"by other code: {', '.join(changed)} changed since {commit}")
    if differences:
        difference = f"study {study} was run {' and '.join(differences)}"
        if "plan" in old:  # what confirms a study has no other trials to be evidence for
            raise ValueError(f"{difference}, so its trainings would not be comparable; remove its folder to begin anew")
        raise ValueError(not_comparable(difference))


def check_evidence(study: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse an earlier study whose trials say nothing about those of a new one.

    Args:
        study: Name of the earlier one.
        old: What is true of it.
        new: What is true of the new one.

    Raises:
        ValueError: It confirms another one, or metric, network or data differ.
    """
    if "plan" in old:
        raise ValueError(f"{study} confirms study {old['plan']['study']}: take that one as evidence")
    theirs, ours = subject_of(old), subject_of(new)
    differences = [
        f"{name} {before} (here {now})"
        for name, before, now in (
            ("metric", old["settings"]["metric"], new["settings"]["metric"]),
            ("network", theirs.network, ours.network),
            ("data", theirs.name, ours.name),
        )
        if before != now
    ]
    if differences:
        raise ValueError(f"study {study} is no evidence for this one: it has {', '.join(differences)}")


def check_facts(facts: dict[str, Any], mode: Mode) -> None:
    """Refuse facts of which one is missing or cannot be.

    Args:
        facts: The study's user attributes.
        mode: Whether the trials' values are maximised or minimised.

    Raises:
        ValueError: A fact is not what a study writes.
        KeyError: One is missing.
    """
    settings = known_settings(facts["settings"])
    metric, is_own = settings["metric"], settings.get("train_function") is not None
    if mode != (settings.get("mode") if is_own else "min" if metric.endswith("_loss") else "max"):
        raise ValueError(f"metric {metric} cannot have mode {mode}")
    for name in [metric, *check_type("metrics", facts.get("metrics", []), list[str])]:
        check_metric_name(name) if is_own else check_choice("metric", name, MetricName)
    parse(facts["space"])
    if not is_own:
        from_plain(Dataset, facts["dataset"])
    check_type("code", facts.get("code", {}), dict[str, str])
    for start in check_type("starts", facts.get("starts", []), list[Any]):
        from_plain(Start, start)
    if check_type("seconds", facts.get("seconds", 0.0), float) < 0:
        raise ValueError(f"seconds cannot be {facts['seconds']}")
    if "evidence" in facts:
        from_plain(Evidence, facts["evidence"])
    if "plan" in facts:
        plan = from_plain(Plan, facts["plan"])
        if facts.get("winner", plan.trials[0]) not in plan.trials:
            raise ValueError(f"the winner cannot be {facts['winner']}")
    if "final" in facts:
        from_plain(Final, facts["final"])
    if "confirm" in facts:
        read_confirmation(facts["confirm"])
