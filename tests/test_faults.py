"""Real runs that fail say who, in which operation and step, end in time, and leave nothing behind.

:mod:`tests.faults` makes the faults. One happens in the quick part; the slow part has all, each once and several
times.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from netsim._util.system import listening
from tests.cluster import why_no_cluster
from tests.faults import CUT_S, EMPTY, FAULTS, STOPS, TIMEOUT_S, WORLDS, alive, descendants, wait_until
from tests.ports import free_port

pytestmark = pytest.mark.real

HOLD_SECONDS = "NETSIM_HOLD_SECONDS" in os.environ
"""Whether promises about seconds are held. A machine that does other things keeps none, so only CI asks for it."""
MARGIN_S = 2.0
"""On an idle machine a failure is named within the timeout and this."""
REPEATS = int(os.environ.get("NETSIM_FAULTS", "3"))
"""Simultaneous runs of each fault; docs/real-runs.md tells of ten."""
HANG_S = 120.0
"""What takes longer never ends, on whatever machine."""
WHERE = r"rank \d, (ring_reduce_scatter|ring_all_gather|ring_all_reduce|tree_reduce|point-to-point), step \d+"
JOINING = r"rank \d, joining the group of \d, before step 0: "
EXPECTED = {
    EMPTY: (0, ""),
    "killed": (1, rf"^rank 2 was killed by SIGKILL; {WHERE}"),
    "stopped": (1, rf"^rank 1 is stopped.*; {WHERE}, .*rank 1"),
    "interrupted": (130, ""),
    "terminated": (130, ""),
    "launcher-killed": (-9, ""),
    "launcher-stopped-and-killed": (-9, ""),
    "host-stopped": (1, r"^the host of the ranks is stopped.*; rank 0 had ended beat, step \d+"),
    "host-stopped-forking": (1, r"^the host of the ranks is stopped.*; rank \d, joining the group of 3, before step 0"),
    "locked": (1, JOINING + "it did not go on within 3 s; another process holds the lock of .*rendezvous"),
    "host-killed": (1, r"^the host of the ranks was killed by SIGKILL; rank 0 had ended beat, step \d+"),
    "link-down": (1, rf"{WHERE}, (receiving from|sending to|sending to rank \d and receiving from) rank \d"),
    "link-cut": (0, ""),
    "killed-in-namespace": (1, rf"^rank 2 was killed by SIGKILL; {WHERE}"),
    "launcher-killed-in-namespace": (-9, ""),
    "odd-size": (1, rf"{WHERE}, (receiving from|sending to) rank \d: .* (333|334) elements of float32"),
    "odd-dtype": (1, rf"{WHERE}, (receiving from|sending to) rank \d: .* of float64"),
    "odd-operation": (1, rf"{WHERE}.*expected ring_reduce_scatter|rank 1, tree_reduce, step 5"),
    "odd-step": (1, rf"{WHERE}.*(step 6, tag 0, expected .*step 5|step 5, tag 0, expected .*step 6)"),
    "wrong-world": (1, JOINING),
    "missing-rank": (1, JOINING),
    "other-options": (1, JOINING + r"rank \d has algorithms \['(dense|gtopk)'\], this rank \['(gtopk|dense)'\]"),
} | {name: (1, rf"^rank {rank} is stopped \(.*\); rank \d") for name, (rank, _) in STOPS.items()}
"""Exit status and message. Of what differs, who waits for whom decides what is noticed first, and by whom."""
PROMISED_S = {
    "interrupted": 0.0,
    "terminated": 0.0,
    "launcher-killed": 0.0,
    "launcher-killed-in-namespace": 0.0,
    "launcher-stopped-and-killed": 0.0,
    "link-cut": 13.0,  # it goes on, once TCP has tried again
}
"""How long each takes at most beyond the margin; all others end with the timeout."""


def happen(faults: list[str], repeats: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "tests.faults", ",".join(faults), str(repeats), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    happened: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return happened


def in_namespaces(fault: str) -> bool:
    return fault in FAULTS and FAULTS[fault][1] is not None


def several_at_once() -> list[list[str]]:
    """Return the faults in groups of about 15 runs."""
    faults = [fault for fault in EXPECTED if fault not in STOPS and fault != EMPTY]
    most = max(1, 15 // REPEATS)
    return [faults[start : start + most] for start in range(0, len(faults), most)]


def margin_s(happened: dict[str, list[dict[str, Any]]]) -> float:
    """Return how much later than promised a failure may be named.

    On a busy machine it may take as much longer as a whole run without a fault takes beside it.
    """
    if not HOLD_SECONDS:
        return math.inf
    return max(MARGIN_S, *(outcome["whole_s"] for outcome in happened[EMPTY]))


def judge(fault: str, outcome: dict[str, Any], margin_s: float) -> None:
    code, message = EXPECTED[fault]
    assert outcome["code"] == code, outcome
    assert re.search(message, outcome["message"]), outcome
    assert "Traceback" not in outcome["message"], outcome
    timeout_s = FAULTS[fault][0]["timeout_s"] if fault in FAULTS else TIMEOUT_S
    assert outcome["seconds"] <= PROMISED_S.get(fault, timeout_s) + margin_s, outcome
    for left in ("left", "ports_left", "namespaces_left"):
        assert outcome[left] == [], outcome
    # The oracle is /proc/net/tcp and tcp6 of every rank, as it runs.
    if fault == "stopped":
        assert (outcome["ranks"], outcome["listening"]) == (3, ["127.0.0.1"])
    if fault == "link-down":
        assert outcome["listening"] == ["10.77.0.1", "10.77.0.2", "10.77.0.3"]
    if fault == "link-cut":
        assert outcome["steps_cut"] == 0, "the cut did not touch the run"
        assert outcome["seconds"] > CUT_S, "it ended before the link returned"
    if outcome["code"] != -signal.SIGKILL:  # SIGKILL leaves it no time to remove its folder
        assert outcome["folders_left"] == [], outcome


def test_every_fault_is_judged() -> None:
    assert set(EXPECTED) == set(FAULTS) | set(WORLDS)


def test_a_killed_rank_is_named(tmp_path: Path) -> None:
    judge("killed", happen(["killed"], 1, tmp_path)["killed"][0], margin_s=math.inf)


@pytest.mark.slow
def test_all_stops_of_a_rank_end_the_run_in_time(tmp_path: Path) -> None:
    """A rank stops at each of the 27 moments; nine runs at a time, and one without a fault beside them."""
    for start in range(0, len(STOPS), 9):
        faults = sorted(STOPS)[start : start + 9]
        (folder := tmp_path / str(start)).mkdir()
        happened = happen([EMPTY, *faults], 1, folder)
        for fault in faults:
            judge(fault, happened[fault][0], margin_s(happened))


@pytest.mark.slow
@pytest.mark.parametrize("faults", several_at_once())
def test_faults_are_named_in_time_in_each_of_several_runs_and_leave_nothing(faults: list[str], tmp_path: Path) -> None:
    """Some faults at the same time, each in several runs: to start them takes longer than they do."""
    faults = [fault for fault in faults if not (in_namespaces(fault) and why_no_cluster())]
    happened = happen([EMPTY, *faults], REPEATS, tmp_path)
    for fault in [EMPTY, *faults]:
        assert len(happened[fault]) == (1 if fault == EMPTY else REPEATS * len(WORLDS.get(fault, "1")))
        for outcome in happened[fault]:
            judge(fault, outcome, margin_s(happened))


def torchrun(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start two ranks with torchrun, and wait until they train."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["netsim", "run", "--algorithm", "dense", "--rounds", "1000000", "--timeout", "5s", *options]
    with (folder / "said").open("w") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, text=True, cwd=folder)


def ranks_of(agent: subprocess.Popen[str], folder: Path) -> list[int]:
    """Return the ranks' processes in the order of ranks, once rank 0 has said where it listens."""
    wait_until(lambda: "rank 0 listens" in (folder / "said").read_text() or agent.poll() is not None)
    return sorted((pid for pid in descendants(agent.pid) if listening(pid)), key=rank_of)


