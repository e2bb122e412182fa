"""Reads a file of comma separated values into rows of texts."""

import csv
import gzip
import io
import zlib
from pathlib import Path

from search.importing.foreign_study import LARGEST_FILE

SEPARATORS = ",;\t"


def read_rows(file: Path) -> list[list[str]]:
    """Read a table, which may be compressed; the first row has the names of the columns.

    Raises:
        ValueError: The file is too large, or is not a table.
        OSError: It cannot be read.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"it is a damaged gzip file: {error}") from None
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{file.name} has more than {LARGEST_FILE >> 20} MiB")
    if b"\0" in content:
        raise ValueError(f"{file.name} is not a table: it is a binary file")
    text = content.decode("utf-8-sig", errors="replace")
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(row)]
    except csv.Error as error:
        raise ValueError(f"{file.name} is not a table: {error}") from None
    if not rows:
        raise ValueError(f"{file.name} is empty")
    return rows
