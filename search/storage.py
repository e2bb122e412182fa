"""Where records are kept: a file in the study's folder, or a database server."""

import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError

FILE_NAME = "study.db"
LOCK_SECONDS = 30
"""How long a reader, say optuna-dashboard, may keep the file to itself before that counts as trouble."""
Method = TypeVar("Method", bound=Callable[..., Any])


def _enduring(method: Method) -> Method:
    """Have a method of a storage tried again until it succeeds: it is one transaction, whole or not at all."""

    @functools.wraps(method)
    def endure(self: "EnduringStorage", *arguments: Any, **named: Any) -> Any:
        while True:
            try:
                result = method(self, *arguments, **named)
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise  # not the disk's or the server's fault: it would fail for ever
                self.patience.wait(cause)
                self.engine.dispose()  # the next try begins with a new connection
            else:
                self.patience.over()
                return result

    return endure  # type: ignore[return-value]


class NoPatience:
    """Gives up at once: for those who only read."""

    def wait(self, error: Exception) -> None:
        """Called after each failure: waits and mends what it can before the next try, or raises to give up."""
        raise error

    def over(self) -> None:
        """Called after each success."""


class EnduringStorage(RDBStorage):
    """Optuna's storage in a database that outlives what happens to its disk, its folder or its server.

    Optuna gives up when the disk is full, and what is in memory is lost with it. Here `patience` says whether the same
    is tried again.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any]) -> None:
        self.patience = NoPatience()
        super().__init__(url, engine_kwargs)

    _create_new_trial = _enduring(RDBStorage._create_new_trial)
    _get_trials = _enduring(RDBStorage._get_trials)
    _set_trial_param = _enduring(RDBStorage._set_trial_param)
    get_study_user_attrs = _enduring(RDBStorage.get_study_user_attrs)
    get_trial = _enduring(RDBStorage.get_trial)
    set_study_user_attr = _enduring(RDBStorage.set_study_user_attr)
    set_trial_intermediate_value = _enduring(RDBStorage.set_trial_intermediate_value)
    set_trial_state_values = _enduring(RDBStorage.set_trial_state_values)
    set_trial_system_attr = _enduring(RDBStorage.set_trial_system_attr)
    set_trial_user_attr = _enduring(RDBStorage.set_trial_user_attr)


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
