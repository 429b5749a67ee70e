"""The bytes that a worker sends in a round, as papers count them, beside those of a simulation: a table of the docs.

Values and indices have 4 bytes. A count is the mean over the workers; what a server sends back is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import NamedTuple

import netsim
from algorithms import ALGORITHMS, BUILT_IN

WORKERS, ELEMENTS, ENTRIES = 8, 407_050, 4_080


class PaperCount(NamedTuple):
    """A paper's count: the formula in text, and its value for P workers, d elements and k entries."""

    formula: str
    value: Callable[[int, int, int], float]


ALL_REDUCE = PaperCount("2((P-1)/P) 4d", lambda p, d, k: 8 * (p - 1) / p * d)
TREES = PaperCount("2(P-1) messages of 4d in all", lambda p, d, k: 2 * (p - 1) * 4 * d / p)
ALL_GATHER = PaperCount("(P-1) 8k", lambda p, d, k: (p - 1) * 8 * k)
MERGES = PaperCount("2(P-1) messages of 8k in all", lambda p, d, k: 2 * (p - 1) * 8 * k / p)
UPLOAD = PaperCount("4d", lambda p, d, k: 4 * d)
SPARSE_UPLOAD = PaperCount("8k", lambda p, d, k: 8 * k)


def every(h: int) -> PaperCount:
    """Return the count of an all-reduce every `h` steps."""
    return PaperCount(f"2((P-1)/P) 4d / H, H = {h}", lambda p, d, k: 8 * (p - 1) / p * d / h)


def factors(p: int, d: int, k: int) -> float:
    """Return the count of PowerSGD of rank 4 for a square matrix of ⌊√d⌋ rows and a rest of single elements."""
    rows = isqrt(d)
    columns = d // rows
    return 8 * (p - 1) / p * (4 * (rows + columns) + d - rows * columns)


COUNTS = {
    "dense": ALL_REDUCE,
    "dense-tree": TREES,
    "dense-double-tree": PaperCount("2(P-1) messages of 4d/2 in each of two trees", ALL_REDUCE.value),
    "dense-hier": ALL_REDUCE,
    "topk": ALL_GATHER,
    "gtopk": MERGES,
    "gtopk-naive": ALL_GATHER,
    "gtopk-hier": MERGES,
    "dgc": ALL_GATHER,
    "scalecom": PaperCount("P-1 messages of 4k in all, 2((P-1)/P) 4k", lambda p, d, k: 3 * (p - 1) / p * 4 * k),
    "oktopk": PaperCount(
        "4((P-1)/P) 4k with equal regions (at most 6k words), and 4(P-1) of counts",
        lambda p, d, k: 16 * (p - 1) / p * k + 4 * (p - 1),
    ),
    "ssar": PaperCount("Σ 2^i 8k for i < log₂P", lambda p, d, k: sum(2**i * 8 * k for i in range(p.bit_length() - 1))),
    "dsar": PaperCount("(P-1)(8k/P + 4⌈d/P⌉)", lambda p, d, k: (p - 1) * (8 * k / p + 4 * -(-d // p))),
    "randk": PaperCount("2((P-1)/P) 4k", lambda p, d, k: 8 * (p - 1) / p * k),
    "qsgd": PaperCount(
        "(P-1)(4⌈d/512⌉ + ⌈4d/8⌉) with 4 bits", lambda p, d, k: (p - 1) * (4 * -(-d // 512) + -(-4 * d // 8))
    ),
    "terngrad": PaperCount("(P-1)(4 + ⌈2d/8⌉)", lambda p, d, k: (p - 1) * (4 + -(-2 * d // 8))),
    "signsgd": PaperCount("(P-1)⌈d/8⌉", lambda p, d, k: (p - 1) * -(-d // 8)),
    "ef-signsgd": PaperCount("(P-1)(4 + ⌈d/8⌉)", lambda p, d, k: (p - 1) * (4 + -(-d // 8))),
    "int8": PaperCount("(P-1)(8 + d)", lambda p, d, k: (p - 1) * (8 + d)),
    "powersgd": PaperCount("2((P-1)/P) 4(Σ r (n + m) + single elements), r = 4, n = m = ⌊√d⌋", factors),
    "ps": UPLOAD,
    "ps-topk": SPARSE_UPLOAD,
    "ps-terngrad": PaperCount("4 + ⌈2d/8⌉", lambda p, d, k: 4 + -(-2 * d // 8)),
    "ps-signsgd": PaperCount("⌈d/8⌉", lambda p, d, k: -(-d // 8)),
    "lag": UPLOAD,
    "lasg-wk1": UPLOAD,
    "lasg-wk2": UPLOAD,
    "lasg-ps": PaperCount("4d, and 4 of an estimated smoothness", lambda p, d, k: 4 * d + 4),
    "sasg": SPARSE_UPLOAD,
    "local-sgd": every(16),
    "post-local-sgd": every(16),
    "diloco": every(500),
    "streaming-diloco": every(100),
}
"""The counts of methods with their default options, by name; of lazy methods, in a round in which all upload."""


def simulated(name: str, workers: int = WORKERS, elements: int = ELEMENTS, k: int = ENTRIES) -> float:
    """Return the bytes of values and indices that a worker sends in a simulated round, in the mean over workers.

    That is the second round, because the first one may prepare the others; with local steps, the mean of H rounds.
    """
    kind = ALGORITHMS[name]

    def sent(rounds: int) -> float:
        (result,) = netsim.simulate(
            workers=workers, elements=elements, k=k, algorithm=name, timing_only=True, rounds=rounds
        ).results
        return result.value_bytes_up + result.index_bytes_up

    return sent(kind.period({"start": 0})) if kind.steps_locally else 2 * sent(2) - sent(1)


def table() -> str:
    """Return the table of papers' counts and simulated bytes in Markdown."""
    return "\n".join(
        ["| algorithm | the paper's count, in bytes | its value | simulated bytes |", "|---|---|---|---|", *_rows()]
    )


def _rows() -> Iterator[str]:
    for name in filter(BUILT_IN.__contains__, ALGORITHMS):
        count = COUNTS[name]
        values = (count.value(WORKERS, ELEMENTS, ENTRIES), simulated(name))
        shown = [f"{round(value, 1):,}".removesuffix(".0") for value in values]
        yield f"| `{name}` | {count.formula} | {' | '.join(shown)} |"
