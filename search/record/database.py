"""The database of a record, by default a file in the study's folder."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial
from sqlalchemy import UniqueConstraint, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

LOCK_SECONDS = 30
"""Seconds for which another process, such as optuna-dashboard, may lock the file before an access fails."""
Result = TypeVar("Result")


class RecordUnwritableError(OSError):
    """The record cannot be read or written, and another try would not help."""


def reason(error: Exception) -> str:
    """The error message of a database in one line."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return " ".join(str(getattr(cause, "orig", None) or cause or error).split())


class NoRetry:
    """Raises on the first failed access; processes that only read a record use this class."""

    def wait(self, error: Exception) -> None:
        """Raise; a subclass may wait and repair instead, and return before the next try."""
        raise RecordUnwritableError(f"the record cannot be used ({reason(error)})") from error

    def succeeded(self) -> None:
        """Do nothing; a subclass may reset itself, because an access succeeded."""


class _Session(Session):
    """A session that can delay Optuna's many small commits until the end of a larger change."""

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
    """Optuna's storage in a database, with changes in one transaction that are tried until they succeed.

    Optuna commits every attribute by itself and raises when the disk is full, so the data in memory would be lost.
    """

    address: str | None = None
    """The address of the server without a password; None for a file."""

    def __init__(self, url: str, engine_kwargs: dict[str, Any], *, new: bool) -> None:
        super().__init__(url, engine_kwargs, skip_table_creation=not new)
        self.scoped_session = scoped_session(sessionmaker(bind=self.engine, class_=_Session))
        self.retry: NoRetry = NoRetry()
        """Decides whether a change is tried again after an error of the disk, the folder or the server."""

    def change(self, make: Callable[[], Result]) -> Result:
        """Make a change in one transaction, and try again until it succeeds or `retry` raises.

        Args:
            make: Reads and writes the database; it must return the same result when it is called again.
        """
        session = self.scoped_session()
        assert isinstance(session, _Session)
        if session.in_change:
            return make()  # part of a larger change
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
                    raise  # another try would fail in the same way
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
        """Set a user attribute of a trial."""
        self._put(TrialUserAttributeModel, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a trial, which Optuna itself uses."""
        self._put(TrialSystemAttributeModel, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the objective's value of a trial after an epoch."""
        value, value_type = TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": value_type}
        self._put(TrialIntermediateValueModel, row)

    def add_trials(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Add many trials to a study that has none, with one statement for each table.

        Optuna's own way takes a statement for each value: three minutes for 2,000 trials of 20 epochs.
        """
        rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for number, trial in enumerate(trials):
            times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
            rows[TrialModel].append({"study_id": study_id, "number": number, "state": trial.state, **times})
        with self.scoped_session() as session:
            session.execute(insert(TrialModel.__table__), rows.pop(TrialModel))
            query = select(TrialModel.trial_id).where(TrialModel.study_id == study_id).order_by(TrialModel.number)
            for trial_id, trial in zip(session.scalars(query).all(), trials, strict=True):
                for model, values in _rows_of(trial):
                    rows[model].append({"trial_id": trial_id, **values})
            for model, values_of_model in rows.items():
                session.execute(insert(model.__table__), values_of_model)
            session.commit()

    def _put(self, model: Any, row: dict[str, Any]) -> None:
        """Insert or replace a row in one statement.

        Optuna's own way takes three, and makes objects of them first: 25 ms more for a trial of ten epochs. That is the
        reason to use its private models of the tables.
        """
        with self.scoped_session() as session:
            session.connection().execute(_upsert(model, self.engine.name), row)
            session.commit()

    def _receipt(self, session: Session) -> Any:  # noqa: ARG002
        """The id of a transaction, to look it up if the answer to its commit is lost; a file needs none."""
        return None

    def _is_made(self, session: Session, receipt: Any) -> bool:  # noqa: ARG002
        """Whether a transaction whose answer was lost is committed."""
        return False


def _rows_of(trial: FrozenTrial) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The rows of a trial in the tables of Optuna besides that of the trials, with the models of these tables."""
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        stored = {"param_value": distribution.to_internal_repr(value), "distribution_json": _as_json(distribution)}
        yield TrialParamModel, {"param_name": name, **stored}
    if trial.value is not None:
        value, value_type = TrialValueModel.value_to_stored_repr(trial.value)
        yield TrialValueModel, {"objective": 0, "value": value, "value_type": value_type}
    for key, attribute in trial.user_attrs.items():
        yield TrialUserAttributeModel, {"key": key, "value_json": json.dumps(attribute)}
    for step, value in trial.intermediate_values.items():
        stored_value, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        yield (
            TrialIntermediateValueModel,
            {"step": step, "intermediate_value": stored_value, "intermediate_value_type": kind},
        )


@cache
def _as_json(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


@cache
def _upsert(model: Any, dialect: str) -> Any:
    """The statement that inserts a row of a trial or replaces it."""
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(model)
    (unique,) = (rule for rule in model.__table__.constraints if isinstance(rule, UniqueConstraint))
    return insert.on_conflict_do_update(index_elements=unique.columns, set_=insert.excluded)


def check_file(file: Path) -> None:
    """Refuse a damaged file without changing it, because Optuna would silently repair it.

    Raises:
        ValueError: The file has views or triggers, which would run SQL of the sender; a file beside it could harm other
            files; a page is damaged, or rows are missing to which other rows refer, or the rows with the versions of
            the schema, without which Optuna treats the file as a new database.
        sqlite3.Error: The file cannot be read, or is not a database of sqlite.
    """
    with closing(_connect(file)) as database:
        foreign = database.execute(_NOT_OF_A_RECORD).fetchone()
        if foreign:
            raise ValueError(f"{foreign[0]} is a view, a trigger or a computed table, which a record does not have")
        ((damage,),) = database.execute("PRAGMA integrity_check(1)").fetchall()
        if damage != "ok":
            raise ValueError(damage)
        if database.execute("PRAGMA foreign_key_check").fetchone():
            raise ValueError("rows refer to a study or a trial that is missing")
        for table in ("version_info", "alembic_version"):
            if database.execute(f"SELECT count(*) FROM {table}").fetchall() != [(1,)]:
                raise ValueError(f"its table {table} is empty")


def open_file(file: Path, *, new: bool) -> StudyStorage:
    """Open the database in a file that exists; a `new` file is empty, and its tables are created."""
    return StudyStorage(f"sqlite:///{file.name}", {"creator": lambda: _connect(file)}, new=new)


_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")
"""Last bytes of a journal that names a super-journal, a file that sqlite deletes (https://sqlite.org/fileformat.html)."""
_NOT_OF_A_RECORD = """
    SELECT name FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'
    UNION ALL
    SELECT s.name FROM sqlite_schema AS s, pragma_table_xinfo(s.name) AS c WHERE s.type = 'table' AND c.hidden != 0
"""
"""Names of parts of a database that no record has, because they could compute without an end when they are read."""


def _check_companions(file: Path) -> None:
    """Refuse files beside a database by which a sender could harm other files, or stop this process.

    Our own journals name no super-journal, because a process writes one database only.
    """
    for suffix in ("-journal", "-wal", "-shm"):
        companion = Path(f"{file.resolve()}{suffix}")
        if companion.is_symlink() or (companion.exists() and not companion.is_file()):
            raise ValueError(f"{companion.name} is not a file")
    journal = Path(f"{file.resolve()}-journal")
    if journal.is_file():
        with journal.open("rb") as stream:
            stream.seek(max(0, journal.stat().st_size - len(_JOURNAL_END)))
            if stream.read() == _JOURNAL_END:
                raise ValueError(f"{journal.name} names a file that sqlite would delete; delete the journal")


def _connect(file: Path) -> sqlite3.Connection:
    _check_companions(file)
    # not rwc: a file that was removed is an error, not a new empty record;
    # not ro: sqlite undoes the unfinished writes of a killed process when it opens the file
    return sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=LOCK_SECONDS, check_same_thread=False)
