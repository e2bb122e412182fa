"""Files and folders that are written in one step: a reader sees the old content or the new one, never a part."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield the path of a draft beside a file, which takes its place when the block ends without an error."""
    draft = file.with_name(f".{file.name}.draft")
    draft.unlink(missing_ok=True)  # a link in a folder from somebody else is not followed
    try:
        yield draft
        draft.replace(file)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)  # an incomplete file would only fill the disk


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write a file in one step; after a power cut, too, it holds the old content or the new one."""
    with replacing(file) as draft, draft.open("xb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside a folder, which takes its place when the block ends without an error."""
    draft, old = (folder.with_name(f".{folder.name}.{state}") for state in ("draft", "old"))
    _remove(draft)
    draft.mkdir(parents=True)
    try:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(0o666 & ~_umask())  # safetensors lets nobody else read its files
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        _remove(old)
        if folder.exists() or folder.is_symlink():
            folder.rename(old)
        draft.rename(folder)
        _remove(old)
    finally:
        _remove(draft)  # an incomplete folder would only fill the disk


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove(folder: Path) -> None:
    """Remove a folder of ours, or a link in its place without following it."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
