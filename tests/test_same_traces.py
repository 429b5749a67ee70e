"""The same traffic gives the same instants to the picosecond: in every process, and however many run at once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pytest
import simpy

from netsim.network.fabric import Fabric
from netsim.network.flow import Sharing
from netsim.network.flows import Flow, Network, Solver
from topologies import build
from topologies.builder import Shape

SOLVERS: list[Solver] = ["python", "auto", "compiled"] if find_spec("numba") else ["python", "auto"]
SHARINGS: list[Sharing] = ["maxmin", "rtt"]
HOSTS = 48


def trace(seed: int, solver: Solver, sharing: Sharing, topology: str = "racks:size=8") -> str:
    """Return a digest of when each of 400 random flows ended, in which order, and what held it back for how long."""
    random = np.random.default_rng(seed)
    fabric = Fabric(build(topology, Shape(HOSTS, 10**9, 50e-6)))
    environment = simpy.Environment(initial_time=0)
    network = Network(environment, sharing, solver)
    digest = hashlib.sha256()

    def start(number: int, src: int, dst: int, nbytes: int) -> None:
        def done(flow: Flow) -> None:
            held = [(getattr(at, "name", at), time) for at, time in flow.bottlenecks]
            digest.update(f"{number} {environment.now} {held}\n".encode())

        network.start(fabric.route(fabric.hosts[src], fabric.hosts[dst]), nbytes, done)

    for number in range(400):
        src, dst = (int(host) for host in random.choice(HOSTS, 2, replace=False))
        nbytes, at = int(random.lognormal(11, 1.5)), int(random.integers(0, 10**10))
        # Every fourth starts at a round time, so that some coincide.
        instant = at // 10**9 * 10**9 if number % 4 == 0 else at
        call = (number, src, dst, nbytes)
        environment.timeout(instant, call).callbacks.append(lambda timeout: start(*timeout.value))
    environment.run()
    return digest.hexdigest()


def traces() -> dict[str, str]:
    """Return the digest by solver and sharing."""
    return {f"{solver} {sharing}": trace(3, solver, sharing) for solver in SOLVERS for sharing in SHARINGS}


@pytest.mark.slow
def test_a_trace_is_the_same_in_every_process() -> None:
    """A process imports for as long as the traces take, so each makes all of them."""
    here = traces()
    script = "import json; from tests.test_same_traces import traces; print(json.dumps(traces()))"
    for hash_seed in ("0", "1", "random"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout) == here
    for solver in SOLVERS:
        for sharing in SHARINGS:
            assert trace(4, solver, sharing) not in here.values()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.slow
def test_a_trace_is_the_same_however_many_processes_there_are(solver: Solver) -> None:
    points = [joblib.delayed(trace)(seed, solver, "maxmin", "fat-tree") for seed in range(4)]
    one, two, three = (joblib.Parallel(n_jobs=jobs)(points) for jobs in (1, 2, 3))
    assert one == two == three
    assert len(set(one)) == 4
