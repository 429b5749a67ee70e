"""Writes the summary of ``check.sh``: which parts failed, which runs ended with the same bits, and the goals.

python benchmarks/gpu/summary.py summary gpu-results
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from goals import GOALS, judged

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
    asked = {row["name"] for row in read(folder / "reports.jsonl")}
    for one, other in SAME:
        algorithms = sorted({algorithm for name, algorithm in found if name in (one, other)})
        for algorithm in algorithms:
            twins = [found.get((name, algorithm)) for name in (one, other)]
            yield f"{one} and {other}, {algorithm}: {_same(*twins)}"
        if not algorithms and {one, other} & asked:
            yield f"{one} and {other}: not compared"
    yield from costs(folder / "bench.txt")


def _same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    if one is None or other is None:
        return "not compared"
    return "yes" if one["parameters_sha256"] == other["parameters_sha256"] else "NO"


def costs(path: Path) -> Iterator[str]:
    """Yield the goals and what they rest on, from what ``bench.py`` printed before it ended, or was ended."""
    text = path.read_text() if path.exists() else ""
    rows = [json.loads(each) for each in text.splitlines() if each.startswith("{") and each.endswith("}")]
    found = {(row["what"], row["model"]): row["value"] for row in rows if "value" in row}
    yield "== costs"
    yield from (json.dumps(row) for row in rows if "value" not in row)  # the environment, what failed or was left out
    for (what, model), value in found.items():
        if any(what == name for goal in GOALS for name, _ in goal.needs):
            yield f"{what}, {model}: {value:g}"
    yield "== goals"
    on_gpu = any(row["environment"]["device"].startswith("cuda") for row in rows if "environment" in row)
    whole = on_gpu and any(row.get("workers", 0) >= 64 for row in rows)
    yield from judged(found) if whole else ["The goals are for a GPU and 64 workers."]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["line", name, path]:
            print(line(name, Path(path)))
        case ["summary", folder]:
            print("\n".join(summary(Path(folder))))
        case _:
            sys.exit(__doc__)
