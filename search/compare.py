"""Compare the best values, costs and settings of studies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from search.record.lookup import find_study
from training.config import base_folder
from training.console.command_line import parse, refuse, run_command
from training.console.json_output import write_object
from training.console.terminal import short_path


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Options of `python search/compare.py`."""

    studies: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="STUDY STUDY...", help_behavior_hint="(two or more)"),
    ]
    """The studies: the name or the folder of each, or latest for the newest one. Studies whose names differ only in
    their last number (tpe-1, tpe-2) are repeats and form one group."""
    results_dir: Path = field(default_factory=lambda: base_folder() / "results")
    """Folder of all studies."""
    output: Path | None = None
    """HTML file for the page of charts; by default comparison.html in the results folder."""
    storage: str | None = None
    """PostgreSQL server that stores the records of the studies without a study.db."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""

    def __post_init__(self) -> None:
        """Refuse fewer than two studies."""
        if len(self.studies) < 2:
            raise ValueError(f"a comparison needs at least two studies, got {len(self.studies)}")


def main() -> int:
    """Compare the studies that the command line names; returns the exit status."""
    options = parse(CompareSettings, __doc__ or "")
    try:
        folders = [find_study(study, options.results_dir, options.storage) for study in options.studies]
    except (ValueError, OSError) as error:
        refuse(str(error))

    from search.analysis.comparison import compare  # optuna and pandas take seconds
    from search.outputs import comparison_page
    from search.outputs.comparison_objects import comparison_of_studies
    from search.outputs.comparison_text import show_comparison
    from search.record.file_names import STUDY_DB
    from search.record.postgresql import open_server
    from search.record.study_record import StudyRecord
    from training.atomic_file import write_atomically

    try:
        server = open_server(options.storage) if options.storage is not None else None
        records = [StudyRecord.open(folder, None if (folder / STUDY_DB).is_file() else server) for folder in folders]
        comparison = compare(records)
    except (ValueError, OSError) as error:
        refuse(str(error))
    show_comparison(comparison)
    page = options.output or options.results_dir / comparison_page.FILE_NAME
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page, comparison_page.render(comparison))
    except OSError as error:
        refuse(f"{page} cannot be written: {error.strerror}")
    print(f"Page: {short_path(page.resolve())}")
    if options.json:
        write_object(comparison_of_studies(comparison, page.resolve()))
    return 0


if __name__ == "__main__":
    run_command(main, outlive_reader=True)
