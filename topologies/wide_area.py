"""Sites far from each other: hosts on the switch of their site, and a latency for every pair of sites."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from netsim._util.arrays import IntArray
from netsim._util.csv_file import csv_rows
from netsim._util.errors import UsageError, shown
from netsim._util.units import BANDWIDTH, format_bandwidth, format_duration, parse_bandwidth, parse_duration
from netsim.network.graph import Graph, check_link
from netsim.network.routing import NO_LINK, FloatArray, HashArray, Paths
from topologies.builder import Shape, Wiring, check_size
from topologies.spec import Count, File, LinkBandwidth, LinkLatency


def wide_area(
    shape: Shape,
    sites: Count | None = None,
    latency: LinkLatency | None = None,
    matrix: File | None = None,
    bandwidths: File | None = None,
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
        latency to every site, such as 35ms, or latency and bandwidth, such as 35ms 500Mbps. The diagonal is ignored.
    bandwidths
        A CSV file like `matrix`, with the bandwidth from each site to each other site.
    wan
        The bandwidth of the link from each site to each other site, where no matrix has one; the shape's if None.

    Raises
    ------
    UsageError
        For a matrix that cannot be used, or one together with `sites` or `latency`.
    """
    default_bps = shape.bandwidth_bps if wan is None else wan
    notes: tuple[str, ...] = ()
    if matrix is None:
        if bandwidths is not None:
            raise UsageError(f"topology wan: the bandwidths {str(bandwidths)!r} need latencies; add matrix=FILE")
        sites = 4 if sites is None else sites
        check_size(shape.workers, sites, shape.workers + sites * (sites - 1) // 2)
        names = [f"site{number}" for number in range(sites)]
        seconds = np.full((len(names), len(names)), 0.025 if latency is None else latency)
        rates = np.full(seconds.shape, default_bps)
    else:
        if sites is not None or latency is not None:
            raise UsageError(f"topology wan: the matrix {str(matrix)!r} says sites and latencies; leave out the others")
        names, seconds, known = read_matrix(matrix)
        if bandwidths is not None:
            known = np.maximum(known, read_bandwidths(bandwidths, names))
        rates = np.where(known > 0, known, default_bps)
        notes = _notes(known, shape, default_bps)
    check_link(rates, float(seconds.max()))
    wiring = Wiring(shape)
    count = len(names)
    site = wiring.hosts * count // max(1, len(wiring.hosts))
    switches = wiring.switches(names)
    wiring.cables(wiring.hosts, switches[site])
    lower, upper = np.triu_indices(count, 1)
    there = wiring.cables(
        switches[lower],
        switches[upper],
        bandwidth_bps=rates[lower, upper],
        back_bps=rates[upper, lower],
        latency_s=seconds[lower, upper],
        back_s=seconds[upper, lower],
    )
    between = np.full((count, count), NO_LINK, np.int64)
    between[lower, upper], between[upper, lower] = there, there + 1
    return replace(wiring.graph(WideAreaRouter(site, between), groups=site), notes=notes)


def _notes(known: IntArray, shape: Shape, default_bps: int) -> tuple[str, ...]:
    """Return what was read of a matrix of sites, and what was assumed; `known` has the bandwidths, 0 where none is."""
    count, pairs = len(known), len(known) * (len(known) - 1)
    given = int((known > 0).sum())
    read = f"matrix: {count} sites, {pairs} latencies, {given or 'no'} bandwidths"
    access = f"{format_bandwidth(shape.bandwidth_bps)} and {format_duration(shape.latency_s / 2)}"
    assumed = (
        f"ASSUMED: workers spread evenly over the sites, each on a link of {access} (--bandwidth, half of --latency)"
    )
    if given == pairs:
        return read, assumed
    return read, assumed, f"ASSUMED: {format_bandwidth(default_bps)} between sites without a bandwidth (key wan)"


def read_matrix(path: Path) -> tuple[list[str], FloatArray, IntArray]:
    """Return what a matrix of latencies has.

    Returns
    -------
    names
        The names of n sites.
    seconds
        The latency from each site to each, (n, n).
    bits_per_second
        The bandwidth from each site to each, (n, n); 0 where the matrix has none.

    Raises
    ------
    UsageError
        For a file that is no matrix; it names row and column.
    """
    what = f"latency matrix {str(path)!r}"
    names, cells = _cells(path, what, "latencies")
    seconds, rates = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)), np.int64)
    for row, column, text in cells:
        try:
            parts = _BETWEEN.split(text)
            paced = [part for part in parts if _unit(part) in BANDWIDTH]
            timed = [part for part in parts if part not in paced]
            if len(parts) > 2 or len(timed) != 1:
                raise UsageError(f"{shown(text)} must be a latency, or a latency and a bandwidth, such as 35ms 500Mbps")
            seconds[row, column] = parse_duration(timed[0], "latency")
            check_link(1, seconds[row, column])
            rates[row, column] = _bandwidth(paced[0]) if paced else 0
        except UsageError as error:
            raise UsageError(f"{what}, row {names[row]!r}, column {names[column]!r}: {error}") from None
    return names, seconds, rates


def read_bandwidths(path: Path, sites: list[str]) -> IntArray:
    """Return the bandwidth in bit/s from each of n sites to each, (n, n); 0 on the diagonal.

    Raises UsageError for a file that is no matrix of these sites; it names row and column.
    """
    what = f"bandwidth matrix {str(path)!r}"
    names, cells = _cells(path, what, "bandwidths")
    if names != sites:
        raise UsageError(f"{what}: its sites must be those of the latency matrix, in order: {', '.join(sites)}")
    rates = np.zeros((len(names), len(names)), np.int64)
    for row, column, text in cells:
        try:
            rates[row, column] = _bandwidth(text)
        except UsageError as error:
            raise UsageError(f"{what}, row {names[row]!r}, column {names[column]!r}: {error}") from None
    return rates


_BETWEEN = re.compile(r"(?<=[A-Za-z])\s+(?=[0-9.+-])")
"""The space between a latency and a bandwidth, which may have spaces before their units."""


def _unit(quantity: str) -> str:
    return quantity.lstrip("0123456789.eE+- ").strip()


def _bandwidth(text: str) -> int:
    value = parse_bandwidth(text)
    check_link(value, 0.0)
    return value


def _cells(path: Path, what: str, content: str) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Return the names of the sites, and row, column and text of every cell but those of the diagonal."""
    rows = [cells for _, cells in csv_rows(path, what)]
    names = rows[0][1:] if rows else []
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise UsageError(f"{what}: the first row must be an empty cell and the names of two or more sites")
    if [row[0] for row in rows[1:]] != names:
        raise UsageError(f"{what}: the rows must begin with the names of the header, in order: {', '.join(names)}")
    cells = []
    for number, row in enumerate(rows[1:]):
        if len(row) != len(names) + 1:
            raise UsageError(f"{what}: row {row[0]!r} has {len(row) - 1} {content}, and there are {len(names)} sites")
        cells += [(number, column, text) for column, text in enumerate(row[1:]) if column != number]
    return names, cells


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
