"""Search learning rate, batch size and optimizer of the tutorial's network with Ray Tune and Optuna."""

import sys

from search.settings import StudySettings
from training.command_line import parse, refuse


def main() -> int:
    """Run the study that the command line describes; returns the exit status."""
    settings = parse(StudySettings, __doc__ or "")

    from search.study import prepare_study, run_study  # torch and Ray take seconds: --help does without

    try:
        study = prepare_study(settings)
    except (ValueError, OSError) as error:
        refuse(str(error))
    return run_study(study)


if __name__ == "__main__":
    sys.exit(main())
