"""The work of benchmarks/network.py, in every way, against closed forms and against SimGrid itself."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are in the checkout only")


@pytest.fixture(scope="module")
def network() -> ModuleType:
    spec = importlib.util.spec_from_file_location("network_benchmark", BENCHMARKS / "network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ran(*command: object) -> dict[str, Any]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_ring_a_tree_a_gather_and_a_server_take_what_arithmetic_says() -> None:
    """1 Gbit/s, 50 µs from host to host: seconds by hand for 4 workers, and bytes of whole values."""
    a, b = 50e-6, 8e-9
    expected = {
        "w1": 6 * (a + 25_000_000 * b),
        "w2": 4 * (a + 200_000 * b),
        "w3": 3 * (a + 200_000 * b),
        "w4": (a + 3 * 200_000 * b) + (a + 3 * 100_000_000 * b),
    }
    for way in ("events", "algorithms", "batched"):
        for work, seconds in expected.items():
            found = ran(sys.executable, BENCHMARKS / "network_ways.py", work, 4, way)
            assert found["end_s"] == pytest.approx(seconds, rel=1e-9), (work, way)
            assert found["messages"] == {"w1": 24, "w2": 6, "w3": 12, "w4": 6}[work]


@pytest.mark.slow
@pytest.mark.parametrize(("work", "workers"), [("W5", 256), ("W5x", 64)])
def test_random_traffic_ends_when_simgrid_says(network: ModuleType, tmp_path: Path, work: str, workers: int) -> None:
    command = network.compiled(tmp_path)
    if command is None:
        pytest.skip("SimGrid's C++ library or g++ is not installed (apt install g++ libsimgrid-dev)")
    traffic = tmp_path / "traffic"
    network.write_traffic(traffic, work, workers)
    theirs = ran(*command, "w5", workers, traffic)
    ours = ran(sys.executable, BENCHMARKS / "network_ways.py", "w5", workers, "events", traffic)
    assert len(ours["finish_s"]) == ours["messages"] == theirs["messages"] > workers / 2
    np.testing.assert_allclose(ours["finish_s"], theirs["finish_s"], rtol=0, atol=1e-9)
