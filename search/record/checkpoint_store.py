"""Keeps the files of a study in an object store, for machines that share no folder."""

import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from training.checkpoint import remove
from training.console.terminal import type_and_text

ARCHIVE = ".zip"
"""What is behind the name of a folder of a checkpoint: it is one object, because several cannot come at once."""
CHECKS = ".tunesmith"
"""Folder of a store for small objects that show whether it can be used."""
CHUNK = 1 << 24
"""Bytes that are read or written at once; each reading is a request."""


class StoreError(OSError):
    """A store cannot be used; the text is a sentence that names its address."""


@dataclass(frozen=True)
class CheckpointStore:
    """A folder in an object store; an object is whole whenever it is there.

    Credentials are where pyarrow and fsspec look for them in the environment; none is ever held here.
    """

    address: str
    """As the user gave it, for example `s3://bucket/path`."""
    folder: str
    """The folder of a study below this address."""

    def __str__(self) -> str:
        address, mark, query = self.address.partition("?")
        return f"{address.rstrip('/')}/{self.folder}{mark}{query}".rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return CheckpointStore, (self.address, self.folder)  # not the file system, which may hold credentials

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system of pyarrow, and the path of the folder in it."""
        file_system, path = _open(self.address)
        return file_system, "/".join(part for part in (path.rstrip("/"), self.folder) if part)

    def put(self, name: str, file: Path) -> None:
        """Store a file under a name; until this returns, the object is the one that was there before.

        Raises:
            StoreError: This is impossible.
            FileNotFoundError: There is no such file.
        """
        with file.open("rb") as source, self._naming_this():
            file_system, root = self._place
            path = f"{root}/{name}"
            target = file_system.open_output_stream(path)
            try:
                shutil.copyfileobj(source, target, CHUNK)
                written = target.tell()
            except BaseException:
                with suppress(Exception):  # its end would make a whole object of the part that was sent
                    target.close()
                    file_system.delete_file(path)
                raise
            target.close()
            stored = file_system.get_file_info(path).size
            if stored != written:
                raise OSError(f"{name} has {stored} of {written} bytes there")

    def get(self, name: str, file: Path) -> None:
        """Read an object into a file, in one step.

        Raises:
            StoreError: This is impossible, or there is no such object.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.draft")
        draft.unlink(missing_ok=True)  # a link in a folder from somebody else is not followed
        try:
            with self._naming_this():
                file_system, root = self._place
                with file_system.open_input_stream(f"{root}/{name}") as source, draft.open("xb") as target:
                    shutil.copyfileobj(source, target, CHUNK)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)

    def names(self, folder: str) -> dict[str, tuple[int, float]]:
        """The size and the time of each object in a folder, by name.

        Raises:
            StoreError: The store does not tell.
        """
        with self._naming_this():
            from pyarrow.fs import FileSelector, FileType

            file_system, root = self._place
            found = file_system.get_file_info(FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True))
            return {
                name: (info.size, info.mtime.timestamp() if info.mtime else 0.0)
                for info in found
                if info.type == FileType.File and _is_inside(name := info.path.removeprefix(f"{root}/"))
            }

    def delete(self, name: str) -> None:
        """Remove an object; it may be missing.

        Raises:
            StoreError: This is impossible.
        """
        with self._naming_this():
            file_system, root = self._place
            with suppress(FileNotFoundError):
                file_system.delete_file(f"{root}/{name}")

    def begin_check(self) -> str:
        """Write a small object, which other machines look for to see whether they have the same store before them.

        Returns:
            Its name.

        Raises:
            StoreError: It cannot be written, listed or read.
        """
        name = secrets.token_hex(8)
        with TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(name)
            self.put(name, file)
            if name not in self.names(""):
                raise StoreError(f"{self.address} cannot be used as a store: it does not list what was written")
            self.get(name, file)
        return name

    def check(self, name: str, machine: str) -> None:
        """Look for the object of `begin_check`, and write another one.

        Raises:
            StoreError: It is not there, or this machine cannot write.
        """
        if name not in self.names(""):
            raise StoreError(f"{self.address} leads to another store than on the machine that runs the study")
        with TemporaryDirectory() as folder:
            file = Path(folder) / name
            self.get(name, file)
            self.put(f"{name}-{machine}", file)

    def end_check(self, name: str) -> None:
        """Remove what was written to check the store."""
        with suppress(StoreError):  # it is small
            for written in self.names(""):
                if written.startswith(name):
                    self.delete(written)

    def get_file_or_folder(self, name: str, study: Path) -> None:
        """Bring an object of a checkpoint back to where it was in the folder of a study."""
        path = study / name
        self.get(name, path)
        if path.suffix == ARCHIVE:
            try:
                unpack(path, path.with_suffix(""))
            finally:
                path.unlink()

    @contextmanager
    def _naming_this(self) -> Iterator[None]:
        """Let any error be a `StoreError`."""
        try:
            yield
        except Exception as error:  # each file system raises its own
            raise StoreError(f"{self.address} cannot be used as a store: {_reason(error)}") from error


def folder_name(study: str) -> str:
    """A name for the folder of a new study, which no other study of this name has."""
    return f"{study}-{secrets.token_hex(4)}"


def pack(folder: Path, file: Path) -> None:
    """Write all files of a folder into an archive; links are followed."""
    with zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() or path.is_dir():
                archive.write(path, path.relative_to(folder))


def unpack(file: Path, folder: Path) -> None:
    """Make a folder of an archive, in one step; a ValueError says that it is damaged."""
    draft = folder.with_name(f".{folder.name}.draft")
    remove(draft)
    draft.mkdir(parents=True)
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(draft)  # which keeps every file inside of the folder
    except Exception as error:  # whatever the damage does to zipfile
        remove(draft)
        raise ValueError(f"{file.name} is damaged ({type_and_text(error)})") from None
    remove(folder)
    os.replace(draft, folder)


def _open(address: str) -> tuple[Any, str]:
    """The file system of an address and the path in it, as Ray opens it, or else as fsspec does."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return FileSystem.from_uri(address)  # type: ignore[no-any-return]
    except ArrowInvalid as error:
        if "nrecognized filesystem" not in str(error):
            raise
    import fsspec

    file_system, path = fsspec.url_to_fs(address)
    return PyFileSystem(FSSpecHandler(file_system)), path


def _reason(error: Exception) -> str:
    """What an error of a file system says, without the number of the request."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"^When .*: (AWS Error )| \(Request ID: [^)]*\)", r"\1", text).rstrip(". ")


def _is_inside(name: str) -> bool:
    """Whether a name from a store, which anybody may have written, leads nowhere else in a folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
