"""Write the report and the files of a study anew from its record and print its summary; it may be running or killed."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from search.record.lookup import check_code_named, find_study, stored_settings
from training.config import PROJECT
from training.console.command_line import parse, refuse
from training.console.terminal import guard_output

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord
    from search.settings import StudySettings
    from training.images.image_data import ImageData


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Options of `python search/report.py`."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The study: its name, its folder or latest."""
    results_dir: Path = field(default_factory=lambda: PROJECT / "results")
    """Folder that holds the studies' folders."""
    data_dir: Path | None = None
    """Folder of the images, which show what the best model mistakes; by default that of the study."""
    storage: str | None = None
    """PostgreSQL server that holds the record, if the study was run with this option."""
    network: str | None = None
    """The study's network, if it is a function of yours: its code is run, to show and ship the best model, only when it
    is named again."""
    dataset: str | None = None
    """The study's data set, if a function of yours loads it, likewise."""


def _best_model(
    folder: Path, settings: "StudySettings", record: "StudyRecord", options: ReportSettings
) -> "ImageData | str":
    """Ship the best model; returns the images that show what it mistakes, or why there are none."""
    from search.outputs.model_export import ship
    from search.outputs.report import images_of

    try:
        check_code_named(folder.name, settings, {"--network": options.network, "--dataset": options.dataset})
        ship(settings, record)
        return images_of(settings, record)
    except (ValueError, OSError) as error:
        print(f"The best model is neither shown nor shipped: {error}")
        return str(error)


def main() -> int:
    """Report as the command line says; returns the exit status."""
    options = parse(ReportSettings, __doc__ or "")
    try:
        folder = find_study(options.study, options.results_dir, options.storage)
        settings = stored_settings(folder, options.storage)
        if options.data_dir is not None:
            settings = replace(settings, data_dir=options.data_dir)
    except (ValueError, OSError) as error:
        refuse(str(error))

    from search.analysis.findings import find
    from search.outputs.files import StudyFiles
    from search.outputs.report import write_report
    from search.outputs.summary import show_summary
    from search.record.folder import StudyFolder
    from search.record.postgresql import open_server
    from search.record.study_record import StudyRecord
    from search.space import search_space  # torch and optuna take seconds

    try:
        server = open_server(options.storage) if options.storage is not None else None
        record = StudyRecord.open(folder, server)
        space = search_space.parse(record.facts["space"])
    except (ValueError, OSError) as error:
        refuse(str(error))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        StudyFolder(folder)
        StudyFiles(record, space).write()
    except (ValueError, OSError) as error:
        print(f"The files stay as they are: {error}")
    findings = find(record, space)
    data = _best_model(folder, settings, record, options) if record.subject.has_images else "there are no images"
    try:
        write_report(record, space, findings, data)
    except OSError as error:
        print(f"The report cannot be written: {error}")
    show_summary(settings, record, space, findings)
    return 0


if __name__ == "__main__":
    guard_output(outlive_reader=True)
    sys.exit(main())
