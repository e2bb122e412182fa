"""Writes an imported study as a study of this program: its record, in a folder of its own."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import optuna

from search.importing.conditions import FoundSpace, find_space
from search.importing.curves import as_records, number_steps
from search.importing.foreign_study import ForeignStudy
from search.importing.names import folder_name
from search.record import folder as study_folder
from search.record.metadata import Origin, StudyMetadata
from search.record.study_record import StudyRecord
from search.record.trial import Objective, TrialRecord
from search.settings import StudySettings
from search.task.metric_names import Mode, derived_mode
from training.console.terminal import printable, shorten

_LONGEST_TEXT = 200


@dataclass(frozen=True, kw_only=True)
class ImportChoices:
    """What the user says of a study that is imported."""

    metric: str | None = None
    mode: Mode | None = None
    name: str | None = None
    """Name of its folder; by default the name of the study in the source."""
    results_dir: Path


def write(study: ForeignStudy, source: Path, choices: ImportChoices) -> Path:
    """Write the record of an imported study into a new folder.

    Args:
        study: What a reader returned.
        source: The file or folder from which it was read.
        choices: What the user says.

    Returns:
        The folder.

    Raises:
        ValueError: The study has no hyperparameters or no metric, or a name is taken.
        OSError: The folder cannot be written.
    """
    metric, mode = _metric_and_mode(study, choices)
    study = replace(study, metric=metric, mode=mode)
    if not study.trials:
        raise ValueError("it has no trial that began")
    found, curves = find_space(study), number_steps(study)
    if metric not in curves.metrics:
        known = ", ".join(map(printable, curves.metrics)) or "none"
        raise ValueError(f"no trial has metric {metric}; the metrics of the source are {known}")
    objective = Objective(curves.metrics[metric], mode, study.counted)
    trials, epochs = as_records(study, curves, found.points, objective)
    has_curves = any(len(trial.curve) > 1 for trial in trials)
    metadata = StudyMetadata(
        settings=_settings(study, objective, choices, trials, epochs),
        space=found.space,
        metrics=[name for name in curves.metrics.values() if name != objective.metric],
        origin=_origin(
            study, source, found, has_curves=has_curves, remarks=[*curves.remarks, *_lacks(trials, has_curves)]
        ),
    )

    def fill(record: StudyRecord) -> None:
        record.add_imported(trials)

    def make(folder: Path, name: str) -> None:
        StudyRecord.create(folder, metadata, name=name, fill=fill).close()

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study_folder.check_writable(choices.results_dir)
    return study_folder.make_folder(metadata.settings, choices.name or folder_name(study.name), make)


def _metric_and_mode(study: ForeignStudy, choices: ImportChoices) -> tuple[str, Mode]:
    """The metric by which the trials are compared, and whether its highest value is the best."""
    measured = dict.fromkeys(
        name for trial in study.trials for values in (*trial.steps.values(), trial.values) for name in values
    )
    metric = choices.metric if choices.metric in measured else study.metric or choices.metric
    if metric is None and len(measured) == 1:
        (metric,) = measured
    if metric is None:
        known = ", ".join(map(printable, measured)) or "none"
        raise ValueError(
            f"the source does not say by which metric it was searched: name it with --metric, one of {known}"
        )
    mode = study.mode or choices.mode or derived_mode(metric)
    if mode is None:
        raise ValueError(
            f"the source does not say whether the highest {metric} is the best: add --mode max or --mode min"
        )
    if choices.mode not in (None, mode):
        raise ValueError(f"its study has mode {mode}, so it cannot be imported with --mode {choices.mode}")
    return metric, mode


def _settings(
    study: ForeignStudy, objective: Objective, choices: ImportChoices, trials: list[TrialRecord], epochs: int | None
) -> StudySettings:
    return StudySettings(
        imported=shorten(printable(study.program), _LONGEST_TEXT),
        metric=objective.metric,
        mode=objective.mode,
        epochs=epochs,
        num_samples=len(trials),
        name=choices.name,
        results_dir=choices.results_dir,
    )


def _lacks(trials: list[TrialRecord], has_curves: bool) -> list[str]:
    """One sentence on what the source does not have, and which the report therefore leaves out."""
    lacks = {
        "seeds": all(trial.known_seed is None for trial in trials),
        "times": all(trial.seconds is None for trial in trials),
        "values per step": not has_curves,
    }
    listed = [name for name, is_lacking in lacks.items() if is_lacking]
    if not listed:
        return []
    return [f"The source has {' and '.join(f'no {name}' for name in listed)}, so the report leaves them out."]


def _origin(study: ForeignStudy, source: Path, found: FoundSpace, *, has_curves: bool, remarks: list[str]) -> Origin:
    return Origin(
        program=shorten(printable(study.program), _LONGEST_TEXT),
        file=shorten(printable(source.name), _LONGEST_TEXT),
        study=shorten(printable(study.name), _LONGEST_TEXT),
        time=datetime.now().astimezone().isoformat(timespec="seconds"),
        counted=study.counted,
        guessed=found.guessed,
        has_curves=has_curves,
        remarks=[*study.remarks, *found.remarks, *remarks],
    )
