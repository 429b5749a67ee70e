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

KILLS = 30
POINTS = 400
WORKERS = ", ".join(str(workers) for workers in range(2, 6))
ENTRIES = ", ".join(str(k) for k in range(1, 1 + POINTS // 8))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(
        'study = "sweep"\n[settings.fixed]\ntiming_only = true\nelements = 1000\n'
        f'[settings.vary]\nalgorithm = ["topk", "gtopk"]\nworkers = [{WORKERS}]\nk = [{ENTRIES}]\n'
    )
    return path


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


@pytest.mark.slow
def test_killed_at_thirty_random_moments(own: Path, tmp_path: Path) -> None:
    finish(started(own, tmp_path / "whole", "--jobs", "2"))
    wanted, all_points = files(tmp_path / "whole"), points(tmp_path / "whole")
    assert len(all_points) == POINTS
    draw, out = random.Random(7), tmp_path / "killed"
    before: dict[str, bytes] = {}
    grew = 0
    for number in range(KILLS):
        process = started(own, out, "--jobs", str(1 + number % 2), "--resume")
        deadline = time.monotonic() + 60
        # Every third is killed wherever it is; the others when they have begun to measure.
        while number % 3 and len(points(out)) == len(before) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2 if number % 3 else 3))
        kill(process)
        now = points(out)
        assert before.items() <= now.items(), "a finished point was lost or changed"
        assert now.items() <= all_points.items(), "a point is not what an uninterrupted run finds"
        grew += len(now) > len(before)
        before = now
        for _ in range(100):
            if not of_session(process.pid):
                break
            time.sleep(0.1)
        assert of_session(process.pid) == [], "a killed study left processes"
        if len(now) == POINTS or number == KILLS - 1:
            finish(started(own, out, "--resume"))
            assert files(out) == wanted
            # A fast machine has nothing left to be killed at: the next moments are of a new folder.
            out, before = tmp_path / f"killed-{number}", {}
    assert grew > KILLS / 3


@pytest.mark.slow
def test_two_runs_into_one_folder(own: Path, tmp_path: Path) -> None:
    finish(started(own, tmp_path / "alone", "--jobs", "1"))
    both = [started(own, tmp_path / "both", "--jobs", "1") for _ in range(2)]
    for process in both:
        finish(process)
    assert files(tmp_path / "both") == files(tmp_path / "alone")
    assert not list((tmp_path / "both").rglob(".*"))


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
def test_a_cluster_finds_what_one_process_does(own: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    finish(started(own, tmp_path / "here", "--jobs", "1"))
    with local_cluster(tmp_path, workers=3) as address:
        while len(tasks_done(address)) < 3:
            time.sleep(0.2)
        finish(started(own, tmp_path / "there", "--cluster", address))
        assert sum(tasks > 0 for tasks in tasks_done(address)) >= 2
    assert files(tmp_path / "there") == files(tmp_path / "here")
