"""Look at a study that runs, and pause it, end it, stop its trials, add trials or change its limits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from search.record.lookup import find_study
from search.record.requests import Action, AnsweredRequest, check_words
from training.config import base_folder
from training.console.command_line import parse, refuse, run_command
from training.console.json_output import write_object
from training.console.terminal import this_user, wrapped
from training.typed_command import portable_line

EXAMPLES = (
    "latest status",
    "latest stop-trial 7",
    "latest enqueue learning_rate=0.003,optimizer=adam",
    "latest set num-samples=40",
)
"""What is asked of the newest study, as its words stand on the command line."""
Asked = Literal["status", Action]


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """Options of `python search/control.py`."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """Name or folder of the study, or latest for the newest one."""
    action: Annotated[Asked, tyro.conf.Positional, tyro.conf.arg(metavar="ACTION")] = "status"
    """status: print how the study stands. pause: let no trial begin, and let running trials wait after their epoch, so
    that the machine is free. resume: go on after a pause. stop: end the study after the epoch that runs; it can be
    resumed. stop-trial N: stop trial N after the epoch that it runs. enqueue NAME=VALUE,...: train these values
    next; the sampler chooses those that are not named. set num-samples=N, time-budget=TIME or max-concurrent=N: change
    this option."""
    arguments: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ARGUMENT ...")] = ()
    """What the action needs: a number of a trial, values or an option."""
    results_dir: Path = field(default_factory=lambda: base_folder() / "results")
    """Folder of all studies."""
    storage: str | None = None
    """PostgreSQL server that stores the record of a study without a study.db."""
    json: bool = False
    """For other programs: write one JSON document to standard output, and all text to standard error.
    docs/programs.md explains it."""

    def __post_init__(self) -> None:
        """Refuse what is no request."""
        if self.action != "status":
            check_words(self.words)
        elif self.arguments:
            raise ValueError(f"nothing follows status, got {' '.join(self.arguments)}")

    @property
    def words(self) -> list[str]:
        """The request."""
        return [self.action, *self.arguments]


def control_study(study: str | Path, request: str, *, results_dir: str | Path | None = None) -> str:
    """Ask a study that runs to do something, and wait until it has done it.

    Args:
        study: Path of its folder, its name in the results folder, or `latest`.
        request: For example `pause`, `stop-trial 7` or `enqueue learning_rate=0.003,optimizer=adam`; docs/using.md has
            all of them.
        results_dir: The folder of all studies.

    Returns:
        What the study has done, in one sentence.

    Raises:
        ValueError: There is no such study, it does not run, or it cannot do this.
        OSError: The folder of the study cannot be written.
    """
    from search.record.mailbox import ask_study  # optuna takes a second

    results = Path(results_dir) if results_dir is not None else base_folder() / "results"
    answered = ask_study(find_study(str(study), results), request.split(), f"Python, {this_user()}")
    if not answered.is_done:
        raise ValueError(answered.answer)
    return answered.answer


@dataclass(frozen=True, kw_only=True)
class RequestAnswer:
    """A study that runs has done what it was asked for."""

    type: Literal["answer"] = "answer"
    study: str
    answered: AnsweredRequest


def main() -> int:
    """Ask a study that runs to do what the command line says; returns the exit status."""
    examples = [portable_line("search/control.py", *words.split()) for words in EXAMPLES]
    options = parse(ControlSettings, "\n\n".join([__doc__ or "", *examples]))
    try:
        folder = find_study(options.study, options.results_dir, options.storage)
    except (ValueError, OSError) as error:
        refuse(str(error))

    from search.monitoring.study_status import show_status, study_status  # optuna takes a second
    from search.record.file_names import STUDY_DB
    from search.record.folder import is_locked, owner_of
    from search.record.mailbox import ask_study
    from search.record.postgresql import open_server
    from search.record.study_record import StudyRecord

    try:
        needs_server = options.storage is not None and not (folder / STUDY_DB).is_file()
        server = open_server(str(options.storage)) if needs_server else None
        if options.action == "status":
            runs, record = is_locked(folder), StudyRecord.open(folder, server)
            status = study_status(record, runs=runs)
            show_status(status, record, owner_of(folder) if runs else "")
            write_object(status)
            return 0
        answered = ask_study(folder, options.words, this_user(), server=server)
    except (ValueError, OSError) as error:
        refuse(str(error))
    if not answered.is_done:
        refuse(answered.answer)
    print(wrapped(f"Study {folder.name}: {answered.answer}."))
    write_object(RequestAnswer(study=folder.name, answered=answered))
    return 0


if __name__ == "__main__":
    run_command(main, outlive_reader=False)
