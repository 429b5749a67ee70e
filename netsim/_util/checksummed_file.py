"""Files of tensors with a checksum: a file that is not exactly as it was written is refused.

A file has one line of JSON, the header, and a body of tensors and plain containers by ``torch.save``. The header's
``sha256`` is computed over the whole file, with zeros in place of the checksum itself. A file never names code to run.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from netsim._util.errors import NetsimError, text_of, unreadable
from netsim._util.storage import whole_file

BLANK = "0" * 64
LONGEST_HEADER = 2**20
PIECE = 2**20
STRANGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
)
"""The exceptions that damaged or forged contents can cause."""


def write_sealed(path: Path, schema: str, header: Mapping[str, Any], body: Any) -> None:
    """Write a file at `path`; after a crash at any moment, the old file or the new one is there, whole."""
    import torch

    line = json.dumps({"schema": schema, "sha256": BLANK} | dict(header)) + "\n"
    with whole_file(path) as file:
        hashing = _Hashing(file)
        hashing.write(line.encode())
        torch.save(body, hashing)  # type: ignore[arg-type]  # writes in one go, whatever its hints say
        file.seek(0)
        file.write(line.replace(BLANK, hashing.digest.hexdigest(), 1).encode())


@contextmanager
def sealed(path: Path, schema: str, kind: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the header and the body of a file, with tensors in main memory.

    Parameters
    ----------
    schema
        The schema that the file must have, such as ``netsim.checkpoint/1``.
    kind
        The name of such a file in error messages, such as "checkpoint".

    Raises
    ------
    NetsimError
        If the file is not exactly as it was written; also for errors in the ``with`` block, as :func:`as_written`.
    """
    named = f"{kind} {str(path)!r}"
    try:
        file = _Body(path, "rb")
    except OSError as error:
        raise unreadable(named, error) from error
    with file, as_written(named):
        line = file.readline(LONGEST_HEADER)
        header = _parsed(line)
        if header is None or str(header.get("schema")).partition("/")[0] != schema.partition("/")[0]:
            raise NetsimError(f"{named} is not a file of schema {schema}, or is damaged; restore it, or start anew")
        if header["schema"] != schema:
            raise NetsimError(f"{named} has schema {header['schema']}, and this netsim reads {schema}; start anew")
        _check_unchanged(file, line, header["sha256"])
        yield header, file.body(len(line))


@contextmanager
def as_written(named: str) -> Iterator[None]:
    """Turn every exception that unexpected contents can cause into a NetsimError of one line."""
    try:
        yield
    except NetsimError:
        raise
    except STRANGE as error:
        why = text_of(error) or type(error).__name__
        raise NetsimError(f"{named} is damaged ({why}); restore it, or start anew") from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _check_unchanged(file: IO[bytes] | io.RawIOBase, line: bytes, sha256: str) -> None:
    if len(sha256) != len(BLANK):
        raise ValueError("its SHA-256 is cut")
    digest = hashlib.sha256(line.replace(sha256.encode(), BLANK.encode(), 1))
    while piece := file.read(PIECE):
        digest.update(piece)
    if digest.hexdigest() != sha256:
        raise ValueError("its SHA-256 is another one")


class _Hashing:
    """A file for ``torch.save`` that computes the SHA-256 of everything written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


class _Body(io.FileIO):
    """A file whose positions count from byte `start`, so that ``torch.load`` sees the body alone."""

    start = 0

    def body(self, start: int) -> Any:
        import torch

        self.start = start
        self.seek(0)
        return torch.load(self, map_location="cpu", weights_only=True)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return super().seek(offset + self.start if whence == io.SEEK_SET else offset, whence) - self.start

    def tell(self) -> int:
        return super().tell() - self.start
