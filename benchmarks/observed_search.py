"""`python search/run.py` with trainings that leave notes; takes the same options."""

import sys

from observed_training import observed_trainable

import search.run
import search.study

if __name__ == "__main__":
    search.study.trainable = observed_trainable  # type: ignore[assignment, attr-defined]
    sys.exit(search.run.main())
