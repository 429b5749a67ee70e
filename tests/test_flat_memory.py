"""Memory does not grow with the number of messages."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = """
import sys, simpy
from pathlib import Path
from netsim.network.fabric import Fabric
from netsim.network.flows import Network
from topologies import build
from topologies.builder import Shape

HOSTS, MESSAGES, SOLVER = 8, int(sys.argv[1]), sys.argv[2]
fabric = Fabric(build("star", Shape(HOSTS, 10**9, 50e-6)))
environment = simpy.Environment(initial_time=0)
network = Network(environment, solver=SOLVER)
ended = 0

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def keep_sending(src, targets):
    # Of ranks 0 to 3 each has a receiver of its own; ranks 4 to 7 send to each other, and share links.
    routes = [fabric.route(fabric.hosts[src], fabric.hosts[dst]) for dst in targets]
    sent = 0
    def done(_):
        nonlocal sent
        global ended
        ended += 1
        sent += 1
        if ended + HOSTS <= MESSAGES:
            if ended == MESSAGES // 10:
                print(resident())
            network.start(routes[sent % len(routes)], 1000 + 7 * (sent % 100), done)
    network.start(routes[0], 1000, done)

for src in range(4):
    keep_sending(src, [(src + 1) % 4])
for src in range(4, HOSTS):
    keep_sending(src, [4 + (src - 3 + step) % 4 for step in range(3)])
environment.run()
print(resident(), ended)
"""


def grown(messages: int, solver: str) -> int:
    """Return by how many bytes a process grew from a tenth of the messages to the last."""
    command = [sys.executable, "-c", PROGRAM, str(messages), solver]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert ran.returncode == 0, ran.stderr
    before, after, ended = map(int, ran.stdout.split())
    assert ended == messages
    return after - before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize("solver", ["python", *["compiled"] * (find_spec("numba") is not None)])
def test_a_hundred_thousand_messages_leave_nothing_behind(solver: str) -> None:
    # A message that left 20 bytes behind would leave 1.8 MB.
    assert grown(100_000, solver) < 1_500_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_two_million_messages_leave_nothing_behind() -> None:
    # A message that left 2 bytes behind would leave 3.6 MB.
    assert grown(2_000_000, "auto") < 2_000_000
