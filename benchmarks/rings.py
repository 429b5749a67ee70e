"""The textbook's ring beside the one that forwards in slices, on NCCL's all-reduces that other people measured.

Rows are those of ``studies/published/measured.csv`` for NCCL over links that were shaped in bandwidth and latency (tc,
netem). Nothing is calibrated: a link has the bandwidth and the latency to which it was shaped. One line a row, in
Markdown: seconds MEASURED and SIMULATED, and the errors SIMULATED / MEASURED - 1.

    python benchmarks/rings.py
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from netsim.comm.collectives import Pipeline, ring_all_reduce
from netsim.network.fabric import Fabric
from netsim.simulator.exchange_time import exchange_time
from studies.published.plans import stated
from studies.published.rows import PUBLISHED, PublishedRow, read_rows
from topologies import TOPOLOGIES
from topologies.builder import Shape

SOURCE = "github.com/BinhangYuan/tc_cluster_setting"
SHAPED_S = 1e-3
"""The least latency of shaped links; without it, hosts limit the exchange rather than links."""


def rows() -> list[PublishedRow]:
    """Return the all-reduces of the source's main campaign over shaped links."""
    return [
        row
        for row in read_rows(PUBLISHED)
        if row.source.startswith(SOURCE)
        and row.backend.startswith("nccl")
        and row.algorithm == "all-reduce"
        and row.quality == "A"
        and (row.latency_s or 0) >= SHAPED_S
    ]


def lines() -> Iterator[str]:
    """Yield the table line by line."""
    yield "| P | bytes | link | MEASURED (s) | textbook (s) | error | in slices (s) | error |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows():
        workers, bandwidth_bps, latency_s, size = stated(row, "workers", "bandwidth_bps", "latency_s", "bytes_per_rank")
        (measured_s,) = stated(row, "measured_s")
        fabric = Fabric(TOPOLOGIES["star"](Shape(workers, bandwidth_bps, latency_s)))
        shown = []
        for pipeline in (None, Pipeline()):
            all_reduce = partial(ring_all_reduce, pipeline=pipeline)
            seconds = exchange_time(all_reduce, size // 4, fabric)
            shown.append(f"{seconds:.3f} | {seconds / measured_s - 1:+.1%}")
        link = f"{bandwidth_bps / 1e9:g} Gbit/s, {1e3 * latency_s:g} ms"
        yield f"| {workers} | {size / 2**20:g} MiB | {link} | {measured_s:.3f} | {' | '.join(shown)} |"


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
