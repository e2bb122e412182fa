"""The metadata of a study: collected when it starts, checked when it is read, compared with another study's."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from search.record.confirmation import Confirmation, Final, Plan
from search.record.lookup import not_comparable, settings_from_json, settings_to_json
from search.record.provenance import Session, WidthChange
from search.record.requests import AnsweredRequest, is_paused
from search.record.trial import CountedEpoch, Objective, TrialRecord
from search.record.upgrade import upgrade_study
from search.settings import StudySettings
from search.space.distributions import HyperparameterValue, contains_value
from search.space.search_space import SearchSpace, contains, describe, parse
from search.task.task import Task
from training.config import TrialConfig
from training.config_fields import make_config
from training.images.image_data import ImageData
from training.json_data import from_json


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images that the trials were trained on."""

    name: str
    sha256: str
    classes: list[str]
    training_images: int
    validation_images: int
    test_images: int
    image_shape: list[int]
    """Channels, height and width."""
    class_images: list[int]
    """Images of each class in all three parts."""

    def __post_init__(self) -> None:
        """Refuse values that no study writes."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(f"a data set cannot be called {self.name!r}")
        if len(self.class_images) != len(self.classes) or min(self.class_images, default=0) < 0:
            raise ValueError(f"{len(self.classes)} classes cannot have {self.class_images!r} images")


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """An earlier study of which a study had something from the beginning."""

    study: str
    trials: int
    """Number of its trials that the sampler knew; they lie in the search space."""
    of: int
    """Number of all its trials."""
    differences: list[str] = field(default_factory=list)
    """What was different, for example the data; then the sampler knew none of its trials."""
    tried_first: int = 0
    """Number of its best configurations that were queued, to be tried before all others."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the trials of a study are from that was imported."""

    program: str
    """The program that wrote them, with its version where the source has it."""
    file: str
    """Name of the file or of the folder."""
    study: str
    """The name of the study in it."""
    time: str
    """When it was imported."""
    counted: CountedEpoch
    """The epoch of which a trial has its value."""
    guessed: list[str]
    """The hyperparameters whose ranges the source does not name: theirs reach from the lowest value to the highest."""
    has_curves: bool
    """Whether a trial has several values, or only its last one."""
    remarks: list[str]
    """Sentences on what the source does not have, and on what is not as in the source."""


@dataclass(frozen=True, kw_only=True)
class StudyMetadata:
    """The metadata of a study; each field is a user attribute of the Optuna study."""

    settings: StudySettings
    space: SearchSpace
    dataset: Dataset | None = None
    """None where a training function brings its own data."""
    code: dict[str, str] = field(default_factory=dict)
    """Checksums of the code that decides what a trial measures, by module."""
    checkpoint_folder: str | None = None
    """The study's folder in the store of `settings.checkpoints_dir`; None if there is no store."""
    sessions: list[Session] = field(default_factory=list)
    warm_start: list[WarmStart] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    """The metrics that a training function measures; empty before its first report, and for images."""
    plan: Plan | None = None
    """The trainings of a confirmation; only in the study that confirms another one."""
    winner: int | None = None
    """Number of the planned configuration that was chosen."""
    final: Final | None = None
    """The winner, trained on all images."""
    confirmation: Confirmation | None = None
    """The result of this study's confirmation."""
    origin: Origin | None = None
    """Where the trials are from; only in a study that was imported."""
    widths: list[WidthChange] = field(default_factory=list)
    """When the number of trials at a time changed within a session, the earliest change first."""
    requests: list[AnsweredRequest] = field(default_factory=list)
    """What users asked of the study while it ran, the earliest first."""

    def __post_init__(self) -> None:
        """Refuse fields that contradict each other."""
        if (self.task.imported_from is None) != (self.origin is None):
            raise ValueError("only a study that was imported has an origin")
        if self.checkpoint_folder and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.checkpoint_folder):
            raise ValueError(f"a folder of a store cannot be called {self.checkpoint_folder!r}")
        if self.plan and self.winner is not None and self.winner not in self.plan.trials:
            raise ValueError(f"the winner cannot be {self.winner}")

    @cached_property
    def task(self) -> Task:
        """The task of the trials, with what was recorded; a ValueError says that this cannot be."""
        return self.settings.task.recorded(self.dataset.name if self.dataset else None, self.metrics)

    @property
    def store(self) -> tuple[str, str] | None:
        """The address of the store of the checkpoints, and the study's folder in it; None if there is no store."""
        address, folder = self.settings.checkpoints_dir, self.checkpoint_folder
        return None if address is None or folder is None else (address, folder)

    @property
    def objective(self) -> Objective:
        """The objective of the search."""
        counted: CountedEpoch = self.origin.counted if self.origin else "best"
        return Objective(self.settings.metric_name, self.settings.direction, counted)

    @property
    def is_paused(self) -> bool:
        """Whether a user has paused the newest session of the study."""
        return is_paused(self.requests, len(self.sessions) - 1)

    @property
    def has_curves(self) -> bool:
        """Whether trials may have values after several epochs."""
        return self.origin is None or self.origin.has_curves

    @property
    def guessed_ranges(self) -> list[str]:
        """The hyperparameters whose ranges are only those of the trials, so that none of their bounds was chosen."""
        return self.origin.guessed if self.origin else []

    def has_point(self, hyperparameters: Mapping[str, HyperparameterValue]) -> bool:
        """Whether a trial may have these hyperparameters; one that was imported may lack some, as its source does."""
        if self.origin is None:
            return contains(self.space, hyperparameters)
        return all(
            name in self.space and contains_value(self.space[name], value) for name, value in hyperparameters.items()
        )

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric of the objective is an accuracy."""
        return self.task.is_accuracy(self.settings.metric_name)

    @property
    def images(self) -> Dataset:
        """The data set; the study must have one."""
        assert self.dataset is not None, "a training function brings its own data"
        return self.dataset

    @property
    def metric_images(self) -> int:
        """Number of images on which the metric of the objective is measured."""
        is_test_metric = self.settings.metric_name.startswith("test_")
        return self.images.test_images if is_test_metric else self.images.validation_images

    def trial_config(self, trial: TrialRecord) -> TrialConfig:
        """The configuration of a trial on images; a ValueError says that its network does not accept it any more."""
        config_class = self.task.config_type()
        assert config_class is not None, "a network has one"
        values = self.task.fixed | self.space.add_fixed(trial.hyperparameters)
        config: TrialConfig = make_config(config_class, {**values, "seed": trial.seed})
        return config

    def current_code(self) -> dict[str, str]:
        """Checksums like those in `code`, of the code as it is now; the files of the user's code are imported."""
        return self.settings.task.checksums()

    def to_json(self) -> dict[str, Any]:
        """The fields as values for JSON, without those that are None or empty; `read_metadata` reads them back."""
        values = {field.name: _to_json(getattr(self, field.name)) for field in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, [])}


