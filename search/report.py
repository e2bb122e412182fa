"""Write the report and the tables of a study again, and print its summary."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from search.record.lookup import COMMAND, check_code_named, find_study, stored_settings
from training.config import PROJECT
from training.console.command_line import parse, refuse, run_command

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord
    from search.settings import StudySettings
    from training.images.image_data import ImageData


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Options of `python search/report.py`."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The study, which may still be running: its name, its folder, or latest for the newest study."""
    results_dir: Path = field(default_factory=lambda: PROJECT / "results")
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


def main() -> int:
    """Report on the study that the command line names; returns the exit status."""
    options = parse(ReportSettings, __doc__ or "")
    try:
        folder = find_study(options.study, options.results_dir, options.storage)
        settings = stored_settings(folder, options.storage)
        if options.data_dir is not None:
            settings = replace(settings, data_dir=options.data_dir)
    except (ValueError, OSError) as error:
        refuse(str(error))

    from search.analysis.findings import analyse
    from search.outputs.files import StudyFiles
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
    findings = analyse(record)
    data = _export_best(folder, settings, record, options)
    try:
        write_report(record, findings, data)
    except OSError as error:
        print(f"The report cannot be written: {error}")
    show_summary(record, findings)
    return 0


if __name__ == "__main__":
    run_command(main, outlive_reader=True)
