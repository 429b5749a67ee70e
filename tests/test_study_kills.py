"""A study that is killed, shared between runs, or spread over a cluster ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KILLS = int(os.environ.get("NETSIM_KILLS", "10"))
"""Kills of a study in a fork; give 100 in the environment to try as many as the docs tell of."""
STARTED = int(os.environ.get("NETSIM_KILLS", "2"))
"""Kills of a study that was started as a user does, each of which takes some seconds."""
POINTS = 240
WORKERS = ", ".join(str(workers) for workers in range(2, 6))
ENTRIES = ", ".join(str(k) for k in range(1, 1 + POINTS // 8))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "own.toml"
    path.write_text(
        'study = "sweep"\n[settings.fixed]\ntiming_only = true\nelements = 1000\n'
        f'[settings.vary]\nalgorithm = ["topk", "gtopk"]\nworkers = [{WORKERS}]\nk = [{ENTRIES}]\n'
    )
    return path


@pytest.fixture(scope="module")
def whole(own: Path) -> Path:
    """The folder of an uninterrupted run."""
    out = own.with_name("whole")
    finish(started(own, out, "--jobs", "2"))
    return out


def started(own: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "netsim", "study", str(own), "--out", str(out), *more]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def points(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "points").glob("[!.]*.json")}


def files(out: Path) -> dict[str, bytes]:
    """Return what a study leaves; a process that is killed may leave a temporary file, too."""
    every = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(out)): path.read_bytes() for path in every}


def of_session(session: int) -> list[str]:
    """Return the processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the study, and nothing that it started: that must notice by itself."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


def killed_while_points_are_added(own: Path, out: Path, draw: random.Random, jobs: int) -> bool:
    """Resume a study, kill it a few points later; return whether it was killed in the midst of adding points.

    That is so if it was alive, had added some, and had some to add.
    """
    before = len(points(out))
    wanted = before + draw.randint(1, 12)
    process = started(own, out, "--jobs", str(jobs), "--resume")
    while process.poll() is None and count(out) < wanted:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.05))  # from here on anything may be going on: measuring, writing, renaming
    alive, grown = process.poll() is None, count(out)
    kill(process)
    ended(process.pid)
    return alive and before < grown <= count(out) < POINTS


def count(out: Path) -> int:
    """Return how many points there are, without reading them."""
    return sum(1 for _ in (out / "points").glob("[!.]*"))


def ended(session: int) -> None:
    """Wait until what a killed study started has noticed."""
    until = time.monotonic() + 60  # what imports torch on a busy machine notices later
    while of_session(session):
        assert time.monotonic() < until, "a killed study left processes"
        time.sleep(0.1)


@pytest.mark.slow
def test_killed_while_points_are_added(own: Path, whole: Path, tmp_path: Path) -> None:
    """No finished point is lost or changed by any of STARTED kills, and resuming ends with the bytes of a whole run."""
    wanted, all_points = files(whole), points(whole)
    assert len(all_points) == POINTS
    draw, out = random.Random(7), tmp_path / "killed-0"
    hits, tries = 0, 0
    before: dict[str, bytes] = {}
    while hits < STARTED:
        tries += 1
        assert tries <= 2 * STARTED + 10, "most kills miss the moment"
        hits += killed_while_points_are_added(own, out, draw, 1 + tries % 2)
        now = points(out)
        assert before.items() <= now.items(), "a finished point was lost or changed"
        assert now.items() <= all_points.items(), "a point is not what an uninterrupted run finds"
        before = now
        if len(now) > POINTS - 20 or hits == STARTED:
            for left in (out / "points").glob(".*"):  # as if an hour had gone by
                os.utime(left, (1, 1))
            finish(started(own, out, "--resume"))
            assert files(out) == wanted
            assert not list(out.rglob(".*")), "what kills left was not removed"
            out, before = tmp_path / f"killed-{tries}", {}
    print(f"{hits} kills while points were added, of {tries}: none lost")  # noqa: T201


FORKED = """
import os, random, signal, sys, time
from pathlib import Path
from netsim.study_engine import run_study
from netsim.study_engine.settings import read_study_file, settings_of
from netsim.study_engine.sources import version_of
from studies import STUDIES, load_study

out, kills, total = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
study = load_study("sweep")
settings = settings_of(study, given=read_study_file(Path(sys.argv[1]), STUDIES).settings)
draw = random.Random(9)

def kept(folder):
    return {path.name: path.read_bytes() for path in (folder / "points").glob("[!.]*")}

def count(folder):
    return sum(1 for _ in (folder / "points").glob("[!.]*"))

def forked(folder):
    pid = os.fork()
    if not pid:
        run_study(study, settings, folder, jobs=1, resume=True)
        os._exit(0)
    return pid

def whole(folder):
    _, status = os.waitpid(forked(folder), 0)
    assert status == 0
    return {path.name: path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}

study.measure(study.points(settings)[0])  # imports what measuring needs, once for all forks
version_of(study.measure)
wanted = whole(out / "whole")
hits = tries = 0
folder, before = out / "0", {}
while hits < kills:
    tries += 1
    assert tries < 3 * kills, "most kills miss the moment"
    grow = len(before) + draw.randint(1, 12)
    pid, deadline = forked(folder), time.monotonic() + 60
    while count(folder) < grow and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.02))
    seen = count(folder)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    now = kept(folder)
    # It added points, was alive until the signal, and had more to add.
    hits += status == signal.SIGKILL and len(before) < seen <= len(now) < total
    assert before.items() <= now.items(), "a finished point was lost or changed"
    assert now.items() <= wanted.items(), "a point is not what an uninterrupted run finds"
    before = now
    if len(now) > total - 20 or hits == kills:
        assert whole(folder) == wanted, "a resumed study ends with other bytes"
        folder, before = out / str(tries), {}
print(hits, "kills while points were added, of", tries)
"""


