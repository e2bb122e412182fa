"""What a study does while its record cannot be written: it waits, and mends what it can."""

import time
from contextlib import suppress

from search.algorithms.stopping import Ending
from search.monitoring.terminal import show_event
from search.record.database import NoPatience, RecordUnwritableError, reason
from search.record.folder import StudyFolder

PAUSE_SECONDS = 1.0


class Patience(NoPatience):
    """Waits as long as it takes: until there is room on the disk, or the folder is back, or the server answers.

    Nothing is lost meanwhile. Workers finish their epoch and wait; what they reported is in memory and is written next.
    """

    def __init__(self, folder: StudyFolder, ending: Ending) -> None:
        self._folder = folder
        self._ending = ending
        self._waiting = False

    def wait(self, error: Exception) -> None:
        """Say once what is wrong, make the folder again if it was removed, and let some time pass.

        Raises:
            RecordUnwritableError: The study was told to end, and this cannot be recorded.
        """
        if self._ending.signal is not None:
            raise RecordUnwritableError(f"the record cannot be written ({reason(error)})") from error
        if not self._waiting:
            show_event(f"the record cannot be written ({reason(error)}); the study waits until it can")
            self._waiting = True
        with suppress(OSError, ValueError):  # not yet; the next failure comes here again
            self._folder.mend()
        time.sleep(PAUSE_SECONDS)

    def over(self) -> None:
        """Say that it can be written again."""
        if self._waiting:
            show_event("the record can be written again")
            self._waiting = False
