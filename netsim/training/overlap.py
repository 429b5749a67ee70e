"""Exchanges that go on while gradients are still being computed (wait-free back-propagation), or beside each other.

Backward computes the last layers' gradients first. Consecutive tensors make a bucket, and as soon as a bucket's
gradient is there, an exchange of its own begins. Several parameter servers serve a bucket each, or several.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from netsim._util.errors import InfeasibleError, UsageError, shown
from netsim._util.units import parse_size, read_number
from netsim.comm.payload import VALUE_BYTES, Dense, SizeOnly, Sparse, Vector, cut, joined, size_rule
from netsim.comm.pieces import InPieces, Piece, Pieces
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm, Gradient, State
from netsim.training.sgd import SGDConfig

FORWARD = 1 / 3
"""The share of a gradient's time that forward takes, where nobody measured it: backward is twice as many products."""

MOST_BUCKETS = 10_000
"""Of elements without tensors: each bucket is exchanged, and written down, by itself."""
TENSOR = "tensor"


class Bucket(NamedTuple):
    """A piece of the gradient, and the algorithm that exchanges it: with a memory, and a k, of its own.

    `server` is the number of the parameter server for it, if there are any.
    """

    piece: Piece
    algorithm: Algorithm
    server: int = 0


class Overlapped(Algorithm):
    """An algorithm bucket by bucket; `buckets` are in the order in which they get ready, the last layers first.

    Every bucket is exchanged by a coroutine of its own, all at the same time if need be. With one bucket it is the
    algorithm itself. A rank that serves some of the buckets holds parameters that nobody moves.
    """

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self.buckets = tuple(buckets)
        one = self.buckets[0].algorithm
        vars(self).update(
            name=one.name, title=one.title, sparse=one.sparse, uses_server=one.uses_server, accumulates=one.accumulates
        )
        self._pieces: WeakKeyDictionary[Any, list[Vector]] = WeakKeyDictionary()

    def initial_memory(self, template: Vector) -> tuple[Any, ...]:
        pieces = self._cut(template)
        return tuple(bucket.algorithm.initial_memory(piece) for bucket, piece in zip(self.buckets, pieces, strict=True))

    def selected(self, size: int, step: int) -> int:
        return sum(algorithm.selected(piece.last - piece.first, step) for piece, algorithm, _ in self.buckets)

    def residual(self, memory: tuple[Any, ...]) -> Vector | None:
        parts = [bucket.algorithm.residual(own) for bucket, own in zip(self.buckets, memory, strict=True)]
        found = [part for part in reversed(parts) if isinstance(part, Dense)]
        return joined(*found) if found else None

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        backward: Pieces | None = None
        if gradient is not None:
            backward = await InPieces(gradient(parameters), [bucket.piece for bucket in self.buckets])
        branches, exchanges = [], {}
        for number, piece in enumerate(self._cut(parameters)):
            if backward is None and self._server(worker, number) != worker.rank:
                continue
            own = None if backward is None else await backward.next()
            branch = self._branch(worker, number, parameters.size)
            exchange = self._exchange(branch, number, own, piece, recipe, state.memory[number])
            branches.append(branch)
            exchanges[number] = await worker.fork(branch, exchange)
        done = {number: await exchange for number, exchange in exchanges.items()}
        _count(worker, branches)
        state = state._replace(memory=tuple(done[n][1] if n in done else state.memory[n] for n in self._numbers))
        if len(done) < len(self.buckets):
            return parameters, state
        totals = [done[number][0] for number in reversed(self._numbers)]
        total = totals[0] if len(totals) == 1 else await worker.replicated("update", joined, *totals)
        return await self.apply(worker, parameters, total, recipe, state)

    async def _exchange(
        self, worker: Worker, number: int, own: Vector | None, parameters: Vector, recipe: SGDConfig, memory: Any
    ) -> tuple[Vector, Any]:
        algorithm = self.buckets[number].algorithm
        vector = None if own is None else await algorithm.contribution(worker, own, parameters, recipe)
        return await algorithm.exchange(worker, vector, memory, template=parameters)

    def _branch(self, worker: Worker, number: int, size: int) -> Worker:
        first, last = self.buckets[number].piece[:2]
        server = self._server(worker, number)

        def observe(_: Worker, what: str, *vectors: Vector) -> None:
            worker.observe(what, *(_placed(vector, first, size) for vector in vectors))

        part = (first / size, last / size)
        return worker.branch(number, part, None if worker.observer is None else observe, server)

    def _server(self, worker: Worker, number: int) -> int:
        """Return the rank that serves a bucket: servers with hosts of their own come after the workers."""
        return worker.server + self.buckets[number].server

    @property
    def _numbers(self) -> range:
        return range(len(self.buckets))

    def _cut(self, vector: Vector) -> list[Vector]:
        """Return the pieces of a vector, the same objects whenever it is the same vector: workers share them."""
        if vector not in self._pieces:
            self._pieces[vector] = [cut(vector, piece.first, piece.last) for piece, *_ in self.buckets]
        return self._pieces[vector]


def described(algorithm: Algorithm, measured: bool | None) -> dict[str, Any]:
    """Return what a result says of the buckets, nothing if there is but one; `measured`: whether `ready` was.

    None is a real run, where `ready` is whatever happens.
    """
    if not isinstance(algorithm, Overlapped):
        return {}
    buckets = [
        {
            "elements": piece.last - piece.first,
            "k": own.selected(piece.last - piece.first, sys.maxsize) if own.sparse else None,
            "ready": None if measured is None else piece.ready,
            "server": server if own.uses_server else None,
        }
        for piece, own, server in algorithm.buckets
    ]
    provenance = None if measured is None else "MEASURED" if measured else "ASSUMED"
    return {"buckets": buckets, "ready_provenance": provenance}


