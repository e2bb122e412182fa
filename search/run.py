"""Search learning rate, batch size and optimizer of the tutorial's network with Ray Tune and Optuna."""

import gc
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.record.lookup import (
    check_code_named,
    check_same_study,
    code_places,
    find_study,
    stored_settings,
    with_total,
)
from search.settings import StudySettings
from training.console.command_line import option_value, parse, refuse
from training.console.terminal import guard_output

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord


def read_settings(words: list[str]) -> StudySettings:
    """The settings that a command line asks for; those of a resumed study are its own.

    Raises:
        ValueError: The study to be resumed does not exist, or the command line contradicts its settings.
    """
    study = option_value(words, "--resume")
    if study is None:
        return parse(StudySettings, __doc__ or "", words)
    results_dir = Path(option_value(words, "--results-dir") or StudySettings().results_dir)
    server = option_value(words, "--storage")
    stored = stored_settings(find_study(study, results_dir, server), server)
    named = {option: place for option, place in code_places(stored).items() if option_value(words, option) is not None}
    check_code_named(study, stored, named)
    if "--fork" in words:
        start = replace(stored, name=None, resume=None, warm_start=stored.resume, results_dir=results_dir)
        settings = parse(StudySettings, __doc__ or "", with_total(words, stored.num_samples), start)
        return replace(settings, resume=None)
    settings = parse(StudySettings, __doc__ or "", with_total(words, stored.num_samples), stored)
    check_same_study(stored, settings)
    return replace(settings, results_dir=stored.results_dir, resume=stored.resume)


def show_space(settings: StudySettings) -> None:
    """Print what a study with these settings would search.

    Raises:
        ValueError: The search space breaks a rule, or the study that is resumed or forked does not exist.
    """
    from search.space.toml_file import space_in_force, to_toml

    stored, earlier = None, settings.resume or (settings.warm_start if settings.fork else None)
    if earlier:
        from search.record.study_record import StudyRecord  # torch and optuna take seconds

        stored = StudyRecord.open(find_study(earlier, settings.results_dir)).space
    print(to_toml(space_in_force(settings, stored)))


def main() -> int:
    """Run the study that the command line describes; returns the exit status."""
    began = time.monotonic()
    try:
        settings = read_settings(sys.argv[1:])

        if settings.show_space:
            show_space(settings)
            return 0

        from search.engine.study import prepare_study, run_study  # torch and Ray take seconds

        study = prepare_study(settings, began=began, at_once=True)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        return 130
    status = run_study(study)
    if status == 0 and settings.confirm_size:
        return confirm_study(study.record, settings)
    return status


def confirm_study(record: "StudyRecord", settings: StudySettings) -> int:
    """Confirm a study that has just ended, as `search/confirm.py` does; returns the exit status."""
    from search.monitoring.terminal import study_words
    from search.retraining.confirm_study import Wanted, confirm, prepare

    top, seeds = settings.confirm_size or (0, 0)
    words = [*study_words(record, settings.results_dir), "--top", str(top), "--seeds", str(seeds)]
    print("", flush=True)
    try:
        wanted = Wanted(
            top=top,
            seeds=seeds,
            command=shlex.join(["python", "search/confirm.py", *words]),
            storage=settings.storage,
            address=settings.address,
            quiet=settings.quiet,
            dashboard=settings.dashboard,
        )
        confirming = prepare(record.folder, wanted, time.monotonic())
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        return 130
    return confirm(confirming)


if __name__ == "__main__":
    guard_output(outlive_reader=True)
    status = main()
    gc.freeze()  # nothing is looked for in what is left: that would take Python a second
    sys.exit(status)
