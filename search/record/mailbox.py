"""Passes requests to the process that runs a study, and its answers back, as files in the folder of the study.

A request is not lost with the process that asked, nor with the one that is to answer.
"""

import itertools
import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from search.record.database import StudyStorage
from search.record.file_names import REQUESTS
from search.record.folder import is_locked
from search.record.requests import LASTING, AnsweredRequest, Request, new_request
from search.record.study_record import StudyRecord
from training.atomic_file import write_atomically
from training.json_data import from_json

Content = TypeVar("Content")

LARGEST_FILE = 2_000_000
"""Bytes; larger files are not read."""
SECONDS_BETWEEN_LOOKS, LOOKS_AT_LOCK = 0.05, 20
"""How often the answer is looked for, and after how many times the lock of the study is looked at."""
SECONDS_TO_TAKE = 60.0
"""A study takes a request within a second, unless its record cannot be written."""
SECONDS_TO_READ = 0.5
"""Who has asked reads an answer sooner."""
ASKED, TAKEN, ANSWERED = ".asked.json", ".taken.json", ".answered.json"
"""How the names of the files end: of a request, of one that the study is answering, and of an answer."""


class Mailbox:
    """The requests to a study, in a folder in which only its owner can write."""

    def __init__(self, study: Path) -> None:
        """Use the mailbox of the study in this folder."""
        self._folder = study / REQUESTS

    def open(self) -> None:
        """Create the folder, and remove what no longer matters, because the study begins to run.

        The requests that last are left, also those which the process that died had taken.
        """
        if self._folder.is_symlink() or self._folder.is_file():  # in a folder from somebody else
            self._folder.unlink()
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o700)
        for file in self._files(ANSWERED):
            file.unlink(missing_ok=True)
        for file in self._files(ASKED, TAKEN):
            request = _read(file, Request)
            if request is None or request.action not in LASTING:
                file.unlink(missing_ok=True)
            else:
                file.replace(self._file(request, ASKED))

    def close(self) -> None:
        """Remove the folder, unless requests that last are in it; answers may still be read for a moment."""
        deadline = time.monotonic() + SECONDS_TO_READ
        while self._files(ANSWERED) and time.monotonic() < deadline:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        with suppress(OSError):
            self._folder.rmdir()

    def has_requests(self) -> bool:
        """Whether requests wait for an answer, perhaps since an earlier process."""
        return bool(self._files(ASKED, TAKEN))

    def take(self) -> list[Request]:
        """Take the requests that wait for an answer, the earliest first; nobody can withdraw them any more."""
        if not self._folder.is_dir():  # somebody has removed it
            self.open()
        taken = []
        for file in self._files(ASKED):
            request = _read(file, Request)
            with suppress(FileNotFoundError):  # it was withdrawn
                if request is None:
                    file.unlink()
                else:
                    file.rename(self._file(request, TAKEN))
                    taken.append(request)
        return taken

    def answer(self, answered: AnsweredRequest) -> None:
        """Answer a request that was taken."""
        write_atomically(self._file(answered.request, ANSWERED), json.dumps(asdict(answered)))
        self._file(answered.request, TAKEN).unlink(missing_ok=True)

    def ask(self, request: Request, *, runs: Callable[[], bool]) -> AnsweredRequest | None:
        """Make a request and wait for its answer.

        Args:
            request: The request.
            runs: Whether the study still runs.

        Returns:
            The answer; None if the study has ended before it, or has not taken the request within a minute. Then the
            request is withdrawn, unless it is one that lasts.

        Raises:
            ValueError: The study has no mailbox, or that of another user.
            OSError: The folder of the study cannot be written.
        """
        asked, answered = self._file(request, ASKED), self._file(request, ANSWERED)
        if not self._folder.is_dir():
            raise ValueError("its trials have not begun yet, or have ended")
        try:
            write_atomically(asked, json.dumps(asdict(request)))
        except PermissionError:
            raise ValueError("only the user who runs it can do this") from None
        deadline = time.monotonic() + SECONDS_TO_TAKE
        for number in itertools.count():
            # every second: who looks at the lock holds it for a moment
            goes_on = number % LOOKS_AT_LOCK or (
                runs() and (time.monotonic() < deadline if asked.exists() else self._file(request, TAKEN).exists())
            )
            if answer := _read(answered, AnsweredRequest):
                answered.unlink(missing_ok=True)
                return answer
            if not goes_on:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if request.action not in LASTING:
            asked.unlink(missing_ok=True)
        return None

    def waits(self, request: Request) -> bool:
        """Whether a request is there that will be answered, perhaps when the study is resumed."""
        return self._file(request, ASKED).exists() or self._file(request, TAKEN).exists()

    def _file(self, request: Request, end: str) -> Path:
        return self._folder / f"{request.id}{end}"

    def _files(self, *ends: str) -> list[Path]:
        return sorted(file for end in ends for file in self._folder.glob(f"*{end}") if not file.is_dir())


def ask_study(
    folder: Path, words: Sequence[str], origin: str, *, server: StudyStorage | None = None
) -> AnsweredRequest:
    """Ask a study that runs to do something, and wait for its answer.

    Args:
        folder: The study's folder.
        words: What is asked, for example `["stop-trial", "7"]`.
        origin: Who asks.
        server: The database on a server that holds the record; by default `study.db` in the folder does.

    Raises:
        ValueError: These words are no request, or the study does not run, or it has ended before it answered.
        OSError: The folder of the study cannot be written.
    """
    request, mailbox = new_request(words, origin), Mailbox(folder)
    if not is_locked(folder):
        raise ValueError(f"study {folder.name} does not run, so it cannot be asked to {request.text}")
    try:
        answered = mailbox.ask(request, runs=lambda: is_locked(folder))
    except ValueError as error:
        raise ValueError(f"study {folder.name} cannot be asked to {request.text}: {error}") from None
    if answered:
        return answered
    for known in StudyRecord.open(folder, server).metadata.requests:
        if known.request.id == request.id:  # it was done, but the process died before it could say so
            return known
    later = " yet; the request waits, also until the study is resumed" if mailbox.waits(request) else ""
    raise ValueError(f"study {folder.name} has not answered{later}")


def _read(file: Path, content: type[Content]) -> Content | None:
    """What a file of this user holds; None if there is no such file, or it holds something else."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            found = os.fstat(stream.fileno())
            is_of_user = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
            if not is_of_user or found.st_size > LARGEST_FILE:
                return None
            return from_json(content, json.loads(stream.read()))
    except (OSError, ValueError, RecursionError):
        return None
