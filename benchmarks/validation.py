"""The accuracy table of docs/validation.md: a real cluster on this machine against the model, piece by piece.

    python benchmarks/validation.py FOLDER [PIECE...]      measure pieces (all, if none is named) that FOLDER lacks
    python benchmarks/validation.py FOLDER ablation        measure the pieces that benchmarks/ablation.py asks for
    python benchmarks/validation.py FOLDER --again         predict what FOLDER has once more, with the model as it is
    python benchmarks/validation.py FOLDER --table         print the table of what FOLDER has, as Markdown

A piece is one call of netsim validate and takes up to four minutes. Nothing else should run on the machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from netsim.cli.main import main as netsim

EXCHANGES = "--algorithm none --tolerance 1000%"
ROUNDS = "--exchange none --tolerance 1000%"
FAMILY = "dense,dense-tree,topk,gtopk,gtopk-naive,gtopk-hier,randk"
SERVER = "ps,ps-topk,lag,lasg-wk1,lasg-wk2,lasg-ps,sasg"
ORDERED = {"ring-all-reduce": "dense", "all-gather": "Top-k", "gtopk-tree": "gTop-k"}
"""Exchanges whose order is predicted and measured, and the algorithms that make them."""
DENSE = 1_000_000
"""Bytes of the dense vector in those exchanges."""
SIZES = {"400 kB and more": (400_000, 10**9), "100 to 200 kB": (100_000, 400_000), "1 to 40 kB": (0, 100_000)}
"""Bins of the vector's bytes: the least, and the bound above."""
LIMIT = 800
"""Bandwidth of all ranks' links in all, in Mbit/s, from which on two cores are too busy with packets."""
ABLATION = (
    *("small-4-100", "small-8-50", "middle-4-50", "middle-4-100", "middle-8-50", "middle-16-25"),
    *("large-4-100", "large-8-50"),
)
"""Pieces for an ablation, which take some six minutes: all exchanges at 4, 8 and 16 ranks, below LIMIT."""


def pieces() -> dict[str, str]:
    """Return the arguments of ``netsim validate`` for every piece by its name."""
    arguments: dict[str, str] = {}
    for ranks, rate in ((4, 25), (4, 50), (4, 100), (8, 25), (8, 50), (8, 100), (16, 25), (16, 50), (16, 100)):
        slow = ranks * 100 / rate  # in proportion to the time that a byte takes
        where = f"--local {ranks} --bandwidth {rate}Mbps {EXCHANGES}"
        arguments[f"small-{ranks}-{rate}"] = f"{where} --sizes 1KB,10KB,40KB --repeats 7"
        arguments[f"middle-{ranks}-{rate}"] = f"{where} --sizes 100KB,200KB --repeats 7"
        sizes = "400KB,1MB" if slow <= 8 else "400KB"
        arguments[f"large-{ranks}-{rate}"] = f"{where} --sizes {sizes} --repeats {5 if ranks < 16 else 7}"
    for ranks, rate, repeats in ((4, 50, 3), (4, 100, 5), (8, 50, 3), (8, 100, 3), (16, 50, 5)):
        where = f"--local {ranks} --bandwidth {rate}Mbps {EXCHANGES}"
        arguments[f"2MB-{ranks}-{rate}"] = f"{where} --sizes 2MB --repeats {repeats}"
    arguments["8MB-4-100"] = f"--local 4 --bandwidth 100Mbps {EXCHANGES} --sizes 8MB --repeats 3"
    arguments["8MB-8-100"] = f"--local 8 --bandwidth 100Mbps {EXCHANGES} --sizes 8MB --repeats 3"
    for ranks, rate in ((4, 50), (8, 100), (16, 50)):
        where = f"--local {ranks} --bandwidth {rate}Mbps --shaping tbf {EXCHANGES}"
        arguments[f"tbf-{ranks}-{rate}"] = f"{where} --sizes 100KB,400KB --repeats 3"
    for placement in ("contiguous", "interleaved"):
        where = f"--local 8 --bandwidth 50Mbps --trunk 50Mbps --placement {placement} {EXCHANGES}"
        arguments[f"racks-{placement}"] = f"{where} --sizes 400KB --repeats 3"
        arguments[f"flows-{placement}"] = f"{where} --sizes 1MB --exchange permutation --repeats 5"
    for ranks, rate in ((4, 50), (8, 50)):
        where = f"--local {ranks} --bandwidth {rate}Mbps {ROUNDS} --rounds 4 --repeats 5"
        arguments[f"rounds-{ranks}-{rate}"] = f"{where} --algorithm {FAMILY}"
    arguments["server-4-100"] = f"--local 4 --bandwidth 100Mbps {ROUNDS} --rounds 2 --repeats 3 --algorithm {SERVER}"
    for ranks, rate in ((4, 25), (4, 50), (4, 100), (8, 50), (8, 100), (16, 50)):
        where = f"--local {ranks} --bandwidth {rate}Mbps {EXCHANGES} --send-mode eager --repeats 3"
        arguments[f"order-{ranks}-{rate}"] = f"{where} --exchange {','.join(ORDERED)} --sizes 50KB,200KB,1MB"
    return arguments


