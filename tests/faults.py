"""Real runs to which something happens, several at once: ``python -m tests.faults FAULT,FAULT REPEATS FOLDER``.

Torch is imported once, and every launcher is a fork; the launcher, the host and the ranks then run netsim's own
code. Prints a JSON list with what became of each run; :mod:`tests.test_faults` judges it.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from netsim._util.errors import NetsimError
from netsim._util.progress import OnRound
from netsim._util.storage import write_atomically
from netsim._util.system import listening
from netsim.cli.main import main
from netsim.cluster.plan import Cluster
from netsim.comm.collectives import ring_all_reduce, tree_reduce
from netsim.comm.payload import Dense, add
from netsim.comm.worker import Worker
from netsim.distributed import forkserver, launch, rank_main
from netsim.distributed.interpreter import RankInterpreter
from netsim.distributed.job import JOB, LAUNCHER, Job
from netsim.distributed.supervision import ForkedRank, die_with
from netsim.experiment.configuration import Experiment
from tests.ports import free_port

WORLD = 3
TIMEOUT_S = 3.0
PATIENCE_S = 90.0
LEAVING_S = 10.0
BEAT_S = 0.1
"""Seconds between two steps: most of a run is waiting, since fifteen runs share the cores with their faults."""
ODD_AT = 5
"""The step in which the rank that differs differs."""
EMPTY = "empty"
"""Not a fault: a run that ends when it is told to, which shows how fast this machine is in this minute."""
ENOUGH = "enough"
"""The file that tells a run to end."""


def beat(details: dict[str, Any], rank: int, on_round: OnRound) -> list[dict[str, Any]]:
    """Exchange a little, over and over, until told; `details` may have rank 1 do something else from a step on."""
    worker = Worker(rank, WORLD)
    enough = Path(details["folder"]) / ENOUGH

    async def program() -> None:
        for worker.step in itertools.count():
            odd = details.get("odd") if rank == 1 and worker.step >= ODD_AT else None
            if odd == "step":
                worker.step += 1
            own = Dense(torch.ones(999 if odd == "size" else 1000, dtype=torch.float64 if odd == "dtype" else None))
            if rank == 0 and enough.exists():
                own.values[0] += 1
            if odd == "operation":
                await tree_reduce(worker, own, add)
            elif (await ring_all_reduce(worker, own)).values[0] > WORLD:
                break  # all ranks hear of it in the same step
            await worker.compute("gradient", time.sleep, BEAT_S)
            if rank == 0:
                on_round("beat", worker.step)

    RankInterpreter(worker, "cpu", "gloo").run(program())
    return [{"steps": worker.step}] if rank == 0 else []


def start_by_fork(job: Job) -> ForkedRank:
    """Start the host of a job as :func:`netsim.distributed.launch._start` does, without a new interpreter."""
    launcher = os.getpid()
    if pid := os.fork():
        return ForkedRank(pid)
    os.environ |= {JOB: str(job.folder), LAUNCHER: str(launcher)}
    os.dup2(os.open(job.stderr("host"), os.O_WRONLY | os.O_CREAT, 0o600), 2)
    os._exit(forkserver.main())


def lock(path: Path) -> None:
    """Take the lock of a file for as long as this process lives."""
    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)


def start_locked(folder: Path, job: Job) -> ForkedRank:
    """Start the host of a job while this process holds the lock of the file through which ranks meet."""
    lock(job.rendezvous)
    write_atomically(folder / "met", str(time.monotonic()))
    return start_by_fork(job)


@dataclass
class Run:
    """A run under way: its processes, and what was seen of them while it went."""

    folder: Path
    launcher: ForkedRank
    people: dict[str, int] = field(default_factory=dict)
    """Process by its name: host, rank 0 …"""
    seen: dict[str, Any] = field(default_factory=dict)
    inside: dict[int, str] = field(default_factory=dict)
    """Namespace by the process that was in it."""
    sockets: set[tuple[int, str]] = field(default_factory=set)
    """Port and inode of each socket at which a rank listened."""
    started_at: float = field(default_factory=time.monotonic)
    disturbed_at: float = 0.0
    ended_at: float = 0.0
    code: int | None = None

    def steps(self) -> int:
        """Return how many steps rank 0 has done."""
        return sum(len(path.read_text().splitlines()) for path in self.folder.glob("netsim-*/progress"))

    def going(self) -> bool:
        return self.steps() >= ODD_AT or (self.folder / "met").exists()

    def look(self) -> None:
        """Note processes, listening sockets and namespaces."""
        for pid in descendants(self.launcher.pid):
            with suppress(OSError):  # it may be gone again
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                self.people[name.removeprefix("netsim ") if name.startswith("netsim rank") else "host"] = pid
        of_ranks = [pid for name, pid in self.people.items() if name.startswith("rank")]
        self.seen["ranks"] = len(of_ranks)
        self.seen["listening"] = sorted({address for pid in of_ranks for address, _ in listening(pid)})
        ports = {port for pid in of_ranks for _, port in listening(pid)}
        self.sockets = {(port, inode) for port, inode in listening_sockets() if port in ports}
        self.seen["namespaces"] = sorted({namespace(pid) for pid in of_ranks} - {namespace(os.getpid()), ""})
        self.inside = {pid: at for pid in processes() if (at := namespace(pid)) in self.seen["namespaces"]}

    def outcome(self) -> dict[str, Any]:
        """Return how it ended, with whatever is left of it a moment later."""
        # The kernel ends the ranks of a host that was killed, but not at once, and later where processors are busy.
        wait_until(lambda: not (self.left() or self.ports_left()), LEAVING_S)
        return {
            "code": self.code,
            "message": (self.folder / "message").read_text() if (self.folder / "message").exists() else "",
            "seconds": self.ended_at - self.began(),
            "whole_s": self.ended_at - self.started_at,
            "left": self.left(),
            "ports_left": self.ports_left(),
            # Its number alone says nothing: the kernel gives it to the next one.
            "namespaces_left": sorted({at for pid, at in self.inside.items() if namespace(pid) == at}),
            "folders_left": [path.name for path in self.folder.glob("netsim-*")],
            **self.seen,
        }

    def began(self) -> float:
        """Return when its fault did, which a rank that waits for a world that never was, or stops itself, notes."""
        met = self.folder / "met"
        return float(met.read_text()) if met.exists() else self.disturbed_at

    def left(self) -> list[str]:
        return [name for name, pid in self.people.items() if alive(pid)]

    def ports_left(self) -> list[int]:
        """Return the ports at which a socket of this run still listens; those in a namespace went with it."""
        return sorted(port for port, _ in self.sockets & listening_sockets())


def listening_sockets() -> set[tuple[int, str]]:
    """Return the port and the inode of each socket of this namespace that listens: ports are given away again."""
    rows = [row for kind in ("tcp", "tcp6") for row in Path(f"/proc/self/net/{kind}").read_text().splitlines()[1:]]
    columns = [row.split() for row in rows]
    return {(int(each[1].partition(":")[2], 16), each[9]) for each in columns if each[3] == "0A"}


def start(folder: Path, details: dict[str, Any], cluster: Cluster | None = None) -> Run:
    """Start a launcher with its host and ranks."""
    folder.mkdir()
    forge = os.getpid()
    if pid := os.fork():
        return Run(folder, ForkedRank(pid))
    code = 1
    try:
        die_with(forge, heed_interrupts=True)
        tempfile.tempdir = str(folder)
        sys.stdout = sys.stderr
        if "stop" in details:
            stop_at(folder, *details["stop"])
        if "locked" in details:
            launch._start = partial(start_locked, folder)  # type: ignore[assignment]
        details = {"work": f"{beat.__module__}:beat", "backend": "gloo", "folder": str(folder)} | details
        launch.launch_work(details, WORLD, cluster=cluster)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except NetsimError as error:
        (folder / "message").write_text(str(error))
        code = error.exit_code
    finally:
        os._exit(code)


PHASES: dict[str, tuple[Any, str]] = {
    "starting": (forkserver, "run_forked_rank"),
    "locking": (rank_main, "rendezvous"),
    "joining": (rank_main, "verify_config"),
    "connecting": (dist, "init_process_group"),
    "barrier": (dist, "barrier"),
    "computing": (RankInterpreter, "_compute"),
    "exchanging": (RankInterpreter, "_begin_exchange"),
    "gathering": (dist, "all_gather_object"),
    "leaving": (dist, "destroy_process_group"),
}
"""What a rank is about to call, or, of the lock, has just begun, when it stops."""


def stop_at(folder: Path, rank: int | None, phase: str) -> None:
    """Have one rank of the job that is to start here, or its host, stop for good when it comes to a phase."""
    owner, name = (forkserver, "_fork") if rank is None else PHASES[phase]
    call = getattr(owner, name)

    def due(args: tuple[Any, ...]) -> bool:
        if rank is None:
            return bool(args[1] == WORLD - 1)  # when it has forked all ranks but the last
        return os.environ.get("RANK") == str(rank)

    def stopping(*args: Any, **options: Any) -> Any:
        if due(args) and not (folder / "met").exists():
            if phase == "locking":
                lock(next(folder.glob("netsim-*")) / "rendezvous")
            write_atomically(folder / "met", str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return call(*args, **options)

    setattr(owner, name, stopping)


def start_ranks_of_torchrun(folder: Path, told: list[tuple[int, str]]) -> list[Run]:
    """Start ranks as torchrun would, each of a world of the size that it is told, to train on loopback."""
    folder.mkdir()
    port = str(free_port())
    runs, forge = [], os.getpid()
    for rank, (world, algorithm) in enumerate(told):
        own = folder / str(rank)
        own.mkdir()
        if pid := os.fork():
            runs.append(Run(own, ForkedRank(pid)))
            continue
        die_with(forge, heed_interrupts=True)
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.dup2(os.open(own / "message", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        sys.stdout = sys.stderr
        launch.process_group = partial(at_once, own, len(told), launch.process_group)  # before any alarm is set
        os._exit(main(["run", "--algorithm", algorithm, "--rounds", "100000", "--timeout", f"{TIMEOUT_S:g}s"]))
    return runs


def at_once(own: Path, ranks: int, join: Callable[..., Any], *args: Any) -> Any:
    """Join the group when all ranks have loaded what they need, however long that took; note when that was."""
    (own / "loaded").touch()
    wait_until(lambda: len(list(own.parent.glob("*/loaded"))) == ranks)
    (own / "met").write_text(str(time.monotonic()))
    return join(*args)


def descendants(pid: int) -> list[int]:
    children = [each for each in processes() if parent(each) == pid]
    return children + [each for child in children for each in descendants(child)]


def processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def link(run: Run, rank: int, state: str) -> None:
    """Bring the port of a rank's cable at the switch up or down, inside the namespace of this run's host."""
    pid = str(run.people["host"])
    same_user = Path("/proc/self/ns/user").readlink() == Path(f"/proc/{pid}/ns/user").readlink()
    user = [] if same_user else ["--user", "--preserve-credentials"]
    inside = ["nsenter", "--target", pid, *user, "--net"]
    subprocess.run([*inside, "ip", "link", "set", f"port{rank}", state], check=True)


def kill(who: str, number: signal.Signals) -> Callable[[Run], None]:
    def disturb(run: Run) -> None:
        os.kill(run.launcher.pid if who == "launcher" else run.people[who], number)

    return disturb


def stop_and_kill(run: Run) -> None:
    os.kill(run.launcher.pid, signal.SIGSTOP)
    os.kill(run.launcher.pid, signal.SIGKILL)


def let_end(run: Run) -> None:
    """Tell a run that it has beaten enough."""
    (run.folder / ENOUGH).touch()


def nothing(run: Run) -> None:
    """Let it go on: it has its fault in itself."""


BEAT = {"timeout_s": TIMEOUT_S}
CLUSTER = Cluster(ranks=WORLD, bandwidth_bps=100_000_000)
FAULTS: dict[str, tuple[dict[str, Any], Cluster | None, Callable[[Run], None]]] = {
    EMPTY: ({"timeout_s": PATIENCE_S}, None, let_end),
    "killed": (BEAT, None, kill("rank 2", signal.SIGKILL)),
    "stopped": (BEAT, None, kill("rank 1", signal.SIGSTOP)),
    "interrupted": (BEAT, None, kill("launcher", signal.SIGINT)),
    "terminated": (BEAT, None, kill("launcher", signal.SIGTERM)),
    "launcher-killed": (BEAT, None, kill("launcher", signal.SIGKILL)),
    "launcher-stopped-and-killed": (BEAT, None, stop_and_kill),
    "host-killed": (BEAT, None, kill("host", signal.SIGKILL)),
    "host-stopped": (BEAT, None, kill("host", signal.SIGSTOP)),
    "host-stopped-forking": (BEAT | {"stop": [None, "forking"]}, None, nothing),
    "locked": (BEAT | {"locked": True}, None, nothing),
    "link-down": (BEAT, CLUSTER, lambda run: link(run, 1, "down")),
    "link-cut": ({"timeout_s": 20.0}, CLUSTER, lambda run: link(run, 1, "down")),
    "killed-in-namespace": (BEAT, CLUSTER, kill("rank 2", signal.SIGKILL)),
    "launcher-killed-in-namespace": (BEAT, CLUSTER, kill("launcher", signal.SIGKILL)),
} | {f"odd-{odd}": (BEAT | {"odd": odd}, None, nothing) for odd in ("size", "dtype", "operation", "step")}
TRAINING = Experiment(workers=WORLD, algorithms=("dense",), rounds=3).config()
STOPS = {f"{phase}-{rank}": (rank, phase) for phase in PHASES for rank in range(WORLD)}
"""Which rank stops, and when. The others must not run into their timeout before it does, however busy the machine."""
TO_STOP = {"timeout_s": 10.0, "work": rank_main.TRAIN, "experiment": TRAINING}
FAULTS |= {name: (TO_STOP | {"stop": stop}, None, nothing) for name, stop in STOPS.items()}
WORLDS = {
    "wrong-world": [(3, "dense"), (4, "dense"), (3, "dense")],
    "missing-rank": [(3, "dense"), (3, "dense")],
    "other-options": [(2, "dense"), (2, "gtopk")],
}
"""What the ranks of a job are told: their world's size, and what to run."""
CUT_S = 3.0


