"""`python search/run.py` with trainings that leave notes; takes the same options."""

import sys

from observed_training import observed_trainable

import search.engine.trainable
import search.run

if __name__ == "__main__":
    search.engine.trainable.trainable = observed_trainable  # before the modules that take it from there are imported
    sys.exit(search.run.main())
