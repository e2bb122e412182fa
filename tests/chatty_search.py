"""`search/run.py` with trials whose ends are accompanied by all kinds of output."""

import os
import sys

from search import run
from search.monitoring.live_view import LiveView
from search.record.trial import TrialRecord
from training.console.terminal import guard_output


def chatter(self: LiveView, trial: TrialRecord) -> None:
    print("chatter printed")
    print("chatter to stderr", file=sys.stderr, flush=True)
    os.write(2, b"chatter past Python\n")
    print("chatter \x1b[2J spelled out", flush=True)


LiveView.show_ended = chatter  # type: ignore[method-assign]

if __name__ == "__main__":
    guard_output(outlive_reader=True)
    sys.exit(run.main())
