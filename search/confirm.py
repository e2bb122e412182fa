"""Confirm a study: train its best configurations again from new seeds."""

import sys
import time

from search.ray_environment import set_ray_environment
from search.record.lookup import (
    check_code_named,
    code_named_by,
    confirm_line,
    find_study,
    stored_settings,
)
from search.retraining.settings import ConfirmSettings
from training.console.command_line import parse, refuse, run_command
from training.console.json_output import write_object
from training.typed_command import command_line


def main() -> int:
    """Confirm the study that the command line names; returns the exit status."""
    began = time.monotonic()
    set_ray_environment()
    options = parse(ConfirmSettings, __doc__ or "")
    try:
        folder = find_study(options.study, options.results_dir, options.storage)
        stored = stored_settings(folder, options.storage)
        line = confirm_line(folder, options.storage, stored, top=options.top, seeds=options.seeds)
        check_code_named(folder.name, stored, code_named_by(options), line)

        from search.outputs.study_objects import confirmation_ended  # torch and Ray take seconds
        from search.retraining.confirm_study import confirm, prepare_confirmation

        confirmation = prepare_confirmation(folder, options, began)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        return 130
    command = command_line("search/confirm.py", *sys.argv[1:])
    status = confirm(confirmation, command=command)
    if options.json:
        write_object(confirmation_ended(confirmation.parent, exit_status=status, resume=command))
    return status


if __name__ == "__main__":
    run_command(main, outlive_reader=True)
