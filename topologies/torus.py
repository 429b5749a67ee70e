"""Rings and tori: hosts are cabled to their neighbours on a circle or a wrapped grid, and forward messages."""

from __future__ import annotations

import math

import numpy as np

from netsim._util.arrays import IntArray
from netsim.network.graph import Graph
from netsim.network.routing import NO_LINK, HashArray, Paths, choice
from topologies.builder import Shape, Wiring, check_size
from topologies.spec import Sides


def ring(shape: Shape) -> Graph:
    """Return a ring of workers; the cable between neighbours has the shape's whole latency."""
    return torus(shape, (shape.workers,))


def torus(shape: Shape, sides: Sides | None = None) -> Graph:
    """Return a torus of one to three dimensions with a host at every point.

    The cable between neighbours has the shape's whole latency. Along a side of two there is one cable, not two.

    Parameters
    ----------
    sides
        The number of hosts along each dimension, such as 4x4x2; if None, the torus is the most square one of two
        dimensions with room for all workers.
    """
    if sides is None:
        side = math.isqrt(shape.workers - 1) + 1
        sides = (-(-shape.workers // side), side)
    hosts = math.prod(sides)
    check_size(hosts, 0, len(sides) * hosts)
    wiring = Wiring(shape, hosts)
    places = np.arange(hosts).reshape(sides)
    plus = np.full((len(sides), hosts), NO_LINK, np.int64)
    minus = plus.copy()
    for axis, side in enumerate(sides):
        begins = places if side > 2 else np.take(places, range(side - 1), axis)
        ends = np.roll(places, -1, axis)[tuple(slice(length) for length in begins.shape)]
        links = wiring.cables(begins.ravel(), ends.ravel(), latency_s=shape.latency_s)
        plus[axis, begins.ravel()] = links
        minus[axis, ends.ravel()] = links + 1
    return wiring.graph(DimensionOrder(sides, plus, minus), near=_snake(places))


def _snake(places: IntArray) -> IntArray:
    """Return the places in an order in which each place is next to the one before."""
    order = places.copy()
    for axis in range(1, places.ndim):
        # Every other line along the axis runs backwards, counting lines over all the axes before it.
        lines = order.reshape(math.prod(places.shape[:axis]), *places.shape[axis:])
        lines[1::2] = np.flip(lines[1::2], 1)
        order = lines.reshape(places.shape)
    return order.ravel()


class DimensionOrder:
    """Finds routes in dimension order: the shorter way around along the first axis, then along the next, and so on.

    If both ways around an axis are equally long, the hash of the flow picks one. ``plus[axis, n]`` and
    ``minus[axis, n]`` are the links from node n to its neighbours along an axis.
    """

    def __init__(self, sides: tuple[int, ...], plus: IntArray, minus: IntArray) -> None:
        self._sides = np.array(sides, np.int64)
        self._strides = np.array([math.prod(sides[axis + 1 :]) for axis in range(len(sides))], np.int64)
        self._links = np.stack([minus, plus])

    def paths(self, sources: IntArray, targets: IntArray, hashes: HashArray) -> Paths:
        """Return the route of every pair."""
        here = sources[:, None] // self._strides % self._sides
        there = targets[:, None] // self._strides % self._sides
        ahead = (there - here) % self._sides
        axes = np.arange(len(self._sides))
        heads = np.stack([choice(hashes, axis, 2) for axis in range(len(axes))], 1) == 1
        # A side of two has one cable, which leads forwards from place 0 and backwards from place 1.
        shorter = (2 * ahead < self._sides) | ((2 * ahead == self._sides) & heads)
        forwards = np.where(self._sides == 2, here == 0, shorter)
        steps = np.where(forwards, ahead, self._sides - ahead) * (ahead > 0)
        # Along an axis, the coordinates of earlier axes are the target's already, those of later axes the source's.
        fixed = np.where(axes[:, None] > axes, there[:, None, :], here[:, None, :]) * self._strides
        fixed = (fixed * (axes[:, None] != axes)).sum(2)
        counts = steps.ravel()
        legs = np.repeat(np.arange(len(counts)), counts)
        step = np.arange(len(legs)) - np.repeat(np.cumsum(counts) - counts, counts)
        axis = legs % len(axes)
        way = forwards.ravel()[legs]
        place = (here.ravel()[legs] + np.where(way, step, -step)) % self._sides[axis]
        node = fixed.ravel()[legs] + place * self._strides[axis]
        return Paths.of_counts(steps.sum(1), self._links[way.astype(np.int64), axis, node])
