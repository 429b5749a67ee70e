"""A job: ranks on this machine that meet in a folder, what each of them runs, and who waits for them.

Ranks meet through a file in the job's folder rather than through a store that would listen on every
interface, and none outlives the launcher. What they do is a *work*, named in the folder's `job.json`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from netsim.errors import NetsimError

POLL_S = 0.05
GRACE_S = 2.0
JOB = "NETSIM_JOB"
"""The environment variable that tells a rank its job's folder."""
LAUNCHER = "NETSIM_LAUNCHER"
"""The environment variable that tells a rank who launched it, and anybody whose a rank is."""

OnRound = Callable[[str, int], None]
Work = Callable[[dict[str, Any], int, OnRound], list[dict[str, Any]]]
"""``work(details, rank, on_round)`` runs as one rank of the joined group; rank 0 returns results, others []."""


class RankFailedError(NetsimError):
    """A rank ended with an error; the others were stopped."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class Process(Protocol):
    """A child process, as :class:`subprocess.Popen` has them."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Forked:
    """A child that was forked, with what :class:`Process` asks for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                import subprocess

                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(POLL_S / 5)
        return code


class Job:
    """The folder of a job: what is to be done, how far it is, what came out, and what the ranks said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reported = 0

    def write(self, details: dict[str, Any]) -> None:
        (self.folder / "job.json").write_text(json.dumps(details))

    def read(self) -> dict[str, Any]:
        details: dict[str, Any] = json.loads((self.folder / "job.json").read_text())
        return details

    def write_results(self, results: list[dict[str, Any]]) -> None:
        (self.folder / "results.json").write_text(json.dumps(results))

    def results(self) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = json.loads((self.folder / "results.json").read_text())
        return results

    @property
    def rendezvous(self) -> str:
        return f"file://{self.folder / 'rendezvous'}"

    def stderr(self, who: int | str) -> Path:
        return self.folder / f"stderr-{who}"

    def progressed(self, what: str, step: int) -> None:
        with (self.folder / "progress").open("a") as progress:
            progress.write(f"{what} {step}\n")

    def report_progress(self, on_round: OnRound) -> None:
        progress = self.folder / "progress"
        lines = progress.read_text().splitlines()[self._reported :] if progress.exists() else []
        for line in lines:
            what, step = line.rsplit(" ", 1)
            on_round(what, int(step))
        self._reported += len(lines)


def supervise(processes: Sequence[Process], job: Job, said: Sequence[Path], on_round: OnRound) -> None:
    """Wait until all processes have ended well; raise RankFailedError when one has not. `said`: their stderr."""
    while True:
        codes = [process.poll() for process in processes]
        job.report_progress(on_round)
        if any(codes):
            time.sleep(POLL_S)  # ranks that fail together: prefer the one that says why
            raise _failure(processes, said)
        if all(code == 0 for code in codes):
            return
        time.sleep(POLL_S)


def _failure(processes: Sequence[Process], said: Sequence[Path]) -> RankFailedError:
    failures = []
    for number, process in enumerate(processes):
        code = process.poll()
        if not code:
            continue
        lines = said[number].read_text(errors="replace").strip().splitlines()
        reason = next((line for line in reversed(lines) if line.startswith("netsim: ")), None)
        if reason is not None:
            failures.append((0 if code == 2 else 1, reason.removeprefix("netsim: "), code))
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            failures.append((2, f"rank {number} {how}" + (f": {lines[-1]}" if lines else ""), 1))
    _, message, code = min(failures)
    return RankFailedError(message, code)


def stop(processes: Sequence[Process]) -> None:
    """End the processes that still run, first politely."""
    import subprocess

    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens; leave interrupts to it."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it died before the kernel was asked
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_rank_of(job: Job, rank: int, world_size: int, interface: str, work: Work) -> int:
    """Do this rank's part of a job; return the exit status, and write the results if this is rank 0."""
    from netsim.real import process_group

    details = job.read()
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    try:
        with process_group(details["backend"], details["timeout_s"], job.rendezvous, rank, world_size):
            results = work(details, rank, job.progressed)
        if rank == 0:
            job.write_results(results)
    except NetsimError as error:
        print(f"netsim: {error}", file=sys.stderr, flush=True)  # noqa: T201
        # A peer that still waits for this rank would keep the interpreter from ending.
        os._exit(error.exit_code)
    return 0
