"""What is true of a study as a whole, as its record holds it; it is checked when it is read."""

import re
from dataclasses import dataclass
from typing import Any

from search.confirmation import Final, Plan, read_confirmation
from search.resume import known_settings
from search.settings import MetricName, Mode, check_metric_name
from search.space import parse
from search.trial_record import MOST_SECONDS
from training.config import check_choice
from training.plain_data import check_type, from_plain


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
        from_plain(Plan, facts["plan"])
    if "final" in facts:
        from_plain(Final, facts["final"])
    if "confirm" in facts:
        read_confirmation(facts["confirm"])
