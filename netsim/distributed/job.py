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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from netsim._util.progress import OnRound
from netsim._util.storage import write_atomically
from netsim.distributed.failures import ExitMessage, RankExit, RankFailedError, diagnose
from netsim.distributed.rank_context import HINT, SLACK_S, taking_part
from netsim.distributed.supervision import Phases, Watch, is_halted, is_locked

POLL_S = 0.05
GRACE_S = 0.7
"""Between asking a process to end and ending it."""
PATIENCE_S = 0.3
"""For ranks that fail together: one may be about to say why."""
RESULTS = "results.jsonl"
LIMITS = "start fewer ranks, or raise the limits of this user (ulimit -n, ulimit -u)"
"""What helps where a process could not be started."""
JOB = "NETSIM_JOB"
"""The environment variable that tells a job's folder."""
LAUNCHER = "NETSIM_LAUNCHER"
"""The environment variable that tells who launched a job, and anybody whose a process is."""
HOST = "host"
"""The name in a job of the process that forks its ranks."""

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

RankTask = Callable[[dict[str, Any], int, OnRound], Iterable[dict[str, Any]]]
"""``work(details, rank, on_round)`` runs as one rank of the joined group; rank 0 gives results, others none."""


class Process(Protocol):
    """A child process, as :class:`subprocess.Popen` has them."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class ForkedRank:
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
        self.phases = Phases(folder / "phases")
        self._reported = 0

    def write(self, details: dict[str, Any]) -> None:
        (self.folder / "job.json").write_text(json.dumps(details))

    def read(self) -> dict[str, Any]:
        details: dict[str, Any] = json.loads((self.folder / "job.json").read_text())
        return details

    def add_result(self, result: dict[str, Any]) -> None:
        """Keep a result at once: what comes after it may fail."""
        with (self.folder / RESULTS).open("a") as results:
            results.write(json.dumps(result) + "\n")

    def results(self) -> list[dict[str, Any]]:
        results = self.folder / RESULTS
        return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []

    @property
    def rendezvous(self) -> Path:
        """The file through which ranks meet."""
        return self.folder / "rendezvous"

    def stderr(self, who: int | str) -> Path:
        return self.folder / f"stderr-{who}"

    def tell(self, who: int | str, kind: str, message: str, exit_code: int, peer: int | None = None) -> None:
        """Write down why a process of this job ends."""
        word = ExitMessage(kind, message, exit_code, peer)
        write_atomically(self.folder / f"last-{who}.json", json.dumps(asdict(word)))

    def last_word(self, who: int | str) -> tuple[ExitMessage | None, str]:
        """Return what a process said of its end, if it could, and the last line that it wrote to stderr."""
        said = self.folder / f"last-{who}.json"
        lines = self.stderr(who).read_text(errors="replace").strip().splitlines() if self.stderr(who).exists() else []
        return ExitMessage(**json.loads(said.read_text())) if said.exists() else None, lines[-1] if lines else ""

    def progressed(self, what: str, step: int) -> None:
        with (self.folder / "progress").open("a") as progress:
            progress.write(f"{what} {step}\n")

    def reached(self) -> str:
        """Say how far the ranks were, if they have said so; an empty text if not."""
        progress = self.folder / "progress"
        lines = progress.read_text().splitlines() if progress.exists() else []
        if not lines or " " not in lines[-1]:
            return next((where for _, where in self.phases.read().values()), "")
        what, step = lines[-1].rsplit(" ", 1)
        return f"rank 0 had ended {what}, step {step}"

    def report_progress(self, on_round: OnRound) -> None:
        progress = self.folder / "progress"
        lines = progress.read_text().splitlines()[self._reported :] if progress.exists() else []
        for line in lines:
            what, step = line.rsplit(" ", 1)
            on_round(what, int(step))
        self._reported += len(lines)


def supervise(
    processes: Sequence[Process], job: Job, names: Sequence[int | str], timeout_s: float, on_round: OnRound
) -> None:
    """Wait until all processes have ended well; when one has not, end the others and raise RankFailedError.

    So does a process that is stopped for longer than the timeout, and a rank whose operation of
    torch.distributed lasts longer. `names` are the processes' names in the job: ranks, or that of the host.
    """
    watch = Watch()
    while True:
        codes = [process.poll() for process in processes]
        job.report_progress(on_round)
        if any(codes):
            _wait_for_words(processes)
            raise _failure(processes, job, names)
        if all(code == 0 for code in codes):
            return
        if _do_not_go_on(processes, job, names, timeout_s, watch):
            raise _failure(processes, job, names, PATIENCE_S)
        time.sleep(POLL_S)


def _do_not_go_on(
    processes: Sequence[Process], job: Job, names: Sequence[int | str], timeout_s: float, watch: Watch
) -> bool:
    """Return whether a process has been stopped, or a rank at one operation, for too long; say so of the rank."""
    running = {name: process for name, process in zip(names, processes, strict=True) if process.poll() is None}
    waits = {(rank, since): where for rank, (since, where) in job.phases.read().items() if rank in running}
    halted = [name for name, process in running.items() if is_halted(process.pid)]
    lasted = watch.look([*halted, *waits])
    late = [wait for wait in waits if lasted[wait] > timeout_s + SLACK_S]
    why = f"; another process holds the lock of {job.rendezvous}" if late and is_locked(job.rendezvous) else HINT
    for wait in late:
        job.tell(wait[0], "PeerSilentError", f"{waits[wait]}: it did not go on within {timeout_s:g} s{why}", 1)
    return bool(late) or any(lasted[name] > timeout_s + SLACK_S for name in halted)


def _wait_for_words(processes: Sequence[Process]) -> None:
    """Wait a moment for processes that are about to end, too, and to say why."""
    patience = time.monotonic() + PATIENCE_S
    while any(process.poll() is None for process in processes) and time.monotonic() < patience:
        time.sleep(POLL_S)


def _failure(
    processes: Sequence[Process], job: Job, names: Sequence[int | str], grace_s: float = GRACE_S
) -> RankFailedError:
    """End all processes, and return the error that says what happened, from their last words."""
    reached, endings = job.reached(), {}
    for name, process in zip(names, processes, strict=True):
        halted = process.poll() is None and is_halted(process.pid)
        endings[name] = RankExit(name, process.poll(), halted, *job.last_word(name))
    stop(processes, grace_s)
    for name, ending in endings.items():
        if ending.word is None:  # asked to stop, it says where it was
            endings[name] = replace(ending, word=job.last_word(name)[0])
    message, exit_code = diagnose(endings, reached)
    words = [ending.word for ending in endings.values() if ending.word is not None]
    kind = next((word.kind for word in words if word.message == message), "")
    return RankFailedError(message, exit_code, kind)


def stop(processes: Sequence[Process], grace_s: float = GRACE_S) -> None:
    """End the processes that still run, first politely; one that is stopped could not hear it."""
    import subprocess

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
    """Have the kernel kill this process when its parent dies, however that happens; mostly leave interrupts to it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it died before the kernel was asked
    if not heed_interrupts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_rank_of(job: Job, rank: int, world_size: int, interface: str, work: RankTask) -> int:
    """Do this rank's part of a job; return the exit status, and write the results if this is rank 0."""
    from netsim.distributed.rank_main import process_group

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, f"netsim rank {rank}".encode())  # as ps and top show it
    with taking_part(rank, partial(job.tell, rank), partial(job.phases.enter, rank)):
        details = job.read()
        os.environ["GLOO_SOCKET_IFNAME"] = interface
        where = f"file://{job.rendezvous}"
        with process_group(details["backend"], details["timeout_s"], where, rank, world_size, details):
            for result in work(details, rank, job.progressed):
                if rank == 0:
                    job.add_result(result)
    return 0
