"""Files that are written in one step: a reader sees the old content or the new one, never a part."""

import os
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
