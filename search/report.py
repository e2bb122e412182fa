"""Write the report and the tables of a study again, also of one by another program, and print its summary."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from search.record.lookup import COMMAND, check_code_named, find_study, stored_settings
from search.task.metric_names import Mode
from training.config import base_folder
from training.console.command_line import parse, refuse, run_command
from training.console.json_output import write_object
from training.console.terminal import wrapped
from training.typed_command import command_name

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord
    from search.settings import StudySettings
    from training.images.image_data import ImageData


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Options of `python search/report.py`."""

    study: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY", help_behavior_hint="(not with --import)")
    ] = None
    """The study, which may still be running: its name, its folder, or latest for the newest study."""
    import_: Annotated[str | None, tyro.conf.arg(name="import", metavar="SOURCE")] = None
    """Import the study of another program first: a storage of Optuna (a file of sqlite, or an address like
    postgresql://user@host/database), a folder of Ray Tune or TensorBoard, or a table (CSV). The search space of
    a sweep of W&B or Hydra (.yaml) becomes space.toml. Nothing of the source is run or changed. docs/import.md
    explains it."""
    study_name: Annotated[str | None, tyro.conf.arg(name="study", metavar="NAME")] = None
    """With --import: the name of the study in a source that has several."""
    metric: str | None = None
    """With --import: metric by which the trials are compared, where the source does not say it or has several."""
    mode: Mode | None = None
    """With --import: whether the highest value of the metric is the best (max) or the lowest one (min), where neither
    the source nor the name of the metric says it."""
    parameters: tuple[str, ...] = ()
    """With --import: the columns of a table that are hyperparameters; by default those that begin with params_,
    param_, param: or config/."""
    name: str | None = None
    """With --import: name of the new study and of its folder; by default that of the study in the source."""
    results_dir: Path = field(default_factory=lambda: base_folder() / "results")
    """Folder of all studies."""
    data_dir: Path | None = None
    """Folder of the data sets, for the errors of the best model on the test images; by default that of the study."""
    storage: str | None = None
    """PostgreSQL server that stores the record, if the study was run with this option."""
    network: str | None = None
    """Import path of the study's network, if you wrote it. Its code runs, to show and export the best model, only if
    you name it again."""
    dataset: str | None = None
    """Import path of the function that loads the study's images, if you wrote it. Its code runs only if you name it
    again."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""

    def __post_init__(self) -> None:
        """Check that there is one study to report on."""
        if (self.study is None) == (self.import_ is None):
            raise ValueError("a report needs either STUDY or --import SOURCE")
        of_import = {"study": self.study_name, "metric": self.metric, "mode": self.mode, "name": self.name}
        given = [f"--{name}" for name, value in (of_import | {"parameters": self.parameters}).items() if value]
        if self.import_ is not None and self.storage is not None:
            raise ValueError("--storage is of studies of Tunesmith; give the address of another storage to --import")
        if given and self.import_ is None:
            raise ValueError(f"{given[0]} needs --import, which names the source")


def _find(options: ReportSettings) -> Path:
    """The folder of the study, which is new if it is imported; a ValueError or an OSError says why there is none."""
    if options.import_ is None:
        return find_study(str(options.study), options.results_dir, options.storage)
    from search.importing.reading import SourceOptions, read_source  # optuna takes a second
    from search.importing.write import ImportChoices, write

    of_source = SourceOptions(study=options.study_name, metric=options.metric, parameters=options.parameters)
    study, source = read_source(options.import_, of_source)
    choices = ImportChoices(
        metric=options.metric, mode=options.mode, name=options.name, results_dir=options.results_dir
    )
    return write(study, source, choices)


def _export_best(
    folder: Path, settings: "StudySettings", record: "StudyRecord", options: ReportSettings
) -> "ImageData | str":
    """Export the best model; returns the images on which its errors are shown, or why there are no images."""
    from search.outputs.model_export import export_model
    from search.outputs.report import images_of

    try:
        named = {"--network": options.network, "--dataset": options.dataset}
        check_code_named(
            folder.name, settings, named | {"--train-function": settings.train_function, COMMAND: settings.command}
        )
        export_model(record)
        return images_of(settings, record)
    except (ValueError, OSError) as error:
        print(f"The errors of the best model are not shown, and the model is not exported: {error}")
        return str(error)


def _import_space(source: Path, name: str) -> int:
    """Write the search space of another program as a file of this one, and print what it does not have."""
    from search.importing.sweep import read_sweep
    from search.space.search_space import ShownSpace, describe
    from search.space.toml_file import to_toml

    file = Path(f"{name}.toml")
    sweep = read_sweep(source)
    with file.open("x") as stream:
        stream.write(to_toml(sweep.space) + "\n")
    print(f"Search space: {file}, for --space of {command_name('search/run.py')}")
    for left_out in sweep.left_out:
        print(wrapped(f"Not in it: {left_out}", hanging="  "))
    write_object(ShownSpace(space=describe(sweep.space), file=str(file.resolve()), left_out=[*sweep.left_out]))
    return 0


def main() -> int:
    """Report on the study that the command line names; returns the exit status."""
    options = parse(ReportSettings, __doc__ or "")
    try:
        if options.import_ is not None and options.import_.endswith((".yaml", ".yml")):
            return _import_space(Path(options.import_), options.name or "space")
        folder = _find(options)
        settings = stored_settings(folder, options.storage)
        if options.data_dir is not None:
            settings = replace(settings, data_dir=options.data_dir)
    except (ValueError, OSError) as error:
        refuse(str(error))

    from search.analysis.findings import analyse
    from search.outputs import study_objects
    from search.outputs.files import StudyFiles
    from search.outputs.import_text import show_import
    from search.outputs.report import write_report
    from search.outputs.summary import show_summary
    from search.record.folder import StudyFolder
    from search.record.postgresql import open_server
    from search.record.study_record import StudyRecord

    try:
        server = open_server(options.storage) if options.storage is not None else None
        record = StudyRecord.open(folder, server)
    except (ValueError, OSError) as error:
        refuse(str(error))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        StudyFolder(folder)
        StudyFiles(record).write()
    except (ValueError, OSError) as error:
        print(f"The files of the study are not written again: {error}")
    if options.import_ is not None:
        show_import(record)
    findings = analyse(record)
    data = _export_best(folder, settings, record, options)
    try:
        write_report(record, findings, data)
    except OSError as error:
        print(f"The report cannot be written: {error}")
    show_summary(record, findings)
    if options.json:
        write_object(study_objects.report(record, findings))
    return 0


if __name__ == "__main__":
    run_command(main, outlive_reader=True)
