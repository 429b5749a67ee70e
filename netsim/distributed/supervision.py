"""Waits for the processes of a job, ends them all when one fails or hangs, and says why.

A rank's own timeouts fail in two cases: the rank is stopped, or it waits for the lock of a file inside torch. So the
process that waits for the ranks watches the clock for them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from netsim._util.progress import OnRound
from netsim.distributed.failures import RankExit, RankFailedError, diagnose
from netsim.distributed.job import Job
from netsim.distributed.rank_context import HINT, SLACK_S

POLL_S = 0.05
"""Seconds between two looks at the processes."""
GRACE_S = 0.7
"""Seconds between asking a process to end and killing it."""
PATIENCE_S = 0.3
"""Seconds to wait, when a rank has failed, for others that are about to say why."""
LONGEST_LOOK_S = 1.0
"""The most seconds that count between two looks: if the whole job was suspended (Ctrl-Z), no rank was late."""
PR_SET_PDEATHSIG = 1


class Process(Protocol):
    """A child process; :class:`subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit status; raise subprocess.TimeoutExpired after `timeout` seconds."""
        ...


class ForkedRank:
    """A forked child as a :class:`Process`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit status; raise subprocess.TimeoutExpired after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(POLL_S / 5)
        return code


def supervise(
    processes: Sequence[Process], job: Job, names: Sequence[int | str], timeout_s: float, on_round: OnRound
) -> None:
    """Wait until all processes have ended well; if one fails or hangs, end the others.

    Parameters
    ----------
    processes, names
        Child processes and their names in the job: ranks, or HOST.
    job
        Their job.
    timeout_s
        Seconds after which a process that is stopped, or a rank in one operation of torch.distributed, hangs.
    on_round
        Told the progress of rank 0.

    Raises
    ------
    RankFailedError
        With the most telling exit message.
    """
    watch = Watch()
    while True:
        codes = [process.poll() for process in processes]
        job.report_progress(on_round)
        if any(codes):
            _wait_for_others(processes)
            raise _failure(processes, job, names)
        if all(code == 0 for code in codes):
            return
        if _hang(processes, job, names, timeout_s, watch):
            raise _failure(processes, job, names, PATIENCE_S)
        time.sleep(POLL_S)


def _hang(processes: Sequence[Process], job: Job, names: Sequence[int | str], timeout_s: float, watch: Watch) -> bool:
    """Return whether a process is stopped, or a rank in one operation, for too long; store that rank's message."""
    running = {name: process for name, process in zip(names, processes, strict=True) if process.poll() is None}
    waits = {(rank, since): where for rank, (since, where) in job.phases.read().items() if rank in running}
    halted = [name for name, process in running.items() if is_halted(process.pid)]
    lasted = watch.look([*halted, *waits])
    late = [wait for wait in waits if lasted[wait] > timeout_s + SLACK_S]
    why = f"; another process holds the lock of {job.rendezvous}" if late and is_locked(job.rendezvous) else HINT
    for wait in late:
        job.tell(wait[0], "PeerSilentError", f"{waits[wait]}: it did not go on within {timeout_s:g} s{why}", 1)
    return bool(late) or any(lasted[name] > timeout_s + SLACK_S for name in halted)


def _wait_for_others(processes: Sequence[Process]) -> None:
    """Wait a moment for processes that are about to end, too, and to say why."""
    patience = time.monotonic() + PATIENCE_S
    while any(process.poll() is None for process in processes) and time.monotonic() < patience:
        time.sleep(POLL_S)


def _failure(
    processes: Sequence[Process], job: Job, names: Sequence[int | str], grace_s: float = GRACE_S
) -> RankFailedError:
    """End all processes, and return the error diagnosed from their exit statuses and messages."""
    reached, exits = job.reached(), {}
    for name, process in zip(names, processes, strict=True):
        halted = process.poll() is None and is_halted(process.pid)
        exits[name] = RankExit(name, process.poll(), halted, *job.exit_message(name))
    stop(processes, grace_s)
    for name, rank_exit in exits.items():
        if rank_exit.message is None:  # asked to stop, a rank says where it was
            exits[name] = replace(rank_exit, message=job.exit_message(name)[0])
    text, exit_code = diagnose(exits, reached)
    messages = [rank_exit.message for rank_exit in exits.values() if rank_exit.message is not None]
    kind = next((message.kind for message in messages if message.message == text), "")
    return RankFailedError(text, exit_code, kind)


def stop(processes: Sequence[Process], grace_s: float = GRACE_S) -> None:
    """End processes that still run: SIGTERM, then SIGKILL after `grace_s`; a stopped process gets SIGKILL at once."""
    for process in processes:
        if process.poll() is None:
            process.kill() if is_halted(process.pid) else process.terminate()
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with(parent: int, *, heed_interrupts: bool = False) -> None:
    """Ask the kernel to kill this process when its parent ends, for whatever reason.

    Parameters
    ----------
    parent
        Process id of the parent.
    heed_interrupts
        Whether this process handles SIGINT itself; by default that is left to the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it ended before the kernel was asked
    if not heed_interrupts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Watch:
    """Adds up, from look to look, for how long conditions have held."""

    def __init__(self) -> None:
        self._lasted: dict[Hashable, float] = {}
        self._looked = time.monotonic()

    def look(self, conditions: Iterable[Hashable]) -> dict[Hashable, float]:
        """Return the seconds for which each condition that holds now has held at every look."""
        now = time.monotonic()
        since = min(now - self._looked, LONGEST_LOOK_S)
        self._looked = now
        self._lasted = {
            condition: self._lasted[condition] + since if condition in self._lasted else 0.0 for condition in conditions
        }
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
    """Return whether a process holds the lock that torch's store in a file takes."""
    import fcntl

    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