def measure(folder: Path, names: list[str]) -> int:
    """Measure the pieces of these names, or all, unless the folder has them; return the exit status."""
    arguments = pieces()
    for name in ABLATION if names == ["ablation"] else names or list(arguments):
        if name not in arguments:
            print(f"unknown piece {name!r}; known: ablation, {', '.join(arguments)}", file=sys.stderr)
            return 2
        if (folder / name / "validation.json").exists():
            continue
        (folder / name).mkdir(parents=True, exist_ok=True)
        print(f"netsim validate {arguments[name]}", flush=True)
        if status := netsim(["validate", *arguments[name].split(), "--out", str(folder / name)]):
            return status
    return 0


def again(folder: Path) -> int:
    """Predict every piece of the folder once more, from its stored measurements."""
    arguments = pieces()
    for file in sorted(folder.glob("*/validation.json")):
        with contextlib.redirect_stdout(io.StringIO()):
            netsim(["validate", *arguments[file.parent.name].split(), "--out", str(file.parent)])
    return 0


def rows_of(folder: Path, prefix: str) -> list[dict[str, Any]]:
    """Return the comparisons of all pieces whose names begin so, each with its piece."""
    rows = []
    for file in sorted(folder.glob(f"{prefix}-*/validation.json")):
        rows += [row | {"piece": file.parent.name} for row in json.loads(file.read_text())["comparison"]]
    return rows


def at_the_limit(row: dict[str, Any]) -> bool:
    """Return whether the links of a row's piece carry so much in all that this machine is the bottleneck."""
    ranks, rate = row["piece"].split("-")[1:]
    return int(ranks) * int(rate) >= LIMIT


def share(rows: list[dict[str, Any]]) -> str:
    """Return the number of rows, and the median and worst |error|, as cells of a Markdown table."""
    errors = [abs(row["error"]) for row in rows]
    worst = max(rows, key=lambda row: abs(row["error"]))
    what = f"{worst['title']}, P = {worst['workers']}, {worst['network']}, {worst['bytes'] / 1e3:g} kB"
    return f"{len(rows)} | {statistics.median(errors):.2%} | {max(errors):.1%} ({what})"


def table(folder: Path) -> int:
    """Print the tables of docs/validation.md."""
    exchanges = [row for prefix in ("small", "middle", "large", "2MB", "8MB") for row in rows_of(folder, prefix)]
    bins = {
        prefix + name: [r for r in exchanges if low <= r["bytes"] < high and at_the_limit(r) == limit]
        for prefix, limit in (("", False), (f"{LIMIT} Mbit/s or more in all, ", True))
        for name, (low, high) in SIZES.items()
    } | {
        "two racks, exchanges": [row for row in rows_of(folder, "racks") if row["algorithm"] != "permutation"],
        "two racks, single flows of 1 MB": rows_of(folder, "flows"),
        "plain tbf, 400 kB and more": [row for row in rows_of(folder, "tbf") if row["bytes"] >= 400_000],
        "plain tbf, 100 kB": [row for row in rows_of(folder, "tbf") if row["bytes"] < 400_000],
        "rounds of training": rows_of(folder, "rounds") + rows_of(folder, "server"),
    }
    print("| what | compared | median of \\|error\\| | worst |\n|---|---|---|---|")
    for name, rows in bins.items():
        if rows:
            print(f"| {name} | {share(rows)} |")
    print("\n| P | sizes | compared | median | worst |\n|---|---|---|---|---|")
    for ranks in (4, 8, 16):
        for name, rows in list(bins.items())[: len(SIZES)]:
            if of_ranks := [row for row in rows if row["workers"] == ranks]:
                print(f"| {ranks} | {name} | {share(of_ranks)} |")
    print("\n| exchange | sends | compared | median | worst |\n|---|---|---|---|---|")
    groups: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in exchanges:
        if row["bytes"] >= 100_000:
            groups[row["title"], row["sends"]].append(row)
    for (title, sends), rows in groups.items():
        print(f"| {title} | {sends} | {share(rows)} |")
    order(rows_of(folder, "order"))
    return 0


def order(rows: list[dict[str, Any]]) -> None:
    """Print the predicted and the measured order of dense, Top-k and gTop-k, by P, bandwidth and density.

    A sparse message of b bytes holds b / 8 entries, of a dense vector of DENSE / 4 elements.
    """
    print("\n| P, Mbit/s, density | predicted, fastest first | measured (ms) | same order |\n|---|---|---|---|")
    for piece in dict.fromkeys(row["piece"] for row in rows):
        of_piece = [row for row in rows if row["piece"] == piece]
        for size in sorted({row["bytes"] for row in of_piece}):
            compared = [
                row for row in of_piece if row["bytes"] == (DENSE if row["algorithm"] == "ring-all-reduce" else size)
            ]
            predicted, measured = (
                [ORDERED[row["algorithm"]] for row in sorted(compared, key=lambda row: row[key])]
                for key in ("predicted_s", "measured_s")
            )
            times = ", ".join(f"{ORDERED[row['algorithm']]} {row['measured_s'] * 1e3:.0f}" for row in compared)
            ranks, rate = piece.split("-")[1:]
            print(
                f"| {ranks}, {rate}, {size / DENSE / 2:.1%} | {' < '.join(predicted)} | {times} | "
                f"{'yes' if predicted == measured else 'no'} |"
            )


def main(arguments: list[str]) -> int:
    """Measure, predict again or print; return the exit status."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *rest = arguments
    if rest == ["--table"]:
        return table(Path(folder))
    return again(Path(folder)) if rest == ["--again"] else measure(Path(folder), rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
