"""`search/run.py` with trials whose ends are accompanied by all kinds of output.

`python tests/chatty_search.py OPTIONS` has the real Ray, `python tests/chatty_search.py serial OPTIONS` none.
"""

import os
import sys
from contextlib import nullcontext

from serial_ray import serial_ray

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
    is_serial = sys.argv[1] == "serial"
    if is_serial:
        sys.argv.pop(1)
    with serial_ray() if is_serial else nullcontext():
        status = run.main()
    sys.exit(status)
