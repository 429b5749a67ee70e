"""While a command is at work, none of its processes listens anywhere but on loopback, or inside a cluster of its own.

The oracle is the kernel's: /proc/net/tcp and tcp6 of every process, looked at all the time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from netsim._util.system import listening
from tests.cluster import why_no_cluster
from tests.faults import descendants, namespace

SWEEP = """
study = "sweep"
[settings.fixed]
algorithm = "gtopk"
timing_only = true
elements = 1000
workers = 4
[settings.vary]
k = [1, 2, 3]
"""
REAL, SLOW = pytest.mark.real, pytest.mark.slow
COMMANDS = [
    pytest.param("run --nproc 2 --algorithm dense --rounds 3", id="run", marks=REAL),
    pytest.param("study own.toml --jobs 2 --out out", id="study"),
    pytest.param("calibrate --out profile.toml", id="calibrate", marks=[REAL, SLOW]),
    pytest.param(
        "validate --local 2 --sizes 100KB --exchange none --algorithm dense --repeats 1",
        id="validate",
        marks=[REAL, SLOW],
    ),
]


def listeners(process: subprocess.Popen[str]) -> dict[str, str]:
    """Return each address at which a process of a command listened, until it ended, with its network namespace."""
    found = {}
    while process.poll() is None:
        for pid in [process.pid, *descendants(process.pid)]:
            inside, addresses = namespace(pid), [address for address, _ in listening(pid)]
            if inside == namespace(pid):  # it may have gone into a namespace of its own in between
                found |= dict.fromkeys(addresses, inside)
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.slow
def test_nothing_listens_off_loopback(tmp_path: Path, command: str) -> None:
    if command.startswith("validate") and (why := why_no_cluster()):
        pytest.skip(why)
    (tmp_path / "own.toml").write_text(SWEEP)
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "netsim", *command.split()], cwd=tmp_path, stdout=said, stderr=said, text=True
        )
        found = listeners(process)
    assert process.returncode in (0, 4), (tmp_path / "said").read_text()
    here = namespace(os.getpid())
    assert [
        address for address, inside in found.items() if inside == here and not ip_address(address).is_loopback
    ] == []
    if not command.startswith("study"):
        assert found, "ranks connect to each other, so somebody listens"


def test_somebody_who_listens_everywhere_would_be_seen() -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("", 0))
        everywhere.listen()
        assert ("0.0.0.0", everywhere.getsockname()[1]) in listening(os.getpid())
