"""Where records are kept: a file in the study's folder, or a database server."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

FILE_NAME = "study.db"
LOCK_SECONDS = 30
"""How long a reader, say optuna-dashboard, may keep the file to itself before that counts as trouble."""
Result = TypeVar("Result")


class NoPatience:
    """Gives up at once: for those who only read."""

    def wait(self, error: Exception) -> None:
        """Called after each failure: waits and mends what it can before the next try, or raises to give up."""
        raise error

    def over(self) -> None:
        """Called after each success."""


class _Session(Session):
    """A session in which what Optuna would commit piece by piece can wait for the end of a larger change."""

    in_change = False

    def commit(self) -> None:
        if self.in_change:
            self.flush()
        else:
            super().commit()

    def close(self) -> None:
        if not self.in_change:
            super().close()


class EnduringStorage(RDBStorage):
    """Optuna's storage in a database, with changes that are made whole, and made in the end.

    Optuna commits every attribute by itself, and gives up when the disk is full; what is in memory is lost with it.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any]) -> None:
        super().__init__(url, engine_kwargs)
        self.scoped_session = scoped_session(sessionmaker(bind=self.engine, class_=_Session))
        self.patience = NoPatience()
        """Says whether a change that failed for the sake of the disk, the folder or the server is tried again."""

    def change(self, make: Callable[[], Result]) -> Result:
        """Make a change in one transaction: whole or not at all, and again until it succeeds or patience ends.

        Args:
            make: Writes and reads as it likes, and gives the same result when it is called again.
        """
        session = self.scoped_session()
        assert isinstance(session, _Session)
        while True:
            try:
                session.in_change = True
                try:
                    result = make()
                finally:
                    session.in_change = False
                session.commit()
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                session.rollback()
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise  # not the disk's or the server's fault: it would fail for ever
                self.patience.wait(cause)
                self.engine.dispose()  # the next try begins with a new connection
            else:
                self.patience.over()
                return result
            finally:
                session.close()


def open_file(file: Path) -> EnduringStorage:
    """Open the database in a file that exists; an empty one becomes the database of no study yet."""

    def connect() -> sqlite3.Connection:
        # rw, not rwc: if the file vanishes that is trouble, and not the beginning of an empty record;
        # and not ro: what a killed process left half written is undone by the first who opens the file
        return sqlite3.connect(
            f"file:{quote(str(file))}?mode=rw", uri=True, timeout=LOCK_SECONDS, check_same_thread=False
        )

    return EnduringStorage(f"sqlite:///{FILE_NAME}", {"creator": connect})


def open_server(url: str) -> EnduringStorage:
    """Open a database on a server.

    Args:
        url: SQLAlchemy's, for example `postgresql+psycopg://user@host/database`.

    Raises:
        ValueError: The address cannot be read, its driver is not installed, or nobody answers there.
    """
    try:
        return EnduringStorage(url, {"pool_pre_ping": True})
    except (ArgumentError, NoSuchModuleError):
        raise ValueError("storage must be an address like postgresql+psycopg://user@host/database") from None
    except ImportError as error:
        missing = error.__cause__ or error
        raise ValueError(f"storage needs a driver ({missing}): pip install 'tunesmith[postgresql]'") from None
    except (OperationalError, InterfaceError) as error:
        raise ValueError(f"storage cannot be reached: {error.orig}") from None
