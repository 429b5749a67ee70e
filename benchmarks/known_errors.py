"""The comparisons from which `netsim simulate` and `netsim recommend` say how wrong such predictions were.

    python benchmarks/known_errors.py [FOLDER...]      write netsim/analysis/known_errors.csv, in a minute
    python benchmarks/known_errors.py --print          print its settings with their errors

The rows are those that `netsim study published` compares, and those of `netsim validate`. FOLDER holds results of the
latter, a folder each. Without one, the file's rows of netsim validate are kept.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netsim.analysis.known_errors import (
    COLUMNS,
    FILE,
    GATHER,
    RING,
    SERVER,
    SPARSE_TREE,
    TREE,
    KnownError,
    known_errors,
)
from netsim.study_engine import run_study
from studies import load_study

VALIDATED = "netsim validate"
"""The source of own comparisons; the hardware follows after a comma."""
OF_VALIDATE = {
    "ring-all-reduce": RING,
    "tree-all-reduce": TREE,
    "all-gather": GATHER,
    "gtopk-tree": SPARSE_TREE,
    "ps-in": SERVER,
    "ps-out": SERVER,
}
"""Kinds of the exchanges of netsim validate."""
OF_PUBLISHED = {
    "S-SGD": (RING, "round"),
    "S-SGD all-reduce": (RING, "round"),
    "S-SGD parameter server": (SERVER, "round"),
    "Top-k S-SGD": (GATHER, "round"),
    "gTop-k S-SGD": (SPARSE_TREE, "round"),
}
"""Kinds of the exchanges of published rounds of training; other all-reduces and all-gathers are bare exchanges."""
QUALITIES = ("A", "B")
"""Published rows that can be simulated; others are ratios or simulations."""


def validated(folder: Path) -> Iterator[KnownError]:
    """Yield the exchanges of all results of netsim validate below a folder, over one switch with fair shaping.

    The latency is that of a small message between two ranks: links have none of their own.
    """
    for file in sorted(folder.glob("**/validation.json")):
        document = json.loads(file.read_text())
        settings = {each["network"]: each for each in document["settings"]}
        for row in document["comparison"]:
            cluster = settings[row["network"]]["cluster"]
            if row["algorithm"] in OF_VALIDATE and cluster["shaping"] == "fair" and cluster["trunk_bps"] is None:
                yield KnownError(
                    source=f"{VALIDATED}, {document['environment']['hardware']}",
                    backend="gloo",
                    exchange=OF_VALIDATE[row["algorithm"]],
                    part="exchange",
                    workers=row["workers"],
                    nbytes=row["bytes"],
                    bandwidth_bps=float(cluster["bandwidth_bps"]),
                    latency_s=float(f"{settings[row['network']]['points']['small_s']:.2g}"),
                    error=round(row["error"], 4),
                )


def published(rows: Sequence[Mapping[str, Any]]) -> Iterator[KnownError]:
    """Yield the rows of the study's conclusion that were compared, and whose exchange an algorithm makes."""
    for row in rows:
        algorithm = row["algorithm"]
        bare = RING if "all-reduce" in algorithm else GATHER if "all-gather" in algorithm else None
        exchange, part = OF_PUBLISHED.get(algorithm, (bare, "exchange"))
        compared = row["error"] is not None and not row["calibrated"] and row["quality"] in QUALITIES
        if compared and exchange is not None and "+" not in algorithm and row["workers"] and row["bandwidth_bps"]:
            yield KnownError(
                source=row["name"],
                backend=re.split(r" \(| \d| socket", row["backend"])[0],
                exchange=exchange,
                part=part,
                workers=row["workers"],
                nbytes=row["bytes_per_rank"],
                bandwidth_bps=float(row["bandwidth_bps"]),
                latency_s=row["latency_s"],
                error=round(row["error"], 4),
            )


def study_rows(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the conclusion of ``netsim study published``."""
    study = load_study("published")
    settings = study.settings(**study.quick) if quick else study.settings()
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = run_study(study, settings, Path(folder)).data["rows"]
    return rows


def write(rows: Sequence[KnownError]) -> None:
    """Write the file, sorted."""
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(map(asdict, rows), key=lambda row: [str(row[name]) for name in COLUMNS]))


def show(rows: Sequence[KnownError]) -> None:
    """Print the number of comparisons, and the median and the worst |error|, by source and exchange."""
    errors: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        errors[row.source, row.backend, row.exchange, row.part].append(abs(row.error))
    for names, values in errors.items():
        print(f"{', '.join(names)}: {len(values)}, {statistics.median(values):.1%}, {max(values):.1%}")


def main(arguments: list[str]) -> int:
    """Write or print; return the exit status."""
    if arguments == ["--print"]:
        show(known_errors())
        return 0
    own = [row for folder in arguments for row in validated(Path(folder))]
    if not own:
        own = [row for row in known_errors() if row.source.startswith(VALIDATED)]
    write([*own, *published(study_rows())])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
