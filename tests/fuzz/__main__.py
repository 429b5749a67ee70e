"""``python -m tests.fuzz``: a long run, a table of what came of it, and one input tried again."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.battery import KINDS, drawn, table, tried, work
from tests.fuzz.law import guard, judged, warm_up


def main() -> int:
    """Run what the arguments ask for; return 1 if anything broke the law."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; several times for several")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other inputs")
    parser.add_argument("--long", action="store_true", help="a million inputs in all, instead of the suite's")
    parser.add_argument("--seconds", type=float, default=10**6, help="of each kind at most")
    parser.add_argument("--jobs", type=int, default=1, help="kinds at once")
    parser.add_argument("--index", type=int, help="only this input of --kind, with its traceback")
    for name in ("--first", "--last"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    kinds = given.kind or list(KINDS)
    if given.work:
        return work(kinds[0], given.seed, given.first, given.last, given.seconds)
    if given.index is not None:
        return once(kinds[0], given.seed, given.index)
    with ThreadPoolExecutor(given.jobs) as pool:
        counts = {kind: KINDS[kind].long if given.long else KINDS[kind].quick for kind in kinds}
        tallies = list(pool.map(lambda kind: tried(kind, given.seed, 0, counts[kind], given.seconds), kinds))
    for tally in tallies:
        for name, told in tally.faults.items():
            print(f"{tally.kind}: {name}\n    {told}\n")
    print(table(tallies))
    return 1 if any(tally.counts for tally in tallies) else 0


def once(kind: str, seed: int, index: int) -> int:
    """Show one input, and how it ends."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name, contextlib.chdir(name):
        folder = Path(name).resolve()
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        case = drawn(kind, seed, index, folder)
        print(case.shown)
        if KINDS[kind].watched:
            warm_up()
            guard(folder)
        fault = judged(case)
        print(fault)
        if fault is not None and fault.what == "traceback":
            drawn(kind, seed, index, folder).call()
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
