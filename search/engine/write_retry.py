"""What a study does while its record cannot be written: it waits and tries again, and restores what was removed."""

import time
from contextlib import suppress

from search.algorithms.stopping import StudyStopper
from search.record.database import NoRetry, RecordUnwritableError, reason
from search.record.folder import StudyFolder
from training.console.terminal import show_event

PAUSE_SECONDS = 1.0


class WriteRetry(NoRetry):
    """Waits as long as it takes: until there is room on the disk, or the folder is back, or the server answers.

    Nothing is lost meanwhile. Workers finish their epoch and wait; what they reported is in memory and is written next.
    """

    def __init__(self, folder: StudyFolder, stopper: StudyStopper) -> None:
        self._folder = folder
        self._stopper = stopper
        self._is_waiting = False

    def wait(self, error: Exception) -> None:
        """Print once what is wrong, make the folder again if it was removed, and let some time pass.

        Raises:
            RecordUnwritableError: The study was asked to end, and this cannot be recorded.
        """
        if self._stopper.signal is not None:
            raise RecordUnwritableError(f"the record cannot be written ({reason(error)})") from error
        if not self._is_waiting:
            show_event(f"the record cannot be written ({reason(error)}); the study waits until it can")
            self._is_waiting = True
        with suppress(OSError, ValueError):  # not yet; the next failure comes here again
            self._folder.restore()
        time.sleep(PAUSE_SECONDS)

    def succeeded(self) -> None:
        """Print that the record can be written again."""
        if self._is_waiting:
            show_event("the record can be written again")
            self._is_waiting = False
