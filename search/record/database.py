"""The database of a record, by default a file in the study's folder."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
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
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import UniqueConstraint, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

LOCK_SECONDS = 30
"""Seconds for which another process, such as optuna-dashboard, may lock the file before an access fails."""
Row: TypeAlias = tuple[Any, Any, dict[str, Any]]
"""A row of a trial: Optuna's model of its table, its key among the rows of the trial there, and its values."""
Rows: TypeAlias = dict[tuple[Any, int, Any], dict[str, Any]]
"""The values of rows, by model, the database's name of the trial, and key."""
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

    def read(self, look: Callable[[], Result]) -> Result:
        """Read several things as they are at one moment, while another process may write.

        Args:
            look: Reads the database, and returns the result. Until it has ended, the other process waits to write.
        """
        session = self.scoped_session()
        assert isinstance(session, _Session)
        session.in_change = True
        try:
            if self.engine.name == "sqlite":  # of itself, it would begin a transaction only before a write
                session.connection().exec_driver_sql("BEGIN")
            return look()
        finally:
            session.in_change = False
            session.rollback()
            session.close()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def read_trials(self, study_id: int) -> list[FrozenTrial]:
        """Read all trials of a study, in the order in which they were added.

        Optuna's own way makes an object of each row first: it takes twice as long, 15 s for 10,000 trials of 10 epochs.
        """
        rows: dict[Any, dict[int, list[Any]]] = {}
        with self.scoped_session() as session:
            of_study = TrialModel.study_id == study_id
            trials = session.execute(select(TrialModel.__table__).where(of_study).order_by(TrialModel.trial_id)).all()
            for model in (
                TrialParamModel,
                TrialValueModel,
                TrialUserAttributeModel,
                TrialSystemAttributeModel,
                TrialIntermediateValueModel,
            ):
                table = model.__table__
                (key,) = table.primary_key.columns
                query = select(table).join(TrialModel, table.c.trial_id == TrialModel.trial_id)
                rows[model] = defaultdict(list)
                for row in session.execute(query.where(of_study).order_by(key)):
                    rows[model][row.trial_id].append(row)
        return [
            _frozen(trial, {model: of_trial[trial.trial_id] for model, of_trial in rows.items()}) for trial in trials
        ]

    def add_trial(self, study_id: int, trial: FrozenTrial) -> int:
        """Add a trial without what it has in other tables; returns its name in the database."""
        row = {"study_id": study_id, "number": trial.number, **_row_of(trial)}
        with self.scoped_session() as session:
            inserted = session.connection().execute(insert(TrialModel.__table__), row)
            session.commit()
        assert inserted.inserted_primary_key is not None
        return int(inserted.inserted_primary_key[0])

    def write(self, rows: Rows) -> None:
        """Insert or replace rows of trials, with one statement for each table.

        Optuna's own way takes three statements for each row, and makes objects of them first: 25 ms more for a trial of
        ten epochs. That is the reason to use its private models of the tables.
        """
        by_model: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for (model, trial_id, _), row in rows.items():
            by_model[model].append({"trial_id_" if model is TrialModel else "trial_id": trial_id, **row})
        with self.scoped_session() as session:
            connection = session.connection()
            for model, values in by_model.items():
                connection.execute(_upsert(model, self.engine.name), values)
            session.commit()

    def add_trials(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Add many trials to a study that has none, with one statement for each table.

        Optuna's own way takes a statement for each value: three minutes for 2,000 trials of 20 epochs.
        """
        rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for number, trial in enumerate(trials):
            rows[TrialModel].append({"study_id": study_id, "number": number, **_row_of(trial)})
        with self.scoped_session() as session:
            session.execute(insert(TrialModel.__table__), rows.pop(TrialModel))
            query = select(TrialModel.trial_id).where(TrialModel.study_id == study_id).order_by(TrialModel.number)
            for trial_id, trial in zip(session.scalars(query).all(), trials, strict=True):
                for model, _, values in rows_of(trial):
                    rows[model].append({"trial_id": trial_id, **values})
            for model, values_of_model in rows.items():
                session.execute(insert(model.__table__), values_of_model)
            session.commit()

    def _receipt(self, session: Session) -> Any:  # noqa: ARG002
        """The id of a transaction, to look it up if the answer to its commit is lost; a file needs none."""
        return None

    def _is_made(self, session: Session, receipt: Any) -> bool:  # noqa: ARG002
        """Whether a transaction whose answer was lost is committed."""
        return False


def _frozen(trial: Any, rows: dict[Any, list[Any]]) -> FrozenTrial:
    """A trial from its row in the table of the trials, and its rows in the other tables."""
    params = [(row.param_name, row.param_value, _from_json(row.distribution_json)) for row in rows[TrialParamModel]]
    values = {
        row.objective: TrialValueModel.stored_repr_to_value(row.value, row.value_type) for row in rows[TrialValueModel]
    }
    restore = TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return FrozenTrial(
        number=trial.number,
        state=trial.state,
        value=None,
        values=[values[objective] for objective in range(len(values))] or None,
        datetime_start=_local(trial.datetime_start),
        datetime_complete=_local(trial.datetime_complete),
        params={name: distribution.to_external_repr(value) for name, value, distribution in params},
        distributions={name: distribution for name, _, distribution in params},
        user_attrs={row.key: json.loads(row.value_json) for row in rows[TrialUserAttributeModel]},
        system_attrs={row.key: json.loads(row.value_json) for row in rows[TrialSystemAttributeModel]},
        intermediate_values={
            row.step: restore(row.intermediate_value, row.intermediate_value_type)
            for row in rows[TrialIntermediateValueModel]
        },
        trial_id=trial.trial_id,
    )


def rows_of(trial: FrozenTrial) -> Iterator[Row]:
    """The rows of a trial in the tables of Optuna besides that of the trials."""
    for name, param in trial.params.items():
        yield param_row(name, param, trial.distributions[name])
    if trial.value is not None:
        yield value_row(trial.value)
    for key, attribute in trial.user_attrs.items():
        yield user_row(key, attribute)
    for key, attribute in trial.system_attrs.items():
        yield system_row(key, attribute)
    for step, value in trial.intermediate_values.items():
        yield intermediate_row(step, value)


def state_row(state: TrialState, started: datetime | None, completed: datetime | None) -> Row:
    """The row of a trial in the table of the trials, without what never changes."""
    return TrialModel, None, {"state": state, "datetime_start": _utc(started), "datetime_complete": _utc(completed)}


def param_row(name: str, value: Any, distribution: BaseDistribution) -> Row:
    """The row of a hyperparameter."""
    stored = {"param_value": distribution.to_internal_repr(value), "distribution_json": _as_json(distribution)}
    return TrialParamModel, name, {"param_name": name, **stored}


def value_row(value: float) -> Row:
    """The row of the value of a trial that has ended."""
    stored, kind = TrialValueModel.value_to_stored_repr(value)
    return TrialValueModel, None, {"objective": 0, "value": stored, "value_type": kind}


def user_row(key: str, value: Any) -> Row:
    """The row of a user attribute."""
    return TrialUserAttributeModel, key, {"key": key, "value_json": json.dumps(value)}


def system_row(key: str, value: Any) -> Row:
    """The row of a system attribute, which Optuna itself uses."""
    return TrialSystemAttributeModel, key, {"key": key, "value_json": json.dumps(value)}


def intermediate_row(step: int, value: float) -> Row:
    """The row of the objective's value after an epoch."""
    stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
    return TrialIntermediateValueModel, step, row


def _row_of(trial: FrozenTrial) -> dict[str, Any]:
    """The row of a trial in the table of the trials, without its study and its number."""
    return state_row(trial.state, trial.datetime_start, trial.datetime_complete)[2]


def _utc(local: datetime | None) -> datetime | None:
    """A time as Optuna stores it, without a time zone."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


def _local(utc: datetime | None) -> datetime | None:
    """A time that Optuna has stored, in local time."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


@cache
def _from_json(stored: str) -> BaseDistribution:
    return json_to_distribution(stored)


@cache
def _as_json(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


@cache
def _upsert(model: Any, dialect: str) -> Any:
    """The statement that inserts a row of a trial or replaces it; a row of the trials' own table is there already."""
    if model is TrialModel:
        table = model.__table__
        values: dict[str, Any] = {name: bindparam(name) for name in ("state", "datetime_start", "datetime_complete")}
        return update(table).where(table.c.trial_id == bindparam("trial_id_")).values(values)
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
