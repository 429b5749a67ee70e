"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `path` at the end, so that a crash at any moment leaves old or new.

    A process that is killed may leave the unfinished file, too, under a name that begins with a dot.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        take_place(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def take_place(temporary: Path, path: Path) -> None:
    """Rename a temporary file to `path`, with the rights that a new file has here."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path`, so that a crash at any moment leaves the old file or the new one."""
    content = text.encode()
    with whole_file(path) as file:
        file.write(content)
