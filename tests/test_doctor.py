"""netsim doctor: what the machine can do, and what killed runs left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netsim.cluster import plan
from netsim.cluster.plan import Cluster
from netsim.distributed.job import JOB, LAUNCHER
from netsim.testbed import doctor
from netsim.testbed.doctor import FRESH_S, Leftover, leftovers
from tests.cluster import why_no_cluster
from tests.command import run


def a_jobs_folder(place: Path, name: str, age_s: float = 2 * FRESH_S) -> Path:
    folder = place / name
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def left_in(folder: Path) -> list[Leftover]:
    """Return what runs in a folder left; the doctor also finds processes of others' runs, as of tests beside this."""

    def is_here(process: str) -> bool:
        try:
            return f"{JOB}={folder}".encode() in Path(f"/proc/{process}/environ").read_bytes()
        except OSError:
            return False

    return [each for each in leftovers(folder) if each.what == "folder" or is_here(each.name)]


def test_folders_of_killed_runs_are_found_and_nothing_else(tmp_path: Path) -> None:
    left = a_jobs_folder(tmp_path, "netsim-left")
    a_jobs_folder(tmp_path, "netsim-young", age_s=0)
    (tmp_path / "netsim-elsewhere").mkdir()  # somebody else's: it holds no job
    a_jobs_folder(tmp_path, "other")
    (tmp_path / "netsim-link").symlink_to(left)
    (found,) = left_in(tmp_path)
    assert found == Leftover("folder", str(left))
    found.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "netsim-elsewhere",
        "netsim-link",
        "netsim-young",
        "other",
    ]


def test_a_process_that_lost_its_launcher_is_found_and_ended_but_not_one_whose_launcher_runs(tmp_path: Path) -> None:
    folder = a_jobs_folder(tmp_path, "netsim-job")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def rank_of(launcher: int) -> subprocess.Popen[bytes]:
        environment = os.environ | {JOB: str(folder), LAUNCHER: str(launcher)}
        return subprocess.Popen(["sleep", "60"], env=environment)

    ours, orphan = rank_of(os.getpid()), rank_of(gone.pid)
    try:
        found = leftovers(tmp_path)
        assert Leftover("process", str(orphan.pid)) in found
        assert Leftover("process", str(ours.pid)) not in found
        assert Leftover("folder", str(folder)) not in found  # a run uses it
        Leftover("process", str(orphan.pid)).remove()
        assert orphan.wait(60) < 0
        ours.kill()
        ours.wait()
        assert left_in(tmp_path) == [Leftover("folder", str(folder))]
    finally:
        for process in (ours, orphan):
            process.kill()
            process.wait()


def test_a_folder_left_by_sigkill_is_offered_and_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = a_jobs_folder(tmp_path, "netsim-left")
    ran = run(capsys, "doctor")
    assert ran.code == 0
    assert "netsim doctor --clean" in ran.out
    document = json.loads(run(capsys, "doctor --clean --json").out)
    assert document["removed"]
    assert {"what": "folder", "name": str(folder)} in document["leftovers"]
    assert not folder.exists()


@pytest.mark.real
@pytest.mark.skipif(bool(why_no_cluster()), reason=why_no_cluster())
@pytest.mark.slow
def test_a_validation_that_is_killed_leaves_a_folder_that_the_doctor_finds_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netsim.testbed.doctor.FRESH_S", -1.0)
    command = [
        sys.executable,
        "-m",
        "netsim",
        "validate",
        "--local",
        "2",
        "--bandwidth",
        "1Mbps",
        "--algorithm",
        "none",
    ]
    launcher = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob("netsim-*/rendezvous")) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        launcher.kill()
        launcher.wait()
    while [each for each in left_in(tmp_path) if each.what == "process"] and time.monotonic() < deadline:
        time.sleep(0.05)
    (left,) = left_in(tmp_path)  # the kernel ended host and ranks, and with them went namespaces and cables
    assert left.what == "folder"
    left.remove()
    assert not list(tmp_path.iterdir())


def test_the_doctor_finds_what_the_machine_has(capsys: pytest.CaptureFixture[str]) -> None:
    findings = {each["name"]: each for each in json.loads(run(capsys, "doctor --json").out)["findings"]}
    assert findings["ip"]["state"] == (
        "ok" if shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") else "missing"
    )
    assert findings["gloo"]["state"] == "ok"
    assert findings["packages"]["state"] == "ok"
    if not why_no_cluster():
        assert findings["namespaces"]["state"] == "ok"


@pytest.mark.skipif(bool(why_no_cluster()), reason=why_no_cluster())
def test_latency_needs_netem_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    findings = {each["name"]: each for each in json.loads(run(capsys, "doctor --json").out)["findings"]}
    options = "--exchange ps-in --algorithm none --sizes 1KB --repeats 1 --tolerance 100000% --json"
    ran = run(capsys, f"validate --local 2 --bandwidth 50Mbps --latency 5ms {options}")
    if findings["netem"]["state"] == "ok":
        assert ran.code == 0
        assert json.loads(ran.out)["comparison"][0]["measured_s"] > 5e-3
    else:
        assert ran.code == 3
        assert "no netem" in ran.err


def test_links_without_latency_have_no_netem_and_those_with_it_have() -> None:
    plain, far = (Cluster(ranks=3, bandwidth_bps=10**7, latency_s=latency) for latency in (0.0, 0.005))
    assert "netem" not in plan.host_shaping(plain, 0)
    assert plan.host_shaping(far, 0).count("netem delay 5000us") == 3  # both peers' classes and that of ACKs
    assert "netem" not in plan.switch_shaping(far)  # once a way


BUILT = """
from pathlib import Path
from netsim.cluster.namespaces import become_owner, build, within
from netsim.cluster.plan import Cluster
become_owner()
hosts = build(Cluster(ranks=8, bandwidth_bps=50_000_000))
filters = list(Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"))
assert all(filter.read_text().split() == ["0"] for filter in filters), filters
with within(hosts[3]):
    print(Path("/proc/sys/net/ipv4/tcp_min_tso_segs").read_text())
"""


@pytest.mark.skipif(bool(why_no_cluster()), reason=why_no_cluster())
def test_hosts_hand_on_frames_in_groups_past_no_firewall() -> None:
    ran = subprocess.run([sys.executable, "-c", BUILT], capture_output=True, text=True, check=False)
    assert (ran.stdout.split(), ran.stderr) == (["4"], "")


def test_numba_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 2.5.")

    pytest.importorskip("numba")
    assert doctor._numba().state == "ok"
    monkeypatch.setattr(doctor, "compiler", refuse)
    found = doctor._numba()
    assert (found.state, "needs NumPy 2.4 or less" in found.found) == ("missing", True)