def rank_of(pid: int) -> str:
    """Return the rank that torchrun gave to a process; the numbers of processes begin again at some time."""
    return next(each for each in Path(f"/proc/{pid}/environ").read_text().split("\0") if each.startswith("RANK="))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "number", "named"),
    [
        ("agent", signal.SIGKILL, ""),
        ("agent", signal.SIGINT, r"rank \d, .*step \d+.*: ended by SIG(INT|TERM)"),
        ("rank", signal.SIGKILL, r"rank \d, .*step \d+"),
        ("rank", signal.SIGSTOP, r"rank 0, .*step \d+.*for 5 s"),
    ],
)
def test_under_torchrun_too_no_rank_is_left(tmp_path: Path, who: str, number: signal.Signals, named: str) -> None:
    began = time.monotonic()
    agent = torchrun(tmp_path)
    ranks = ranks_of(agent, tmp_path)
    starting_s = time.monotonic() - began  # how fast this machine is in this minute
    assert len(ranks) == 2, (tmp_path / "said").read_text()
    addresses = {address for pid in ranks for address, _ in listening(pid)}
    assert addresses == {"127.0.0.1"}
    os.kill(agent.pid if who == "agent" else ranks[1], number)
    others = ranks if who == "agent" else ranks[:1]
    # A rank that was still loading waits for the stopped one only after that, for the timeout of 5 s.
    promised_s = 0.0 if number in (signal.SIGKILL, signal.SIGINT) else starting_s + 5.0
    limit_s = promised_s + max(MARGIN_S, starting_s) if HOLD_SECONDS else HANG_S
    wait_until(lambda: not any(map(alive, others)), limit_s)
    left = [pid for pid in others if alive(pid)]
    for pid in [agent.pid, *ranks]:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    agent.wait()
    said = (tmp_path / "said").read_text()
    assert left == [], said
    assert re.search(named, said), said


@pytest.mark.slow
def test_a_rank_that_serves_the_meeting_place_listens_there_alone_and_heeds_an_interrupt(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "netsim", "run", "--algorithm", "dense", "--rounds", "1"]
    rank = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: bool(listening(rank.pid)) or rank.poll() is not None)
    assert listening(rank.pid) == [("127.0.0.1", port)]
    rank.send_signal(signal.SIGINT)
    _, said = rank.communicate(timeout=HANG_S)
    assert rank.returncode == 130
    assert "rank 0, joining the group of 2, before step 0: ended by SIGINT" in said
