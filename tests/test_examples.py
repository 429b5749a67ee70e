"""The scripts of the folder ``examples`` run, and show what they say that they show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWN = {
    "ddp.py": ["after 20 steps", "bytes sent by rank 0"],
    "eight_machines.py": ["dense (hierarchical)", "gTop-k (hierarchical)"],
    "own_sparsifier.py": ["threshold (share 0.3)", "Training loss after 10 rounds"],
    "sweep.py": ["gTop-k is faster from P = {'10Gbps': 8, '1Gbps': 8}"],
}
"""What a script prints. By their closed forms 2 log₂P is less than P - 1 from P = 8 on, among powers of two."""
DRAWN = {"eight_machines.py": "eight_machines.svg", "own_sparsifier.py": "own_sparsifier.svg"}
pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="the tests run away from the sources, without examples")


def test_every_script_is_run_and_short() -> None:
    scripts = {path.name: path.read_text().splitlines() for path in EXAMPLES.glob("*.py")}
    assert scripts.keys() == SHOWN.keys()
    assert all(len(lines) <= 60 for lines in scripts.values())


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", SHOWN)
def test_a_script_runs_and_shows_what_it_says(name: str, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if name == "ddp.py" else []
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *torchrun, os.fspath(EXAMPLES / name)]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [text for text in SHOWN[name] if text not in ran.stdout] == []
    if name in DRAWN:
        assert (tmp_path / DRAWN[name]).read_text().count("<path")
