"""Sites far from each other: hosts on the switch of their site, and a latency for every pair of sites."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.csv_file import csv_rows
from netsim._util.errors import UsageError
from netsim._util.units import parse_duration
from netsim.network.graph import Graph, check_link
from netsim.network.routing import NO_LINK, FloatArray, HashArray, Paths
from topologies.builder import Shape, Wiring, check_size
from topologies.spec import Count, File, LinkBandwidth, LinkLatency


def wide_area(
    shape: Shape,
    sites: Count | None = None,
    latency: LinkLatency | None = None,
    matrix: File | None = None,
    wan: LinkBandwidth | None = None,
) -> Graph:
    """Return sites with the workers spread evenly over them, the first workers at the first site.

    Parameters
    ----------
    sites
        The number of sites; 4 if None.
    latency
        The one-way latency between every two sites; 25 ms if None.
    matrix
        Instead of both: a CSV file with a header of site names, and a row for each site with its name and the one-way
        latency to every site, such as 35ms. The diagonal is ignored.
    wan
        The bandwidth of the link from each site to each other site; the shape's if None.

    Raises
    ------
    UsageError
        For a matrix that cannot be used, or one together with `sites` or `latency`.
    """
    if matrix is None:
        sites = 4 if sites is None else sites
        check_size(shape.workers, sites, shape.workers + sites * (sites - 1) // 2)
        names = [f"site{number}" for number in range(sites)]
        seconds = np.full((len(names), len(names)), 0.025 if latency is None else latency)
    else:
        if sites is not None or latency is not None:
            raise UsageError(f"topology wan: the matrix {str(matrix)!r} says sites and latencies; leave out the others")
        names, seconds = read_matrix(matrix)
    check_link(shape.bandwidth_bps if wan is None else wan, float(seconds.max()))
    wiring = Wiring(shape)
    count = len(names)
    site = wiring.hosts * count // max(1, len(wiring.hosts))
    switches = wiring.switches(names)
    wiring.cables(wiring.hosts, switches[site])
    lower, upper = np.triu_indices(count, 1)
    there = wiring.cables(
        switches[lower],
        switches[upper],
        bandwidth_bps=wan,
        latency_s=seconds[lower, upper],
        back_s=seconds[upper, lower],
    )
    between = np.full((count, count), NO_LINK, np.int64)
    between[lower, upper], between[upper, lower] = there, there + 1
    return wiring.graph(WideAreaRouter(site, between), groups=site)


def read_matrix(path: Path) -> tuple[list[str], FloatArray]:
    """Return the names of n sites, and the seconds from each to each, (n, n); a UsageError names row and column."""

    def wrong(what: str) -> UsageError:
        return UsageError(f"latency matrix {str(path)!r}{what}")

    rows = [cells for _, cells in csv_rows(path, f"latency matrix {str(path)!r}")]
    names = rows[0][1:] if rows else []
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise wrong(": the first row must be an empty cell and the names of two or more sites")
    if [row[0] for row in rows[1:]] != names:
        raise wrong(f": the rows must begin with the names of the header, in order: {', '.join(names)}")
    seconds = np.zeros((len(names), len(names)))
    for number, row in enumerate(rows[1:]):
        if len(row) != len(names) + 1:
            raise wrong(f": row {row[0]!r} has {len(row) - 1} latencies, and there are {len(names)} sites")
        for column, text in enumerate(row[1:]):
            if number != column:
                try:
                    seconds[number, column] = parse_duration(text, "latency")
                except UsageError as error:
                    raise wrong(f", row {row[0]!r}, column {names[column]!r}: {error}") from None
    return names, seconds


class WideAreaRouter:
    """Finds the one route of each pair: to the site's switch, over the link between the sites, and to the host."""

    def __init__(self, site: IntArray, between: IntArray) -> None:
        self._site, self._between = site, between

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route of every pair."""
        apart = sources != targets
        columns = [
            np.where(apart, 2 * sources, NO_LINK),
            self._between[self._site[sources], self._site[targets]],
            np.where(apart, 2 * targets + 1, NO_LINK),
        ]
        return Paths.of_matrix(np.stack(columns, 1))
