"""benchmarks/gpu/check.sh asks a GPU everything in one command; here it is tried on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = ROOT / "benchmarks" / "gpu" / "check.sh"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not CHECK.exists(), reason="the benchmarks are in the checkout only")
def test_the_script_runs_all_parts_and_compares_bits(tmp_path: Path) -> None:
    given = {"DEVICE": "cpu", "SMALL": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    subprocess.run(["bash", str(CHECK)], cwd=ROOT, env=os.environ | given, check=True, capture_output=True, timeout=300)
    parts = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert [part["part"] for part in parts] == ["simulate-2", "run-2", "bench"]
    assert [part["exit"] for part in parts] == [0, 0, 0], (tmp_path / "log.txt").read_text()
    summary = (tmp_path / "summary.txt").read_text()
    assert "simulate-2 and run-2, dense: yes" in summary
    assert "simulate-2 and run-2, gtopk: yes" in summary
    bench = [json.loads(line) for line in (tmp_path / "bench.txt").read_text().splitlines() if line.startswith("{")]
    assert [row for row in bench if "failed" in row or "left out" in row] == []
    assert {"P gradients", "select P rows", "charge", "gtopk round"} <= {row.get("what") for row in bench}
