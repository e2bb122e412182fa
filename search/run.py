"""Search learning rate, batch size and optimizer of the tutorial's network with Ray Tune and Optuna."""

import sys

from search.settings import StudySettings
from training.command_line import parse, refuse


def main() -> int:
    """Run the study that the command line describes; returns the exit status."""
    settings = parse(StudySettings, __doc__ or "")

    from search.study import (  # torch and Ray take seconds: --help does without
        EXIT_INTERRUPTED,
        prepare_study,
        run_study,
    )

    try:
        study = prepare_study(settings)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return run_study(study)


if __name__ == "__main__":
    sys.exit(main())
