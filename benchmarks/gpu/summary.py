"""Writes the summary of ``check.sh``: which parts failed, which runs ended with the same bits, and the goals.

python benchmarks/gpu/summary.py summary gpu-results
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAME = (
    ("simulate-2", "run-2"),
    ("simulate-2", "simulate-2-again"),
    ("simulate-1", "run-1-nccl"),
    ("simulate-2-resnet20", "run-2-resnet20"),
    ("simulate-2-char-lstm", "run-2-char-lstm"),
    ("simulate-2-overlap", "run-2-overlap"),
)
"""Pairs of runs that must end with the same parameters, bit for bit."""


def line(name: str, path: Path) -> str:
    """Return a report as one line of JSON, with its name; or that there is none."""
    try:
        return json.dumps({"name": name, "report": json.loads(path.read_text())})
    except (OSError, ValueError) as error:
        return json.dumps({"name": name, "failed": str(error)[:200]})


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; none if it was not written."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def summary(folder: Path) -> Iterator[str]:
    """Yield the lines of the summary."""
    yield "== parts"
    for part in read(folder / "parts.jsonl"):
        yield "  ".join(f"{name} {value}" for name, value in part.items())
    found: dict[tuple[str, str], dict[str, Any]] = {}
    yield "== runs"
    for row in read(folder / "reports.jsonl"):
        if "report" not in row:
            yield f"{row['name']}: no report ({row['failed']})"
            continue
        for result in row["report"]["results"]:
            found[row["name"], result["algorithm"]] = result
            times = (
                f"{part} {1e3 * result[f'{part}_time_s']:.3f} ms" for part in ("round", "compute", "select", "comm")
            )
            yield f"{row['name']}  {result['algorithm']}  {'  '.join(times)}  loss {result['final_loss']}"
        yield f"    {json.dumps(row['report']['environment'])}"
    yield "== same bits"
    for one, other in SAME:
        for (name, algorithm), result in found.items():
            if name == one and (twin := found.get((other, algorithm))) is not None:
                same = result["parameters_sha256"] == twin["parameters_sha256"]
                yield f"{one} and {other}, {algorithm}: {'yes' if same else 'NO'}"
    yield "== goals"
    bench = folder / "bench.txt"
    lines = bench.read_text().splitlines() if bench.exists() else []
    yield from (text for text in lines if not text.startswith("{") or '"failed"' in text)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["line", name, path]:
            print(line(name, Path(path)))
        case ["summary", folder]:
            print("\n".join(summary(Path(folder))))
        case _:
            sys.exit(__doc__)
