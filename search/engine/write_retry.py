"""Waits while the record of a study cannot be written, restores removed files, and tries again."""

import time
from contextlib import suppress

from search.algorithms.stopping import StudyStopper
from search.record.database import NoRetry, RecordUnwritableError, reason
from search.record.folder import StudyFolder
from training.console.terminal import show_event

PAUSE_SECONDS = 1.0


class WriteRetry(NoRetry):
    """Waits without a limit: until the disk has space, the folder is restored or the server answers.

    Nothing is lost meanwhile: workers finish their epoch and wait, and their reports stay in memory until they are
    written.
    """

    def __init__(self, folder: StudyFolder, stopper: StudyStopper) -> None:
        self._folder = folder
        self._stopper = stopper
        self._is_waiting = False

    def wait(self, error: Exception) -> None:
        """Print the error once, restore the folder if it was removed, and wait for a second.

        Raises:
            RecordUnwritableError: A signal asked the study to end, and this cannot be recorded.
        """
        if self._stopper.signal is not None:
            raise RecordUnwritableError(f"the record cannot be written ({reason(error)})") from error
        if not self._is_waiting:
            show_event(f"the record cannot be written ({reason(error)}); the study waits until this is possible")
            self._is_waiting = True
        with suppress(OSError, ValueError):  # it cannot be restored yet; `wait` is called again after the next failure
            self._folder.restore()
        time.sleep(PAUSE_SECONDS)

    def succeeded(self) -> None:
        """Print that the record can be written again, if it could not."""
        if self._is_waiting:
            show_event("the record can be written again")
            self._is_waiting = False