@pytest.mark.slow
def test_kills_of_a_fork_while_points_are_added(own: Path, tmp_path: Path) -> None:
    """The study runs in a fork of a process that has imported everything: so each kill costs milliseconds."""
    command = [sys.executable, "-c", FORKED, str(own), str(tmp_path), str(KILLS), str(POINTS)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{KILLS} kills while points were added")
    print(ran.stdout)  # noqa: T201


@pytest.mark.slow
def test_killed_as_it_starts(own: Path, whole: Path, tmp_path: Path) -> None:
    """Wherever it is in its first seconds, importing or starting processes."""
    draw, out = random.Random(8), tmp_path / "killed"
    before: dict[str, bytes] = {}
    for number in range(3):
        process = started(own, out, "--jobs", str(1 + number % 2), "--resume")
        time.sleep(draw.uniform(0, 3))
        kill(process)
        ended(process.pid)
        assert before.items() <= points(out).items()
        before = points(out)
    finish(started(own, out, "--resume"))
    assert files(out) == files(whole)


@pytest.mark.slow
def test_two_runs_into_one_folder(own: Path, whole: Path, tmp_path: Path) -> None:
    both = [started(own, tmp_path / "both", "--jobs", "1") for _ in range(2)]
    for process in both:
        finish(process)
    assert files(tmp_path / "both") == files(whole)
    assert not list((tmp_path / "both").rglob(".*"))


@pytest.mark.slow
def test_four_shards_at_once_end_with_the_bytes_of_one_run(own: Path, whole: Path, tmp_path: Path) -> None:
    shards = [started(own, tmp_path / "four", "--jobs", "1", "--shard", f"{index}/4") for index in range(1, 5)]
    for process in shards:
        finish(process)
    assert [path.name for path in (tmp_path / "four").iterdir()] == ["points"]
    assert points(tmp_path / "four") == points(whole)
    finish(started(own, tmp_path / "four", "--resume"))
    assert files(tmp_path / "four") == files(whole)
    assert not list((tmp_path / "four").rglob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("measuring", [False, True])
def test_interrupted_from_the_keyboard(own: Path, tmp_path: Path, measuring: bool) -> None:
    """When points are measured, and as the processes that will measure them start."""
    process = started(own, tmp_path / "out", "--jobs", "2")
    while not (points(tmp_path / "out") if measuring else len(of_session(process.pid)) > 2) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert "--resume" in errors.decode()
    assert "Traceback" not in errors.decode()


@contextmanager
def local_cluster(folder: Path, workers: int) -> Iterator[str]:
    """Start a Dask scheduler and worker processes that listen on loopback alone; yield its address."""
    address = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # Where the dashboard listens is said even though there is none: a page of the server's own is there all the same.
    common = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(address)]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *common]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--local-directory", str(folder)]
    processes = [subprocess.Popen(scheduler, **quiet)]
    try:
        while not address.exists():
            assert processes[0].poll() is None, "the scheduler ended"
            time.sleep(0.1)
        processes += [subprocess.Popen([*worker, *common], **quiet) for _ in range(workers)]
        yield str(json.loads(address.read_text())["address"]).replace("tcp", "dask")
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def tasks_done(address: str) -> list[int]:
    """Return how many tasks each worker of the cluster has done, asked in a process of its own."""
    code = (
        "import sys; from distributed import Client; c = Client(sys.argv[1]); "
        "print(*c.run(lambda dask_worker: dask_worker.state.executed_count).values())"
    )
    arguments = [sys.executable, "-c", code, address.replace("dask", "tcp")]
    return [int(each) for each in subprocess.run(arguments, check=True, capture_output=True).stdout.split()]


@pytest.mark.slow
def test_a_cluster_finds_what_one_process_does(own: Path, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with local_cluster(tmp_path, workers=3) as address:
        while len(tasks_done(address)) < 3:
            time.sleep(0.2)
        finish(started(own, tmp_path / "there", "--cluster", address))
        assert sum(tasks > 0 for tasks in tasks_done(address)) >= 2
    assert files(tmp_path / "there") == files(whole)
