"""The best model of a study, as it was exported: where it is, and what is in it."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from search.record.file_names import CONFIRM, MODEL, STUDY_DB
from search.record.lookup import study_args
from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings
from training.checkpoint import best_file
from training.config import NETWORKS, is_passed_function
from training.console.terminal import short_path, type_and_text
from training.model.custom_model import load_custom_model, read_custom_metadata
from training.model.model_folder import CONFIG, WEIGHTS, read_config, read_metadata
from training.model.model_metadata import CustomModelMetadata, ModelMetadata
from training.typed_command import command_line


@dataclass(frozen=True, kw_only=True)
class BestModel:
    """The best model of a study with its configuration."""

    hyperparameters: dict[str, Any]
    """Searched and fixed ones."""
    seed: int
    epoch: int
    """The best epoch."""
    metrics: dict[str, float | None]
    """The metrics of this epoch."""
    states: dict[str, Any]
    """What was saved, by name: the `state_dict` of each object that has one; for images, `model` is the network's."""
    files: Path | None = None
    """The folder that a training function saved after the best epoch, if it writes its checkpoints itself; or what a
    program left in its checkpoint folder, after its last epoch: only the program knows of which epoch that is."""
    folder: Path


def load_best(study: str | Path, *, results_dir: Path | None = None) -> BestModel:
    """Load the best model of a study from `model/` in its folder; no code of the user is run.

    Args:
        study: The study: its name, its folder, or `latest` for the newest one; or the folder of a model.
        results_dir: Folder of all studies; by default that of the commands.

    Raises:
        ValueError: There is no such model, or it is damaged.
    """
    results = results_dir or StudySettings().results_dir
    places = [results / study / MODEL, Path(study) / MODEL, Path(study)]
    folder = next((place for place in places if (place / CONFIG).is_file()), None)
    if folder is None:
        raise ValueError(
            f"study {study} has no model: there is no {CONFIG} in {' or '.join(map(str, places[:2]))}; a training of "
            "your own has one if it saved its best epoch with checkpoint.save, or in {checkpoint}"
        )
    metadata = read_exported(folder)
    if isinstance(metadata, CustomModelMetadata):
        model = load_custom_model(folder)
        return BestModel(
            hyperparameters=dict(model.metadata.hyperparameters),
            seed=model.metadata.seed,
            epoch=model.metadata.epoch,
            metrics=dict(model.metadata.metrics),
            states=model.objects,
            files=model.files,
            folder=folder,
        )
    try:
        weights = load_file(folder / WEIGHTS)
    except Exception as error:  # whatever the damage does to safetensors
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {type_and_text(error)}") from None
    seed = int(metadata.training["seed"])
    values = {"network": metadata.network, **metadata.network_hyperparameters, **metadata.training}
    return BestModel(
        hyperparameters={name: value for name, value in values.items() if name != "seed"},
        seed=seed,
        epoch=metadata.epoch,
        metrics={name: getattr(metadata, name) for name in ("val_accuracy", "val_loss", "test_accuracy", "test_loss")},
        states={"model": weights},
        folder=folder,
    )


def read_exported(folder: Path) -> ModelMetadata | CustomModelMetadata:
    """The metadata of the model in a folder; a ValueError says that they are missing or damaged."""
    return read_custom_metadata(folder) if "train_function" in read_config(folder) else read_metadata(folder)


def exported_best(record: StudyRecord) -> Path | None:
    """The folder of the exported model, if it holds the best epoch of the best trial."""
    best = best_trial(record.trials)
    if best is None or best.best_epoch is None or record.metadata.origin:
        return None
    return _exported(record, best.number, best.best_epoch.epoch, best.seed)


def exported_confirmed(record: StudyRecord) -> Path | None:
    """The folder of the exported model, if it is that of the study's confirmation."""
    confirmation = record.metadata.confirmation
    if confirmation is None:
        return None
    if final := confirmation.final:
        return _exported(record, final.trial, final.epochs, final.seed)
    assert confirmation.best is not None, "a confirmation without a final training has a best training"
    return _exported(record, confirmation.confirmed.trial, confirmation.best.epoch, confirmation.best.seed)


def describe_use(record: StudyRecord) -> str | None:
    """The line that says how the model is used, with images by a command, else in Python; or why there is none.

    None says that no trial has valid metrics, or that the model could not be exported, which was printed then.
    """
    if exported_best(record) is None and exported_confirmed(record) is None:
        reason = describe_missing(record)
        return reason and f"Model: none, because {reason}"
    if line := predict_line(record):
        return f"Predict: {line}"
    return f"Load: from search.api import load_best; best = load_best({study_args(record.folder, None)[0]!r})"


def predict_line(record: StudyRecord) -> str | None:
    """The command line that classifies an image with the model; None if there is no model, or it is not of images."""
    model, network = exported_best(record) or exported_confirmed(record), record.metadata.task.network
    if model is None or network is None or is_passed_function(network):
        return None
    trust = [] if network in NETWORKS else ["--trust-network"]
    return command_line("training/predict.py", str(short_path(model)), "IMAGE", *trust)


def describe_missing(record: StudyRecord) -> str | None:
    """Why there is no model, if a training of the user's own saved none; otherwise, and if it was imported, None."""
    trained = None if record.metadata.origin else _model_training(record)
    if record.metadata.task.network is not None or trained is None or saved_files(*trained) is not None:
        return None
    if record.metadata.task.saves_epochs:
        return "the function did not save its best epoch with checkpoint.save"
    return "the program left no file in {checkpoint}"


def _model_training(record: StudyRecord) -> tuple[StudyRecord, TrialRecord] | None:
    """The training whose model is exported, with its record: the best of the confirmed winner, or the best trial."""
    confirmation, trials = record.metadata.confirmation, record
    best = best_trial(record.trials)
    if confirmation and confirmation.best and (record.folder / CONFIRM / STUDY_DB).is_file():
        with closing(StudyRecord.open(record.folder / CONFIRM)) as trials:
            best = next((trial for trial in trials.trials if trial.number == confirmation.best.training), None)
    return None if best is None else (trials, best)


def saved_files(record: StudyRecord, trial: TrialRecord) -> Path | None:
    """The file or the folder that a trial saved after its best epoch; of a program the folder that it had."""
    file = record.checkpoints.file(trial.number)
    if not record.metadata.task.saves_epochs:
        folder = file.with_suffix("")
        is_complete = trial.has_ended and folder.is_dir() and not folder.is_symlink() and any(folder.iterdir())
        return folder if is_complete else None
    saved = best_file(file, trial.best_epoch.epoch) if trial.best_epoch else None
    return None if saved is None or saved.is_symlink() else saved


def _exported(record: StudyRecord, trial: int, epoch: int, seed: int) -> Path | None:
    """The folder of the exported model, if it is of this training."""
    folder = record.folder / MODEL
    try:
        model = read_exported(folder)
    except ValueError:
        return None
    trained_from = model.seed if isinstance(model, CustomModelMetadata) else model.training.get("seed")
    return folder if (model.trial, model.epoch, trained_from) == (trial, epoch, seed) else None
