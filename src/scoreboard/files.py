"""Files that appear whole or not at all, and that only their owner may read.

In comes a path, out goes a file to write to. A reader sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def appearing(path: Path, *, sync: bool = True, replace: bool = True) -> Iterator[BinaryIO]:
    """A file under another name until the block has ended well; then it takes the place of ``path``.

    Args:
        path: of the file; the folder must be there.
        sync: write it to disk before it appears, and its name after.
        replace: may there be a file already?
    """
    if not replace and path.exists():
        raise FileExistsError("it is there already; choose a new name, or move it away")
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        new.replace(path)
        if sync:
            sync_folder(path.absolute().parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
