"""Train a trial of a study again, and compare its metrics with the record."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from search.record.lookup import check_code_named, code_named_by, find_study, reproduce_line, stored_settings
from training.config import base_folder
from training.console.command_line import parse, refuse, run_command
from training.console.json_output import Error, write_object
from training.console.terminal import counted, wrapped

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord
    from search.record.trial import TrialRecord
    from search.retraining.reproduction import EpochPair, Reproduction, Show
    from search.settings import StudySettings
    from training.images.image_data import ImageData

EXIT_AGREES, EXIT_DIFFERS, EXIT_INTERRUPTED = 0, 1, 130


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """Options of `python search/reproduce.py`."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The study: its name, its folder, or latest for the newest study."""
    trial: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="TRIAL")]
    """Number of the trial, as in the column trial_number of trials.csv."""
    results_dir: Path = field(default_factory=lambda: base_folder() / "results")
    """Folder of all studies."""
    data_dir: Path | None = None
    """Folder of the data sets; by default that of the study."""
    storage: str | None = None
    """PostgreSQL server that stores the record, if the study was run with this option."""
    network: str | None = None
    """Import path of the study's network, if you wrote it. Its code runs only if you name it again."""
    dataset: str | None = None
    """Import path of the function that loads the study's images, if you wrote it. Its code runs only if you name it
    again."""
    train_function: str | None = None
    """Import path of the study's training function. Its code runs only if you name it again."""
    command: str | None = None
    """The command that runs the study's program, as you typed it for the study. It runs only if you name it again."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""


def main() -> int:
    """Train the trial that the command line names again; returns the exit status."""
    options = parse(ReproduceSettings, __doc__ or "")
    try:
        folder = find_study(options.study, options.results_dir, options.storage)
        settings = stored_settings(folder, options.storage)
        if options.data_dir is not None:
            settings = replace(settings, data_dir=options.data_dir)
        line = reproduce_line(folder, options.storage, settings, options.trial)
        check_code_named(folder.name, settings, code_named_by(options), line)
        prepared = prepare_reproduction(folder, options.trial, settings, options.storage)
    except (ValueError, OSError) as error:
        refuse(str(error))
    try:
        agrees = show_reproduction(prepared)
    except KeyboardInterrupt:
        sentence = f"Interrupted after {counted(len(prepared.reproduction.pairs), 'epoch')}."
        print(f"\n{sentence}", file=sys.stderr)
        write_object(Error(message=sentence))
        return EXIT_INTERRUPTED
    if options.json:
        from search.retraining.reproduction_objects import reproduction_of_trial

        write_object(reproduction_of_trial(prepared.record, prepared.reproduction))
    return EXIT_AGREES if agrees else EXIT_DIFFERS


@dataclass(frozen=True)
class PreparedReproduction:
    """A trial that can be trained again."""

    record: "StudyRecord"
    trial: "TrialRecord"
    reproduction: "Reproduction"
    data: "ImageData | None"
    """None with a training of the user's own."""


def prepare_reproduction(
    folder: Path, number: int, settings: "StudySettings", storage: str | None
) -> PreparedReproduction:
    """Read a trial, and load what its training needs; a ValueError or an OSError says that it cannot be repeated.

    Args:
        folder: The folder of the study.
        number: The number of the trial.
        settings: The settings of the study, which say where its images are.
        storage: Address of the server that has the record, unless there is a `study.db`.
    """
    from search.outputs.report import same_images  # torch and optuna take seconds
    from search.record.postgresql import open_server
    from search.record.study_record import StudyRecord
    from search.retraining.reproduction import Reproduction, find_trial

    record = StudyRecord.open(folder, open_server(storage) if storage is not None else None)
    record.close()  # the whole record is in memory, and nothing is written
    trial = find_trial(record, number)
    reproduction = Reproduction(record, trial)
    data = same_images(settings, record) if record.metadata.dataset else None
    return PreparedReproduction(record, trial, reproduction, data)


def show_reproduction(prepared: PreparedReproduction) -> bool:
    """Train a trial again and print how it compares; returns whether it agrees with its record."""
    import torch

    record, reproduction = prepared.record, prepared.reproduction
    if record.metadata.settings.gpus_per_trial > 0 and not torch.cuda.is_available():
        print("WARNING: the trial was trained on a GPU, and this machine has no GPU\n")
    reproduction.train(prepared.data, _show_trial(record, prepared.trial))
    _show_result(reproduction)
    return reproduction.agrees()


def _show_trial(record: "StudyRecord", trial: "TrialRecord") -> "Show":
    """Print what is repeated, and the head of a table; returns the function that prints its rows."""
    from search.task.custom_metrics import metric_value
    from training.console.terminal import format_metric, format_value

    hyperparameters = ", ".join(f"{name} {format_value(value)}" for name, value in trial.hyperparameters.items())
    failure = f": {trial.failure.error}" if trial.failure else ""
    limit = None if trial.ended_by_itself else record.epoch_limit
    of = f" of {limit}" if limit else ""
    epochs = counted(limit or len(trial.epochs), "epoch").partition(" ")[2]
    title = f"Trial {trial.number} of study {record.folder.name}: {hyperparameters}, seed {trial.seed}"
    print(wrapped(title, hanging="  "))
    print(wrapped(f"{trial.status} after {len(trial.epochs)}{of} {epochs}{failure}", indent="  ") + "\n")
    names = _displayed_metrics(record, trial)
    widths = {name: max(20, len(name)) for name in names}
    if trial.epochs:
        print("epoch" + "".join(f"  {name:>{widths[name]}}" for name in names))
        print("     " + "".join(f"  {'recorded':>{widths[name] - 11}}  {'retrained':>9}" for name in names), flush=True)

    def show(pair: "EpochPair") -> None:
        cells = []
        for name in names:
            for metrics, width in ((pair.recorded, widths[name] - 11), (pair.retrained, 9)):
                value = None if metrics is None else metric_value(metrics, name)
                cells.append(f"{'-' if value is None else format_metric(value):>{width}}")
        result = "not recorded" if pair.recorded is None else "differs" if pair.deviations() else "equal"
        print(f"{pair.retrained.epoch:5}  {'  '.join(cells)}  {result}", flush=True)

    return show


def _displayed_metrics(record: "StudyRecord", trial: "TrialRecord") -> list[str]:
    """Up to three metrics that the trial has measured."""
    from search.task.custom_metrics import metric_value

    task = record.metadata.task
    names = dict.fromkeys([*task.displayed_metrics, "train_loss", *task.metric_names])
    known = [name for name in names if name in task.metric_names]
    return [name for name in known if any(metric_value(metrics, name) is not None for metrics in trial.epochs)][:3]


def _show_result(reproduction: "Reproduction") -> None:
    changes, reasons, failure = reproduction.changes(), reproduction.reasons(), reproduction.failure
    agrees = reproduction.agrees()
    if agrees:
        end = f", and it {failure.status} as recorded: {failure.error}" if failure else ""
        epochs = counted(len(reproduction.pairs), "epoch")
        sentence = f"The trial agrees with its record: all metrics of {epochs} are equal to the last digit{end}."
        print("\n" + wrapped(sentence))
    else:
        print("\n" + wrapped(f"The trial differs from its record. {' '.join(reproduction.differences())}"))
    if changes:
        print(wrapped(f"These have changed since the study was run: {'; '.join(changes)}."))
    elif not agrees:
        print("Versions, machine and code are the same, as far as they were recorded.")
    if reasons and not agrees:
        print(wrapped(f"This may be a reason: {'; '.join(reasons)}."))


if __name__ == "__main__":
    run_command(main, outlive_reader=False)
