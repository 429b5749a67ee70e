"""A job: the folder through which a launcher, the forkserver and the ranks on this machine meet.

Ranks meet through a file in the folder rather than through a store that would listen on every interface. The folder's
`job.json` names the task of the ranks and its arguments; results, progress and exit messages are files beside it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from netsim._util.progress import OnRound
from netsim._util.storage import write_atomically
from netsim.distributed.failures import ExitMessage

RESULTS = "results.jsonl"
LIMITS = "start fewer ranks, or raise the limits of this user (ulimit -n, ulimit -u)"
"""Advice for errors of starting processes."""
JOB = "NETSIM_JOB"
"""Environment variable with the folder of a job."""
LAUNCHER = "NETSIM_LAUNCHER"
"""Environment variable with the process id of a job's launcher; `netsim doctor` finds processes that have lost it."""
HOST = "host"
"""Name of the forkserver in a job."""
PHASE_BYTES = 160
"""Length of a rank's record in the file of phases."""

RankTask = Callable[[dict[str, Any], int, OnRound], Iterable[dict[str, Any]]]
"""``task(details, rank, on_round)`` runs as one rank of the joined group; rank 0 yields results, others none."""


def task_of(details: dict[str, Any]) -> RankTask:
    """Return the function that every rank of a job runs.

    Parameters
    ----------
    details
        Arguments of the job; ``work`` names the function as ``module:function``, so that rooms above this one can hand
        over a task without being imported here.
    """
    module, _, function = details["work"].partition(":")
    task: RankTask = getattr(import_module(module), function)
    return task


class Job:
    """The folder of a job.

    Parameters
    ----------
    folder
        An existing folder that only this job uses.

    Attributes
    ----------
    phases : Phases
        Operations of torch.distributed that ranks are in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.phases = Phases(folder / "phases")
        self._reported = 0

    def write(self, details: dict[str, Any]) -> None:
        """Store the arguments of the job."""
        (self.folder / "job.json").write_text(json.dumps(details))

    def read(self) -> dict[str, Any]:
        """Return the arguments of the job."""
        details: dict[str, Any] = json.loads((self.folder / "job.json").read_text())
        return details

    def add_result(self, result: dict[str, Any]) -> None:
        """Store a result at once, so that a later failure does not lose it."""
        with (self.folder / RESULTS).open("a") as results:
            results.write(json.dumps(result) + "\n")

    def results(self) -> list[dict[str, Any]]:
        """Return all results so far."""
        results = self.folder / RESULTS
        return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []

    @property
    def rendezvous(self) -> Path:
        """The file through which ranks meet."""
        return self.folder / "rendezvous"

    def stderr(self, name: int | str) -> Path:
        """Return the file for the stderr of a process: a rank, or HOST."""
        return self.folder / f"stderr-{name}"

    def tell(self, name: int | str, kind: str, message: str, exit_code: int, peer: int | None = None) -> None:
        """Store the exit message of a process."""
        text = json.dumps(asdict(ExitMessage(kind, message, exit_code, peer)))
        write_atomically(self.folder / f"last-{name}.json", text)

    def exit_message(self, name: int | str) -> tuple[ExitMessage | None, str]:
        """Return the exit message of a process, if it left one, and the last line of its stderr."""
        stored = self.folder / f"last-{name}.json"
        stderr = self.stderr(name)
        lines = stderr.read_text(errors="replace").strip().splitlines() if stderr.exists() else []
        message = ExitMessage(**json.loads(stored.read_text())) if stored.exists() else None
        return message, lines[-1] if lines else ""

    def progressed(self, what: str, step: int) -> None:
        """Note that rank 0 has ended a step of an algorithm."""
        with (self.folder / "progress").open("a") as progress:
            progress.write(f"{what} {step}\n")

    def reached(self) -> str:
        """Return in words how far the ranks came; an empty text if they have not said."""
        progress = self.folder / "progress"
        lines = progress.read_text().splitlines() if progress.exists() else []
        if not lines or " " not in lines[-1]:
            return next((where for _, where in self.phases.read().values()), "")
        what, step = lines[-1].rsplit(" ", 1)
        return f"rank 0 had ended {what}, step {step}"

    def report_progress(self, on_round: OnRound) -> None:
        """Call ``on_round(what, step)`` for every step that has ended since the last call."""
        progress = self.folder / "progress"
        lines = progress.read_text().splitlines()[self._reported :] if progress.exists() else []
        for line in lines:
            what, step = line.rsplit(" ", 1)
            on_round(what, int(step))
        self._reported += len(lines)


class Phases:
    """A file with one record per rank: the rank's present operation, if that operation must end within the timeout."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def enter(self, rank: int, where: str) -> None:
        """Record the operation that a rank is in; an empty `where` records that the rank left it."""
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