def _to_json(value: Any) -> Any:
    if isinstance(value, StudySettings):
        return settings_to_json(value)
    if isinstance(value, SearchSpace):
        return describe(value)
    if isinstance(value, list):
        return [_to_json(member) for member in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def read_metadata(attributes: Mapping[str, Any], folder: Path) -> StudyMetadata:
    """Read metadata that `StudyMetadata.to_json` returned; a ValueError says which attribute is missing or invalid.

    Args:
        attributes: The user attributes of the Optuna study.
        folder: Where the study's folder is now.
    """
    attributes = upgrade_study(attributes)
    missing = [name for name in ("settings", "space", "code") if name not in attributes]
    if missing:
        raise ValueError(f"it lacks {' and '.join(missing)}, which every study has")
    types = get_type_hints(StudyMetadata)
    values = {
        name: from_json(types[name], attributes[name])
        for name in types.keys() & attributes.keys()
        if name not in ("settings", "space")
    }
    settings, space = settings_from_json(attributes["settings"], folder), parse(attributes["space"])
    return StudyMetadata(settings=settings, space=space, **values)


def collect_metadata(settings: StudySettings, space: SearchSpace, data: ImageData | None) -> StudyMetadata:
    """Collect the metadata that is known before the first trial."""
    settings = replace(settings, metric=settings.metric_name)
    if data is None:
        return StudyMetadata(settings=settings, space=space, code=settings.task.checksums())
    if settings.dataset == "auto":
        settings = replace(settings, dataset=data.name)
    dataset = Dataset(
        name=data.name,
        sha256=data.sha256,
        classes=list(data.classes),
        training_images=len(data.train),
        validation_images=len(data.val),
        test_images=len(data.test),
        image_shape=list(data.image_shape),
        class_images=data.class_sizes(),
    )
    return StudyMetadata(settings=settings, space=space, dataset=dataset, code=settings.task.checksums())


def changed_code(old: StudyMetadata, new: StudyMetadata) -> list[str]:
    """The files of code that have changed, or were added."""
    return [name for name, checksum in new.code.items() if old.code.get(name) != checksum]


def check_comparable(study: str, old: StudyMetadata, new: StudyMetadata, *, accepts_changes: bool) -> None:
    """Raise a ValueError if the new trials of a study would not be comparable with its old ones.

    Data, search space and code must be the same in the metadata of the study and in those of the next session;
    `accepts_changes` says that the code may have changed, also because no trial has measured anything.
    """
    differences = []
    if (old.dataset and old.dataset.sha256) != (new.dataset and new.dataset.sha256):
        differences.append(f"on other data than those of {new.task.name} in {new.settings.data_dir}")
    if old.space != new.space:
        before, now = describe(old.space), describe(new.space)
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        differences.append(f"with another search space: {', '.join(names)} differ")
    changed = changed_code(old, new)
    if changed and not accepts_changes:
        commit = (old.sessions[-1].git_commit if old.sessions else None) or "unknown"
        differences.append(f"with other code: {', '.join(changed)} changed since {new.task.code_since(commit)}")
    if differences:
        difference = f"study {study} was run {' and '.join(differences)}"
        if old.plan:  # a confirmation has no other trials to learn from
            raise ValueError(
                f"{difference}, so new trainings would not be comparable; to begin again, remove its folder"
            )
        remedy = "; if the change of code alters no number, add --accept-changes" if changed else ""
        raise ValueError(not_comparable(difference) + remedy)