def _count(worker: Worker, branches: Sequence[Worker]) -> None:
    """Count for a worker what its branches did and sent; an upload in several buckets is one."""
    uploads = [branch.tally.pop("uploads", 0) for branch in branches]
    for branch in branches:
        worker.tally.update(branch.tally)
        worker.traffic.add(branch.traffic)
    if any(uploads):
        worker.tally["uploads"] += max(uploads)


@size_rule(lambda vector, first, size: SizeOnly(size, vector.entries))
def _placed(vector: Vector, first: int, size: int) -> Vector:
    """Return a piece as a vector of `size` that has zeros everywhere else."""
    import torch

    assert isinstance(vector, Dense | Sparse)
    indices = vector.indices if isinstance(vector, Sparse) else torch.arange(vector.size, device=vector.values.device)
    return Sparse((indices + first).to(torch.int32), vector.values, size)


class Ready(NamedTuple):
    """When buckets are there, as a user says it: `measured`, after these `shares` of the time, or by their elements."""

    measured: bool = False
    shares: tuple[float, ...] = ()
    forward: float = FORWARD

    @classmethod
    def of(cls, text: str) -> Ready:
        """Return what is written as "measured", "elements", "elements:0.4" (forward's share), or "0.5,0.8,1"."""
        kind, _, forward = text.partition(":")
        if text == "measured":
            return cls(measured=True)
        numbers = [read_number(part) for part in ([forward or str(FORWARD)] if kind == "elements" else text.split(","))]
        known = tuple(-1.0 if number is None else number for number in numbers)
        found = cls(forward=known[0]) if kind == "elements" else cls(shares=known)
        rising = all(0 <= one <= other for one, other in pairwise((*found.shares, 1.0)))
        if not 0 <= found.forward < 1 or not rising or (found.shares and found.shares[-1] != 1):
            raise UsageError(
                f"ready {shown(text)} must be measured, elements, elements:F with forward's share F of the time, or "
                "the share of the time after which each bucket is there, rising to 1, such as 0.5,0.8,1"
            )
        return found


def check_bucket(bucket: str) -> None:
    """Raise UsageError unless `bucket` is "tensor" or a size."""
    if bucket != TENSOR:
        try:
            parse_size(bucket, "overlap")
        except UsageError as error:
            raise UsageError(f"{error}; or tensor, a bucket for each") from None


def even(size: int, bucket: str) -> tuple[int, ...]:
    """Return the sizes of even parts of a vector of unknown tensors, of at most so many bytes."""
    if bucket == TENSOR:
        raise UsageError(
            "overlap 'tensor' was given, but of --elements no tensors are known; give a size, such as 25MB, or --model"
        )
    count = min(size, -(-VALUE_BYTES * size // parse_size(bucket, "overlap")))
    if count > MOST_BUCKETS:
        raise InfeasibleError(
            f"overlap {bucket!r} cuts {size:,} elements into {count:,} buckets, each with exchanges of its own; take "
            f"at most {MOST_BUCKETS:,}, such as buckets of 25MB"
        )
    return tuple(size * (number + 1) // count - size * number // count for number in range(count))


def pieces_of(tensors: Sequence[int], bucket: str, ready: Sequence[float]) -> list[Piece]:
    """Return the pieces of a vector made of `tensors` of so many elements, in the order in which they get ready.

    `bucket` is "tensor", a bucket for each, or a size such as 25MB: consecutive tensors, from the last on, of no more
    bytes than that, or a larger one by itself.
    ``ready[n]`` is the share of the gradient's time after which tensor n is there.
    """
    starts = [0, *accumulate(tensors)]
    most = 0 if bucket == TENSOR else parse_size(bucket, "overlap")
    pieces: list[Piece] = []
    until = len(tensors)
    for first in range(until - 1, -1, -1):
        if first and VALUE_BYTES * (starts[until] - starts[first - 1]) <= most:
            continue
        earlier = pieces[-1].ready if pieces else 0.0
        pieces.append(Piece(starts[first], starts[until], (first, until), max(earlier, *ready[first:until])))
        until = first
    return [*pieces[:-1], pieces[-1]._replace(ready=1.0)]


def shards(size: int, tensors: int, servers: int) -> list[Piece]:
    """Return even pieces, one a server, of a gradient of so many `tensors`, exchanged when all of them are there."""
    ends = [size * number // servers for number in range(servers + 1)]
    return [Piece(first, last, (0, tensors), 1.0) for first, last in pairwise(ends)][::-1]


def at_shares(pieces: Sequence[Piece], shares: Sequence[float]) -> list[Piece]:
    """Return the pieces, ready after these shares of the time."""
    if len(shares) != len(pieces):
        raise UsageError(f"ready has {len(shares)} shares, but there are {len(pieces)} buckets; give one for each")
    return [piece._replace(ready=share) for piece, share in zip(pieces, shares, strict=True)]


def ready_by_elements(tensors: Sequence[int], forward: float = FORWARD) -> list[float]:
    """Return after which share of a gradient's time each tensor is there: backward takes as long as they are large."""
    total = sum(tensors)
    left = accumulate(reversed(tensors))
    return [forward + (1 - forward) * size / total for size in left][::-1]
