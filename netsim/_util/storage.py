"""Writes results so that a file is either complete or absent, and checks paths before a run.

A regular file at the path is replaced once the new file is complete. A symbolic link stays; its target is replaced.
Output to a device or a FIFO is written directly.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from netsim._util.errors import UsageError, reason_of, shown, unreadable

READER_S = 3.0
"""Seconds to wait for a reader of a FIFO."""
SHOWN = 40
"""Characters of a file's name in the name of its temporary file; names have at most 255 bytes."""
LEFTOVER = re.compile(rf"\..{{1,{SHOWN}}}\.[0-9a-f]{{16}}", re.DOTALL)
"""The names of temporary files."""
LEFT_S = 3600.0
"""Age in seconds from which a temporary file can no longer belong to a running process."""
MOST_READ = 2**28
"""Most bytes of a file that is read whole; parsing takes several times as much memory."""


@contextmanager
def whole_file(path: Path, buffering: int = -1) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears at `path` when it is complete.

    After a crash at any moment, the old file or the new one is there. A new file takes over the permission bits of the
    old one and, if this user may set it, the owner. Other hard links keep the old content. A killed process may leave
    the unfinished file under a name that begins with a dot.
    """
    there = _status(path)
    if there is None or (stat.S_ISREG(there.st_mode) and _stream_of(there) is None):
        with _replacing(path if there is None else Path(os.path.realpath(path, strict=True)), there, buffering) as file:
            yield file
    else:
        with os.fdopen(_opened(path, there), "wb", buffering) as file:
            yield file


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` as :func:`whole_file` does; lone surrogates become escapes, such as ``\\udcff``."""
    content = text.encode(errors="backslashreplace")
    with whole_file(path) as file:
        file.write(content)


def check_outputs(outputs: Mapping[str, str | Path | None], inputs: Mapping[str, object] | None = None) -> None:
    """Check before a long run that its results can be written; no file is changed.

    Parameters
    ----------
    outputs
        The output files by option, with None for options that were not given.
    inputs
        The input files by option.

    Raises
    ------
    UsageError
        If an output cannot be written, or is also another output or an input.
    """
    taken = {where: name for name, path in (inputs or {}).items() if (where := _place(path)) is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        if not isinstance(path, str | Path):
            raise UsageError(f"{name} {shown(path)} must be the path of a file")
        _check_output(name, Path(path))
        where = _place(path)
        if where is not None and (other := taken.setdefault(where, name)) != name:
            raise UsageError(f"{name} {str(path)!r} is the file of {other}, too; name another file")


def content_of(path: Path, what: str, *fix: str, most: int = MOST_READ) -> bytes:
    """Return the content of an input file.

    Parameters
    ----------
    what
        The beginning of error messages, such as "topology 'net.json'".
    fix
        The end of the message if the file does not exist.
    most
        The largest size in bytes that is read.

    Raises
    ------
    UsageError
        For a file that cannot be read, and for a device, pipe or socket.
    """
    try:
        there = path.stat()
        if not stat.S_ISREG(there.st_mode) and not stat.S_ISDIR(there.st_mode):
            raise UsageError(f"{what} is a device, a pipe or a socket; copy what it gives into a regular file")
        if there.st_size > most:
            raise UsageError(f"{what} has {there.st_size:,} bytes, and at most {most:,} are read")
        return path.read_bytes()
    except UsageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise unreadable(what, error, *fix) from None


def check_folder(name: str, path: Path) -> None:
    """Raise UsageError unless the folder `path` can be written to or made; `name` is the option."""
    try:
        if _status(path, folder=True) is None:
            _check_can_hold(name, path, path.parent)
        else:
            _check_can_hold(name, path, path)
    except NotADirectoryError:
        raise UsageError(f"{name} {str(path)!r} is a file, or in one; name a folder") from None
    except UsageError:
        raise  # it is a ValueError too, and its message is complete
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} {str(path)!r} cannot be a folder: {reason_of(error)}; name another one") from None


