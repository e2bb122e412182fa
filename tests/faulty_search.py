"""`python tests/faulty_search.py FAULT OPTIONS` runs a study with one of the trainables in `faulty`."""

import sys

import faulty

from search import run
from search.engine import tuner

if __name__ == "__main__":
    tuner.__dict__["trainable"] = getattr(faulty, sys.argv.pop(1))
    sys.exit(run.main())
