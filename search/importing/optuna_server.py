"""Reads a study from a storage of Optuna on a PostgreSQL server."""

from contextlib import closing
from typing import Any

from sqlalchemy import Connection, create_engine, inspect, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from search.importing.foreign_study import ForeignStudy
from search.importing.optuna_storage import read
from search.record.database import reason
from search.record.postgresql import read_address


class ServerDatabase:
    """A database on a server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        found = self._connection.exec_driver_sql(query.replace("?", "%s"), tuple(values))
        return [tuple(row) for row in found]

    def columns(self, table: str) -> set[str]:
        """The columns of a table."""
        inspector = inspect(self._connection)
        return {column["name"] for column in inspector.get_columns(table)} if inspector.has_table(table) else set()


def read_server(address: str, study: str | None, objective: str | None) -> ForeignStudy:
    """Read a study from a server, in a transaction that only reads.

    Args:
        address: For example `postgresql://user@host/database`.
        study: The name of the study; None if there is only one.
        objective: The name or the number of its objective, if it has several.

    Raises:
        ValueError: The server cannot be used, or has no such study; no password is in the sentence.
    """
    try:
        backend = make_url(address).get_backend_name()
    except (ArgumentError, ValueError):
        backend = "unreadable"
    if backend != "postgresql":
        raise ValueError(
            f"a storage on a server must be PostgreSQL, got {backend}; copy the study into a file with "
            "optuna.copy_study, and import the file"
        )
    url, secrets = read_address(address)
    try:
        engine = create_engine(url, connect_args={"connect_timeout": 10, **secrets})
        with closing(engine.connect()) as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            return read(ServerDatabase(connection), url.database or "study", study, objective)
    except ImportError as error:
        raise ValueError(f"the server needs a driver ({error}): pip install 'psycopg[binary]'") from None
    except SQLAlchemyError as error:
        raise ValueError(f"the server cannot be used: {reason(error)}") from None
    except (KeyError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        raise ValueError(f"it is not a storage of Optuna, or is damaged: {type(error).__name__}: {error}") from None
