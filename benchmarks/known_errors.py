"""The comparisons from which `netsim simulate` and `netsim recommend` say how wrong such predictions were.

    python benchmarks/known_errors.py [FOLDER...]      write netsim/analysis/known_errors.csv
    python benchmarks/known_errors.py --print          print its settings with their errors

FOLDER holds results of netsim validate, a folder each. Without one, the file's rows of netsim validate are kept.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

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

VALIDATED = "netsim validate"
EXCHANGES = {
    "ring-all-reduce": RING,
    "tree-all-reduce": TREE,
    "all-gather": GATHER,
    "gtopk-tree": SPARSE_TREE,
    "ps-in": SERVER,
    "ps-out": SERVER,
}
"""Kinds of the exchanges of netsim validate."""


def validated(folder: Path) -> Iterator[KnownError]:
    """Yield the exchanges of all results of netsim validate below a folder, over one switch with fair shaping.

    The latency is that of a small message between two ranks: links have none of their own.
    """
    for file in sorted(folder.glob("**/validation.json")):
        document = json.loads(file.read_text())
        settings = {each["network"]: each for each in document["settings"]}
        for row in document["comparison"]:
            cluster = settings[row["network"]]["cluster"]
            if row["algorithm"] in EXCHANGES and cluster["shaping"] == "fair" and cluster["trunk_bps"] is None:
                yield KnownError(
                    source=f"{VALIDATED} on {document['environment']['hardware']}, with its host model",
                    backend="gloo",
                    exchange=EXCHANGES[row["algorithm"]],
                    workers=row["workers"],
                    nbytes=row["bytes"],
                    bandwidth_bps=float(cluster["bandwidth_bps"]),
                    latency_s=float(f"{settings[row['network']]['points']['small_s']:.2g}"),
                    error=round(row["error"], 4),
                )


def write(rows: Sequence[KnownError]) -> None:
    """Write the file, sorted."""
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(map(asdict, rows), key=lambda row: [str(row[name]) for name in COLUMNS]))


def show(rows: Sequence[KnownError]) -> None:
    """Print the number of comparisons, and the median and the worst |error|, by source and exchange."""
    errors: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        errors[row.source, row.backend, row.exchange].append(abs(row.error))
    for names, values in errors.items():
        print(f"{', '.join(names)}: {len(values)}, {statistics.median(values):.1%}, {max(values):.1%}")


def main(arguments: list[str]) -> int:
    """Write or print; return the exit status."""
    if arguments == ["--print"]:
        show(known_errors())
        return 0
    kept = [row for row in known_errors() if row.source.startswith(VALIDATED)] if FILE.exists() else []
    write([row for folder in arguments for row in validated(Path(folder))] or kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
