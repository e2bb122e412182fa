"""Search hyperparameters of a network with Ray Tune and Optuna."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.ray_environment import set_ray_environment
from search.record.lookup import (
    add_stored_trials,
    check_code_named,
    check_same_study,
    code_paths,
    confirm_line,
    find_study,
    resume_command,
    stored_settings,
    study_to_continue,
)
from search.retraining.settings import ConfirmSettings
from search.settings import RENAMED_OPTIONS, StudySettings, is_address
from training.console.command_line import option_value, parse, refuse, run_command
from training.console.json_output import Error, write_events, write_object

if TYPE_CHECKING:
    from search.engine.study import Study


def read_settings(args: list[str]) -> StudySettings:
    """Read the settings from a command line; a resumed study has its settings from its record.

    Raises:
        ValueError: The study to be resumed does not exist, or the command line contradicts its settings.
    """
    args = _with_store(args)
    resume, name = option_value(args, "--resume"), option_value(args, "--name")
    results_dir = Path(option_value(args, "--results-dir") or StudySettings().results_dir)
    others = [arg for arg in args if arg.replace("_", "-") != "--resume-existing"]
    study = study_to_continue(resume, name, results_dir, resume_existing=others != args)
    if study is None:
        return parse(StudySettings, __doc__ or "", args, renamed=RENAMED_OPTIONS)
    args = args if resume else others
    server = option_value(args, "--storage")
    stored = stored_settings(find_study(study, results_dir, server), server)
    check_code_named(study, stored, {option: option_value(args, option) for option in code_paths(stored)})
    args, fork = add_stored_trials(args, stored.num_samples), "--fork" in args
    defaults = stored
    forked = str(stored.resume)
    if fork:
        defaults = replace(stored, name=None, resume=None, warm_start=(forked,), results_dir=results_dir)
    settings = parse(StudySettings, __doc__ or "", args, defaults, renamed=RENAMED_OPTIONS)
    if fork:
        others = [other for other in settings.warm_start if other != forked]
        return replace(settings, resume=None, warm_start=(forked, *others))
    if resume and settings.warm_start:
        raise ValueError("warm_start is for a new study: leave it out, or add --fork to begin one")
    check_same_study(stored, settings)
    return replace(settings, results_dir=stored.results_dir, resume=stored.resume)


def _with_store(args: list[str]) -> list[str]:
    """A command line in which an address of `--results-dir` is that of `--checkpoints-dir`."""
    address = option_value(args, "--results-dir")
    if address is None or not is_address(address):
        return args
    # the parser takes the last of several values
    return [*args, f"--checkpoints-dir={address}", f"--results-dir={StudySettings().results_dir}"]


def show_space(settings: StudySettings) -> None:
    """Print the search space of a study with these settings.

    Raises:
        ValueError: The search space breaks a rule, or the study that is resumed or forked does not exist.
    """
    from search.space.search_space import ShownSpace, describe
    from search.space.toml_file import active_space, to_toml

    stored, earlier = None, settings.resume or (settings.warm_start[0] if settings.fork else None)
    if earlier:
        from search.record.study_record import StudyRecord  # torch and optuna take seconds

        stored = StudyRecord.open(find_study(earlier, settings.results_dir)).space
    space = active_space(settings, stored)
    print(to_toml(space))
    if settings.json:
        write_object(ShownSpace(space=describe(space), file=None, left_out=[]))


def main() -> int:
    """Run the study that the command line describes; returns the exit status."""
    began = time.monotonic()
    set_ray_environment()
    try:
        settings = read_settings(sys.argv[1:])
        if settings.json:
            write_events()

        if settings.show_space:
            show_space(settings)
            return 0

        from search.engine.study import prepare_study  # torch and Ray take seconds

        study = prepare_study(settings, began, runs_now=True)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        return 130
    status = run_study(study)
    if status == 0 and study.confirmed_next:
        return confirm_study(study)
    return status


def run_study(study: "Study") -> int:
    """Run the trials of a study that have not ended, write its files and its report, and print its summary.

    Args:
        study: From `prepare_study`.

    Returns:
        The exit status: 0 if a trial completed, 1 if none did or every trial raised the same error, 128 and the signal
        after SIGINT or SIGTERM.
    """
    from search.engine.study_run import StudyRun

    settings, record = study.settings, study.record
    command = resume_command(record.folder, record.address, settings)
    with StudyRun(study, command) as run:
        with run.trials() as run_until:
            run_until(None)
        from search.outputs.report import write_outputs  # takes a second, and was imported while the trials ran
        from search.outputs.summary import show_early_end, show_summary

        findings = write_outputs(record, study.data)
        run.loggers.close()  # after the files are written, because some loggers upload them
        is_confirmed_next = study.confirmed_next is not None and run.exit_status == 0
        show_summary(record, findings, is_confirmed_next=is_confirmed_next)
        reason = run.stopper.reason if study.trials_to_run > 0 else None
        if reason:
            go_on = None if run.stopper.exhausted else command
            show_early_end(reason, record, go_on, has_same_error=run.stopper.has_same_error)
        if settings.json:
            from search.outputs.study_objects import study_ended

            ended = study_ended(record, findings, exit_status=run.exit_status, reason=reason, resume=command)
            write_object(ended)
    if run.unwritable:
        write_object(Error(message=run.unwritable))
    return run.exit_status


def confirm_study(study: "Study") -> int:
    """Confirm a study that has just ended, as `search/confirm.py` does; returns the exit status."""
    from search.outputs.study_objects import confirmation_ended
    from search.retraining.confirm_study import confirm, prepare_confirmation

    settings, record = study.settings, study.record
    top, seeds = study.confirmed_next or (0, 0)
    options = ConfirmSettings(
        study=record.folder.name,
        top=top,
        seeds=seeds,
        storage=settings.storage,
        address=settings.address,
        quiet=settings.quiet,
        dashboard=settings.dashboard,
        json=settings.json,
    )
    print("", flush=True)
    try:
        confirmation = prepare_confirmation(record.folder, options, time.monotonic())
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        return 130
    command = confirm_line(record.folder, record.address, settings, top=top, seeds=seeds)
    status = confirm(confirmation, command=command)
    if settings.json:
        write_object(confirmation_ended(confirmation.parent, exit_status=status, resume=command))
    return status


if __name__ == "__main__":
    run_command(main, outlive_reader=True)
