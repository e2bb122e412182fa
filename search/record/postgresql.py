"""The database of records on a PostgreSQL server, where one process at a time runs a study."""

import os
import platform
import time
from typing import Any

from optuna import get_all_study_names
from optuna.exceptions import OptunaError
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from search.record.database import RecordUnwritableError, StudyStorage, reason

TAKE_OVER_SECONDS = 2.0
"""Seconds that the server may need to notice that the process with a lock has ended."""

_CONNECTION = {  # these notice within a minute that the server does not answer any more
    "application_name": f"process {os.getpid()} on {platform.node()}",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SET_SERVER_KEEPALIVES = """
    SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false)
"""
_KEY = "hashtextextended('tunesmith study ' || %s, 0)"
_LOCK = f"SELECT pg_try_advisory_lock({_KEY})"
_OWNER = f"""
    SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND database = datid AND datname = current_database()
      AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = {_KEY}
"""


class ServerStorage(StudyStorage):
    """Studies in a PostgreSQL database, of which this process may run one.

    The connection that writes also has the study's lock, an advisory lock of PostgreSQL, so that nothing is written
    without the lock; a new connection takes the lock first. The server releases the lock when the connection ends,
    however the process ends, so no stale lock can remain.
    """

    def __init__(self, url: URL, secrets: dict[str, Any]) -> None:
        """Use `open_server` instead."""
        self._study: str | None = None
        self._backend: int | None = None
        options = {name: value for name, value in _CONNECTION.items() if name not in url.query}
        # repeatable read: all queries of a transaction see the study as it was at one moment
        engine_kwargs = {"pool_pre_ping": True, "isolation_level": "REPEATABLE READ", "connect_args": options | secrets}
        super().__init__(str(url), engine_kwargs, new=True)
        self.address = str(url.set(drivername="postgresql"))

    def has_study(self, study: str) -> bool:
        """Whether the database has a study of this name."""
        return study in get_all_study_names(self)

    def lock(self, study: str) -> None:
        """Lock the name of a study for this process, whether or not the study exists.

        Raises:
            RecordUnwritableError: Another process runs the study; the message names the process.
        """
        if self._study is None:
            event.listen(self.engine, "connect", self._take_lock)
        self._study = study
        self.engine.dispose()
        with self.engine.connect():
            pass

    def _receipt(self, session: Session) -> int:
        return int(session.scalar(text("SELECT txid_current()")))

    def _is_made(self, session: Session, receipt: int) -> bool:
        # the transaction has ended: this connection has the lock, so the lost connection has ended
        return bool(session.scalar(text("SELECT txid_status(:receipt) = 'committed'"), {"receipt": receipt}))

    def _take_lock(self, connection: Any, _: object) -> None:
        """Take the lock for a new connection."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(_SET_SERVER_KEEPALIVES)
                deadline = time.monotonic() + TAKE_OVER_SECONDS
                while not cursor.execute(_LOCK, [self._study]).fetchone()[0]:
                    if time.monotonic() > deadline:
                        self._refuse(cursor.execute(_OWNER, [self._study]).fetchone())
                    time.sleep(0.1)
            connection.commit()
        except Exception:
            connection.close()
            raise
        self._backend = connection.info.backend_pid

    def _refuse(self, owner: tuple[int, str] | None) -> None:
        """Raise an error because another connection has the lock."""
        backend, process = owner or (None, "another process")
        if backend and backend == self._backend:  # the network failed, and the server has not noticed yet
            raise OperationalError(None, None, ConnectionError("the server still waits for the last connection"))
        raise RecordUnwritableError(f"study {self._study} is being run by {process}")


def open_server(address: str) -> ServerStorage:
    """Open a database on a server, for example `postgresql://user@host/database?connect_timeout=5`.

    A ValueError without the password says that the address cannot be read, that its driver is missing, or that the
    server does not answer.
    """
    url, secrets = read_address(address)
    try:
        return ServerStorage(url, secrets)
    except ImportError as error:
        missing = error.__cause__ or error
        raise ValueError(f"storage needs a driver ({missing}): pip install 'psycopg[binary]'") from None
    except (SQLAlchemyError, OptunaError, RuntimeError) as error:
        raise ValueError(f"the server of storage cannot be used: {reason(error)}") from None


def settings_on_server(address: str, study: str) -> dict[str, Any]:
    """The settings of a study on a server as plain data; a ValueError says that there is no such study."""
    server = open_server(address)
    if not server.has_study(study):
        raise ValueError(f"there is no study {study} in {server.address}")
    settings = server.get_study_user_attrs(server.get_study_id_from_name(study)).get("settings")
    if not isinstance(settings, dict):
        raise ValueError(f"study {study} in {server.address} is not a study of Tunesmith")
    return settings


def read_address(address: str) -> tuple[URL, dict[str, Any]]:
    """An address without its passwords, so that no error and no log can show them, and the passwords."""
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = URL.create("unreadable")
    if url.get_backend_name() == "sqlite":
        raise ValueError("storage must be a PostgreSQL server; leave it out to have the record in sqlite, in study.db")
    if url.get_backend_name() != "postgresql" or "@" in f"{url.host}{url.database}":
        raise ValueError(
            "storage must be an address like postgresql://user@host/database, with %40 for an @ in a password"
        )
    secrets: dict[str, Any] = {name: value for name, value in url.query.items() if "password" in name}
    if url.password is not None:
        secrets["password"] = url.password
    others = {name: value for name, value in url.query.items() if name not in secrets}
    return URL.create("postgresql+psycopg", url.username, None, url.host, url.port, url.database, others), secrets
