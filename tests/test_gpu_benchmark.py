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
SUMMARY = CHECK.with_name("summary.py")
here = pytest.mark.skipif(not CHECK.exists(), reason="the benchmarks are in the checkout only")


@pytest.mark.slow
@pytest.mark.real
@here
def test_the_script_runs_all_parts_and_compares_bits(tmp_path: Path) -> None:
    given = {"DEVICE": "cpu", "SMALL": "1", "OUT": str(tmp_path), "PYTHON": sys.executable}
    subprocess.run(["bash", str(CHECK)], cwd=ROOT, env=os.environ | given, check=True, capture_output=True, timeout=300)
    parts = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert [part["part"] for part in parts] == ["ready", "simulate-2", "run-2", "bench-ceilings", "bench-selection"]
    assert [part["exit"] for part in parts] == [0] * 5, (tmp_path / "log.txt").read_text()
    summary = (tmp_path / "summary.txt").read_text()
    assert "simulate-2 and run-2, dense: yes" in summary
    assert "simulate-2 and run-2, gtopk: yes" in summary
    bench = [json.loads(line) for line in (tmp_path / "bench.txt").read_text().splitlines() if line.startswith("{")]
    assert [row for row in bench if "failed" in row or "left out" in row] == []
    assert {"P gradients", "select P rows", "charge", "gtopk round"} <= {row.get("what") for row in bench}


def rows(values: dict[tuple[str, str], float]) -> str:
    """Return what bench.py prints of a GPU and 64 workers."""
    measured = [
        {"what": what, "model": model, "value": value, "workers": 64} for (what, model), value in values.items()
    ]
    return "".join(json.dumps(row) + "\n" for row in [{"environment": {"device": "cuda:0"}}, *measured])


@here
def test_the_summary_judges_what_was_measured_before_a_process_was_killed(tmp_path: Path) -> None:
    bits = "share of gradients with the bits that they have alone"
    measured = {
        ("P gradients", "fc-mnist"): 0.1, ("plain loop", "fc-mnist"): 1.0, (bits, "fc-mnist"): 1.0,
        ("CUDA graphs", "fc-mnist"): 4.0,
        ("P gradients", "resnet20"): 0.1, ("plain loop", "resnet20"): 1.0, (bits, "resnet20"): 0.5,
        ("P gradients", "resnet18"): 0.6, ("plain loop", "resnet18"): 1.0, (bits, "resnet18"): 1.0,
        ("CUDA graphs", "resnet18"): 2.0,
        ("charge", "fc-mnist"): 0.8, ("charge by hand", "fc-mnist"): 1.0,
    }  # fmt: skip
    (tmp_path / "bench.txt").write_text(rows(measured) + '{"what": "P gradi')
    results = [{"algorithm": "gtopk", "parameters_sha256": "1", "final_loss": 0.5}]
    for result in results:
        result |= {f"{part}_time_s": 1.0 for part in ("round", "compute", "select", "comm")}
    report = {"name": "simulate-2", "report": {"results": results, "environment": {}}}
    failed = {"name": "run-2", "failed": "no such file"}
    (tmp_path / "reports.jsonl").write_text(f"{json.dumps(report)}\n{json.dumps(failed)}\n")
    text = subprocess.run([sys.executable, SUMMARY, "summary", tmp_path], check=True, capture_output=True, text=True)
    told = [line for line in text.stdout.splitlines() if line.startswith(("| gradients", "| MEASURED"))]
    assert [line.split(" | ")[1:] for line in told] == [
        ["fc-mnist", "0.2", "0.1", "yes |"],
        ["resnet20", "0.2", "0.1", f"no ({bits}: 0.5, CUDA graphs: 0) |"],
        ["resnet18", "0.5", "0.6", "no |"],
        ["fc-mnist", "1.1", "0.8", "no |"],
        ["resnet20", "1.1", "not measured", " |"],
        ["resnet18", "1.1", "not measured", " |"],
    ]
    assert "simulate-2 and run-2, gtopk: not compared" in text.stdout
    assert f"{bits}, resnet20: 0.5" in text.stdout
