"""Which of a job's processes do not go on, by the clock of the process that waits for them.

A rank's own timeouts fail in two cases: the rank is stopped, or it waits for the lock of a file inside torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Iterable
from pathlib import Path

PHASE_BYTES = 160
"""Length of a rank's record in the file of phases."""
LONGEST_LOOK_S = 1.0
"""The longest time that counts between two looks: if the whole job was suspended (Ctrl-Z), no rank was late."""


class Phases:
    """A file with a record for each rank: the operation that it is in, if that must end within the timeout."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def enter(self, rank: int, where: str) -> None:
        """Have `rank` be in an operation, or in none if `where` is empty."""
        since = f"{time.monotonic():.9f} {where}" if where else ""
        record = since.encode(errors="replace")[: PHASE_BYTES - 1].ljust(PHASE_BYTES - 1) + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, record, rank * PHASE_BYTES)
        finally:
            os.close(descriptor)

    def read(self) -> dict[int, tuple[str, str]]:
        """Return (instant of entry, operation) by rank; ranks that are in no such operation are left out."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        records = (content[start : start + PHASE_BYTES] for start in range(0, len(content), PHASE_BYTES))
        texts = [record.replace(b"\0", b"").decode(errors="replace").strip() for record in records]
        return {rank: (text.partition(" ")[0], text.partition(" ")[2]) for rank, text in enumerate(texts) if text}


class Watch:
    """Adds up, from look to look, for how long conditions have held."""

    def __init__(self) -> None:
        self._lasted: dict[Hashable, float] = {}
        self._looked = time.monotonic()

    def look(self, conditions: Iterable[Hashable]) -> dict[Hashable, float]:
        """Return for how many seconds each of the conditions, which hold now, has held at every look."""
        now = time.monotonic()
        since = min(now - self._looked, LONGEST_LOOK_S)
        self._looked = now
        self._lasted = {each: self._lasted[each] + since if each in self._lasted else 0.0 for each in conditions}
        return self._lasted


def is_halted(pid: int) -> bool:
    """Return whether a child is stopped by a signal, or, where Linux tells it in /proc, by a debugger."""
    try:
        if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "Tt"
    except (OSError, IndexError):
        return False


def is_locked(path: Path) -> bool:
    """Return whether a process has the lock of a file, as torch's store in a file takes it."""
    import fcntl

    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
