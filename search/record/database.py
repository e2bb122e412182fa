"""Where records are kept: a database, by default a file in the study's folder."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialSystemAttributeModel, TrialUserAttributeModel
from sqlalchemy import UniqueConstraint
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

LOCK_SECONDS = 30
"""How long a reader, say optuna-dashboard, may keep the file to itself before that counts as trouble."""
Result = TypeVar("Result")


class RecordUnwritableError(OSError):
    """The record cannot be read or written, and that is not going to change."""


def reason(error: Exception) -> str:
    """What a database says is wrong, in one line."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return " ".join(str(getattr(cause, "orig", None) or cause or error).split())


class NoRetry:
    """Gives up at once: for processes that only read a record."""

    def wait(self, error: Exception) -> None:
        """Called after each failure: waits and restores what it can before the next try, or raises to give up."""
        raise RecordUnwritableError(f"the record cannot be used ({reason(error)})") from error

    def succeeded(self) -> None:
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


class StudyStorage(RDBStorage):
    """Optuna's storage in a database, with changes that are made whole, and made in the end.

    Optuna commits every attribute by itself, and gives up when the disk is full; what is in memory is lost with it.
    """

    address: str | None = None
    """Of the server, without a password; None for a file."""

    def __init__(self, url: str, engine_kwargs: dict[str, Any], *, new: bool) -> None:
        super().__init__(url, engine_kwargs, skip_table_creation=not new)
        self.scoped_session = scoped_session(sessionmaker(bind=self.engine, class_=_Session))
        self.retry: NoRetry = NoRetry()
        """Says whether a change that failed for the sake of the disk, the folder or the server is tried again."""

    def change(self, make: Callable[[], Result]) -> Result:
        """Make a change in one transaction: whole or not at all, and again until it succeeds or retry ends.

        Args:
            make: Writes and reads as it likes, and gives the same result when it is called again.
        """
        session = self.scoped_session()
        assert isinstance(session, _Session)
        if session.in_change:
            return make()  # part of a larger one
        unanswered: tuple[Any, Result] | None = None
        while True:
            try:
                if unanswered and self._is_made(session, unanswered[0]):
                    self.retry.succeeded()
                    return unanswered[1]
                session.in_change = True
                try:
                    result = make()
                finally:
                    session.in_change = False
                unanswered = self._receipt(session), result
                session.commit()
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                session.rollback()
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise  # not the disk's or the server's fault: it would fail for ever
                self.retry.wait(cause)
                self.engine.dispose()  # the next try begins with a new connection
            else:
                self.retry.succeeded()
                return result
            finally:
                session.close()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set what is known of a trial by a name."""
        self._put(TrialUserAttributeModel, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set what Optuna itself keeps of a trial by a name."""
        self._put(TrialSystemAttributeModel, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set a point of a trial's curve."""
        value, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind}
        self._put(TrialIntermediateValueModel, row)

    def _put(self, model: Any, row: dict[str, Any]) -> None:
        """Insert or replace a row in one statement.

        Optuna's own way takes three, and makes objects of them first: 25 ms more for a trial of ten epochs. That is the
        reason to use its private models of the tables.
        """
        with self.scoped_session() as session:
            session.connection().execute(_upsert(model, self.engine.name), row)
            session.commit()

    def _receipt(self, session: Session) -> Any:  # noqa: ARG002
        """By what a transaction is known, should the answer to its commit get lost; a file always answers."""
        return None

    def _is_made(self, session: Session, receipt: Any) -> bool:  # noqa: ARG002
        """Whether a transaction whose answer was lost has been committed."""
        return False


@cache
def _upsert(model: Any, dialect: str) -> Any:
    """The statement that inserts a row of a trial, or replaces the one that is there."""
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(model)
    (unique,) = (rule for rule in model.__table__.constraints if isinstance(rule, UniqueConstraint))
    return insert.on_conflict_do_update(index_elements=unique.columns, set_=insert.excluded)


def check_file(file: Path) -> None:
    """Refuse a file that Optuna would mend or sqlite misread; it is not changed.

    Raises:
        ValueError: A page is damaged, rows are missing to which others belong, or the versions are, without which
            Optuna takes it for a new database.
        sqlite3.Error: The file cannot be read, or is none of sqlite's.
    """
    with closing(_connect(file)) as database:
        ((damage,),) = database.execute("PRAGMA integrity_check(1)").fetchall()
        if damage != "ok":
            raise ValueError(damage)
        if database.execute("PRAGMA foreign_key_check").fetchone():
            raise ValueError("a study or a trial is missing of which something is there")
        for table in ("version_info", "alembic_version"):
            if database.execute(f"SELECT count(*) FROM {table}").fetchall() != [(1,)]:
                raise ValueError(f"{table} is empty")


def open_file(file: Path, *, new: bool) -> StudyStorage:
    """Open the database in a file that exists.

    Args:
        file: It is empty if `new`.
        new: Whether tables are to be made.
    """
    return StudyStorage(f"sqlite:///{file.name}", {"creator": lambda: _connect(file)}, new=new)


def _connect(file: Path) -> sqlite3.Connection:
    # rw, not rwc: if the file vanishes that is trouble, and not the beginning of an empty record;
    # and not ro: what a killed process left half written is undone by the first who opens the file
    return sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=LOCK_SECONDS, check_same_thread=False)