def made_folder(name: str, path: Path) -> Path:
    """Make a folder and its parents, and return it; raise UsageError unless files can be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} {str(path)!r} cannot be made: {reason_of(error)}; name a folder") from None
    check_folder(name, path)
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files that killed processes left in a folder at least an hour ago.

    A running process needs milliseconds for a file, so no file in use is removed.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if LEFTOVER.fullmatch(path.name):
                with suppress(OSError):  # another run may have removed it
                    if path.is_file() and time.time() - path.stat().st_mtime > LEFT_S:
                        path.unlink()


def _check_output(name: str, path: Path) -> None:
    """Raise UsageError unless a file can be written at `path`."""
    try:
        there = _status(path)
        if there is None:
            _check_can_hold(name, path, path.parent)
        elif stat.S_ISREG(there.st_mode) and _stream_of(there) is None:
            _check_allowed(path)
            _check_can_hold(name, path, Path(os.path.realpath(path, strict=True)).parent)
        elif _stream_of(there) is None:
            _check_allowed(path)
    except IsADirectoryError:
        inside = path / name
        raise UsageError(f"{name} {str(path)!r} is a folder; name a file in it, such as {str(inside)!r}") from None
    except UsageError:
        raise  # it is a ValueError too, and its message is complete
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} {str(path)!r} cannot be written: {reason_of(error)}; name another file") from None


def _check_allowed(path: Path) -> None:
    """Raise PermissionError unless this user may write to a file."""
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_can_hold(name: str, path: Path, folder: Path) -> None:
    """Make a file without a name in a folder; raise UsageError if that fails."""
    if not folder.is_dir():
        raise UsageError(f"{name} {str(path)!r} is in a folder that was not found; make {str(folder)!r} first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{name} {str(path)!r} cannot be written: nothing can be written to the folder {str(folder)!r}: "
            f"{reason_of(error)}; name another one"
        ) from None


def _place(path: object) -> tuple[int, int] | str | None:
    """Return the identity of a regular file, or of a file that does not exist yet; None for anything else."""
    if not isinstance(path, str | Path):
        return None
    try:
        there = Path(path).stat()
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None
    return (there.st_dev, there.st_ino) if stat.S_ISREG(there.st_mode) else None


def _status(path: Path, *, folder: bool = False) -> os.stat_result | None:
    """Return the status of `path`, None if nothing is there; raise OSError if it cannot be a file (or a `folder`)."""
    try:
        there = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise FileNotFoundError(errno.ENOENT, f"it is a link to nothing, {str(path.readlink())!r}") from None
        return None
    if folder:
        if not stat.S_ISDIR(there.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    elif stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if stat.S_ISSOCK(there.st_mode) and _stream_of(there) is None:
        raise OSError(errno.ENXIO, "it is a socket")
    return there


@contextmanager
def _replacing(target: Path, there: os.stat_result | None, buffering: int) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to `target` at the end."""
    if there is not None:
        _check_allowed(target)  # renaming a file over it needs no permission to write
    temporary = target.with_name(f".{target.name[:SHOWN]}.{secrets.token_hex(8)}")
    mode = 0o666 if there is None else 0o600  # until it has the permissions of the old one
    try:
        created = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(created, "wb", buffering) as file:
            yield file
            file.flush()
            if there is not None:
                _give(file.fileno(), there)
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # some folders cannot be opened, and some systems cannot sync them
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _give(file: int, there: os.stat_result) -> None:
    """Give an open file the owner and the permission bits of another one."""
    if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):
            os.fchown(file, there.st_uid, there.st_gid)
    os.fchmod(file, stat.S_IMODE(there.st_mode))


def _stream_of(there: os.stat_result) -> int | None:
    """Return the descriptor of stdout or stderr if it is this file, as for /dev/stdout; else None."""
    for stream in (1, 2):
        with suppress(OSError):
            if os.path.samestat(there, os.fstat(stream)):
                return stream
    return None


def _opened(path: Path, there: os.stat_result) -> int:
    """Open a device, or a FIFO as soon as it has a reader; duplicate the descriptor of stdout or stderr."""
    stream = _stream_of(there)
    if stream is not None:
        if sys.stdout is not None:
            sys.stdout.flush()
        return os.dup(stream)
    deadline = time.monotonic() + READER_S
    while True:
        try:
            file = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(there.st_mode):
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, "it is a FIFO that nobody reads") from None
            time.sleep(0.02)
        else:
            os.set_blocking(file, True)
            return file