def happen(faults: list[str], repeats: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Start runs of every fault, and at most one without a fault; return what became of them.

    Each run is disturbed as soon as all go.
    """
    happening: dict[str, list[Run]] = {fault: [] for fault in faults}
    for fault in faults:
        for repeat in range(1 if fault == EMPTY else repeats):
            own = folder / f"{fault}-{repeat}"
            if fault in WORLDS:
                happening[fault] += start_ranks_of_torchrun(own, WORLDS[fault])
            else:
                happening[fault].append(start(own, *FAULTS[fault][:2]))
    everyone = [run for runs in happening.values() for run in runs]
    for fault, runs in happening.items():
        for run in runs:
            if fault in FAULTS:
                wait_until(lambda run=run: ended(everyone) or run.going() or bool(run.ended_at))  # type: ignore[misc]
            if fault in FAULTS and "odd" not in FAULTS[fault][0]:
                run.look()
    for fault, runs in happening.items():
        for run in runs:
            run.disturbed_at = time.monotonic()
            if fault in FAULTS and run.launcher.poll() is None:
                FAULTS[fault][2](run)
    if cut := happening.get("link-cut"):
        watch(everyone, CUT_S / 2)
        for run in cut:
            run.seen["steps_before"] = run.steps()
        watch(everyone, CUT_S / 2)
        for run in cut:
            run.seen["steps_cut"] = run.steps() - run.seen["steps_before"]
            link(run, 1, "up")
            (run.folder / ENOUGH).touch()  # a step after it has returned, but no later than that
    watch(everyone, PATIENCE_S)
    for run in everyone:
        run.launcher.kill()  # none has any business to go on
    return {fault: [run.outcome() for run in runs] for fault, runs in happening.items()}


def ended(runs: list[Run]) -> bool:
    """Note of each run when it ended; return whether all have."""
    for run in runs:
        if not run.ended_at and run.launcher.poll() is not None:
            run.ended_at, run.code = time.monotonic(), run.launcher.poll()
    return all(run.ended_at for run in runs)


def watch(runs: list[Run], patience_s: float) -> None:
    """Wait until all have ended, but not for long."""
    wait_until(lambda: ended(runs), patience_s)


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


if __name__ == "__main__":
    launch._start = start_by_fork  # type: ignore[assignment]
    print(json.dumps(happen(sys.argv[1].split(","), int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
