"""Prepares stdout and stderr for the cases that scripts create: closed, full, without a reader, or not in UTF-8."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from netsim._util.errors import NetsimError, reason_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

PLAIN = {
    "µ": "u", "μ": "u", "×": "x", "·": "*", "–": "-", "—": "-", "−": "-", "‖": "|", "→": "->", "←": "<-",
    "↔": "<->", "…": "...",
    "≤": "<=", "≥": ">=", "±": "+-", "√": "sqrt", "∇": "grad ", "“": '"', "”": '"', "‘": "'", "’": "'", "⌈": "ceil(",
    "⌉": ")", "⊤": "T", "█": "#", "━": "-", "•": "*",
}  # fmt: skip
"""ASCII text for characters that a stream's encoding may lack; :func:`plain` handles all others."""
ASCII = "netsim_ascii"
"""Another name for ASCII. Typer prints its help in UTF-8 to streams whose encoding is called ASCII."""
REPLACED = "netsim.plain"
"""The name of the handler of encoding errors that uses :func:`plain`."""


def plain(character: str) -> str:
    """Return ASCII text for a character: its base letters, the name of a Greek letter, or its code point.

    >>> plain("é"), plain("σ"), plain("→")
    ('e', 'sigma', '->')
    """
    if character in PLAIN:
        return PLAIN[character]
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    name = unicodedata.name(character, "")
    if not letters and name.startswith("GREEK "):
        return name.split()[-1].lower()
    if not letters and name.startswith("COMBINING "):
        return ""
    return letters or character.encode("ascii", "backslashreplace").decode()


def escaped(document: str) -> str:
    """Return a JSON document with all other characters than ASCII as escapes."""
    return re.sub(r"[^\x00-\x7f]", _escape, document)


def _escape(character: re.Match[str]) -> str:
    units = character[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{unit.hex()}" for unit in (units[start : start + 2] for start in range(0, len(units), 2)))


def in_utf_8(stream: TextIO) -> bool:
    """Return whether a stream is in UTF-8."""
    return (stream.encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def prepare() -> None:
    """Make the standard streams safe to write to; raise NetsimError if stdout is closed."""
    closed = sys.stdout is None
    for number in range(3):  # otherwise a file opened later would become one of the three
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if closed:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is sys.__stderr__ or sys.__stderr__ is None:
        sys.stderr = _unfailing(sys.stderr)
    codecs.register_error(REPLACED, _replaced)
    codecs.register(_found)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_ = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=ASCII if ascii_ else stream.encoding, errors=REPLACED)
    if closed:
        raise NetsimError("stdout is closed, and the result goes there; redirect it, such as >/dev/null")


@contextmanager
def reader_may_go() -> Iterator[None]:
    """Allow the reader of stdout, such as ``head``, to stop reading within this block.

    Raises
    ------
    NetsimError
        If the output cannot be written for another reason.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        give_up(sys.stdout)
    except OSError as error:
        give_up(sys.stdout)
        raise NetsimError(f"the result could not be written to stdout: {reason_of(error)}") from None


def give_up(stream: TextIO) -> None:
    """Discard everything that is still to be written to a stream."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _found(encoding: str) -> codecs.CodecInfo | None:
    """Return the codec if `encoding` is :data:`ASCII`, else None."""
    if encoding != ASCII:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode,
        ascii_.decode,
        ascii_.streamreader,
        ascii_.streamwriter,
        ascii_.incrementalencoder,
        ascii_.incrementaldecoder,
        ASCII,
    )


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(plain, error.object[error.start : error.end])), error.end


class _Unfailing(io.FileIO):
    """A file that accepts all output, and drops what cannot be written."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _unfailing(stream: TextIO) -> io.TextIOWrapper:
    """Return stderr as a stream that drops what cannot be written instead of raising an error."""
    file = io.BufferedWriter(_Unfailing(2, "w", closefd=False))
    return io.TextIOWrapper(file, stream.encoding, line_buffering=True)
