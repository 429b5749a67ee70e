"""The standard streams as people and scripts leave them: closed, full, gone, or not in UTF-8."""

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
"""What is printed in the place of a character that an encoding does not have; others follow :func:`plain`."""
ASCII = "netsim_ascii"
"""Our own name for ASCII: typer prints its help in UTF-8 to a stream whose encoding it knows as ASCII."""
REPLACED = "netsim.plain"
"""The name under which :func:`plain` is registered as a handler of encoding errors."""


def plain(character: str) -> str:
    """Return ASCII in place of a character: its base letters, the name of a Greek letter, or its code point."""
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
    """Return a JSON document in ASCII."""
    return re.sub(r"[^\x00-\x7f]", _escape, document)


def _escape(character: re.Match[str]) -> str:
    units = character[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def in_utf_8(stream: TextIO) -> bool:
    """Return whether a stream is in UTF-8."""
    return (stream.encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def prepare() -> None:
    """Make the standard streams fit to write to. Raises NetsimError if stdout is closed: a result goes there."""
    closed = sys.stdout is None
    for number in range(3):  # lest a file that is opened later becomes one of the three
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
    """Print within this; that the reader of our output goes away, such as ``head``, is no error.

    Raises NetsimError if the output cannot be written for another reason.
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
    """Have what is still to be written to a stream go nowhere."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _found(encoding: str) -> codecs.CodecInfo | None:
    """Return the encoding of a name, if it is :data:`ASCII`."""
    if encoding != ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode, known.decode, known.streamreader, known.streamwriter, known.incrementalencoder,
        known.incrementaldecoder, ASCII,
    )  # fmt: skip


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(plain, error.object[error.start : error.end])), error.end


class _Unfailing(io.FileIO):
    """A file that takes everything, and loses what cannot be written."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _unfailing(stream: TextIO) -> io.TextIOWrapper:
    """Return stderr as a stream that loses what cannot be written, instead of raising an error."""
    file = io.BufferedWriter(_Unfailing(2, "w", closefd=False))
    return io.TextIOWrapper(file, stream.encoding, line_buffering=True)
