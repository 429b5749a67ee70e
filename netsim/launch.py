"""Starts the ranks of a real run on this machine, and is what each of them runs.

A small torchrun that stays on loopback: ranks meet through a file rather than through a store that
would listen on every interface, and none outlives the launcher.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netsim.errors import NetsimError, UsageError
from netsim.experiment import Experiment
from netsim.real import check_backend, process_group, ranks_of, run_rank
from netsim.results import Result
from netsim.simulation import OnRound, ignore, load_task
from topologies import servers_of

POLL_S = 0.05
GRACE_S = 2.0
JOB = "NETSIM_JOB"
"""The environment variable that tells a rank its job's folder."""


class RankFailedError(NetsimError):
    """A rank ended with an error; the others were stopped."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


def launch(experiment: Experiment, backend: str, timeout_s: float, on_round: OnRound = ignore) -> list[Result]:
    """Start all ranks here, wait for them, and return the results."""
    load_task(experiment, "cpu")  # what every rank would refuse is better refused before there are ranks
    with tempfile.TemporaryDirectory(prefix="netsim-") as folder:
        job = Path(folder)
        details = {"experiment": experiment.config(), "backend": backend, "timeout_s": timeout_s}
        (job / "job.json").write_text(json.dumps(details))
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            ranks.extend(_start_rank(job, rank, ranks_of(experiment)) for rank in range(ranks_of(experiment)))
            _wait(ranks, job, on_round)
        finally:
            _stop(ranks)
        return [Result(**result) for result in json.loads((job / "results.json").read_text())]


def _start_rank(job: Path, rank: int, world_size: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        JOB: str(job),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "NETSIM_LAUNCHER": str(os.getpid()),
    }
    with (job / f"stderr-{rank}").open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "netsim.launch"], env=environment, stdin=subprocess.DEVNULL, stderr=stderr
        )


def _wait(ranks: list[subprocess.Popen[bytes]], job: Path, on_round: OnRound) -> None:
    """Wait until all ranks have ended well; raise RankFailedError when one has not."""
    reported = 0
    while True:
        codes = [rank.poll() for rank in ranks]
        reported = _report_progress(job, reported, on_round)
        if any(codes):
            time.sleep(POLL_S)  # ranks that fail together: prefer the one that says why
            raise _failure(ranks, job)
        if all(code == 0 for code in codes):
            return
        time.sleep(POLL_S)


def _report_progress(job: Path, reported: int, on_round: OnRound) -> int:
    progress = job / "progress"
    lines = progress.read_text().splitlines()[reported:] if progress.exists() else []
    for line in lines:
        algorithm, step = line.rsplit(" ", 1)
        on_round(algorithm, int(step))
    return reported + len(lines)


def _failure(ranks: list[subprocess.Popen[bytes]], job: Path) -> RankFailedError:
    failures = []
    for number, rank in enumerate(ranks):
        code = rank.poll()
        if not code:
            continue
        lines = (job / f"stderr-{number}").read_text(errors="replace").strip().splitlines()
        said = next((line for line in reversed(lines) if line.startswith("netsim: ")), None)
        if said is not None:
            failures.append((0 if code == 2 else 1, said.removeprefix("netsim: "), code))
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            failures.append((2, f"rank {number} {how}" + (f": {lines[-1]}" if lines else ""), 1))
    _, message, code = min(failures)
    return RankFailedError(message, code)


def _stop(ranks: list[subprocess.Popen[bytes]]) -> None:
    """End the ranks that still run, first politely."""
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    deadline = time.monotonic() + GRACE_S
    for rank in ranks:
        try:
            rank.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def under_launcher() -> bool:
    """Return whether this process is a rank that torchrun, or something like it, started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join(
    options: Callable[[int], Experiment], topology: str, backend: str, timeout_s: float, on_round: OnRound = ignore
) -> tuple[Experiment, list[Result]]:
    """Take part as one rank of torchrun's job; `options(workers)` is the experiment for so many workers.

    Returns the results on rank 0, an empty list elsewhere.
    """
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    workers = world_size - (servers_of(topology) > 0)
    if workers < 1:
        raise UsageError(
            f"topology {topology} needs at least 2 ranks, a server and a worker, but torchrun started {world_size}"
        )
    experiment = options(workers)
    check_backend(backend, experiment.device)
    with process_group(backend, timeout_s, "env://", rank, world_size):
        return experiment, run_rank(experiment, backend, rank, on_round)


def _die_with_launcher() -> None:
    """Have the kernel kill this rank when its launcher dies, however that happens."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(os.environ["NETSIM_LAUNCHER"]):
        sys.exit(1)  # it died before the kernel was asked


def _rank_main() -> int:
    _die_with_launcher()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    job = Path(os.environ[JOB])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    details = json.loads((job / "job.json").read_text())
    experiment = Experiment.from_config(details["experiment"])

    def on_round(algorithm: str, step: int) -> None:
        with (job / "progress").open("a") as progress:
            progress.write(f"{algorithm} {step}\n")

    try:
        rendezvous = f"file://{job / 'rendezvous'}"
        with process_group(details["backend"], details["timeout_s"], rendezvous, rank, world_size):
            results = run_rank(experiment, details["backend"], rank, on_round)
        if rank == 0:
            (job / "results.json").write_text(json.dumps([_plain(result) for result in results]))
    except NetsimError as error:
        print(f"netsim: {error}", file=sys.stderr)  # noqa: T201
        # A peer that still waits for this rank would keep the interpreter from ending.
        sys.stderr.flush()
        os._exit(error.exit_code)
    return 0


def _plain(result: Result) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(result)


if __name__ == "__main__":
    sys.exit(_rank_main())
