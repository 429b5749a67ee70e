"""Exchange of the gradient in buckets: while the backward pass still runs, or over several parameter servers.

Back-propagation computes the gradients of the last layers first. Consecutive tensors form a bucket. The exchange of a
bucket begins as soon as its gradient is complete, while earlier layers are still computed (wait-free
back-propagation). The exchanges of several buckets share the network, or pass a serial communicator one after another.
With several parameter servers, each server serves one part of the gradient, and all parts are exchanged at once.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from netsim._util.errors import InfeasibleError, UsageError, shown
from netsim._util.units import parse_size, read_number
from netsim.comm.payload import VALUE_BYTES, Dense, Sparse, Vector, cut, joined, size_rule
from netsim.comm.pieces import InPieces, Piece, Pieces
from netsim.comm.worker import Handle, Worker
from netsim.training.algorithm import Algorithm, Gradient, State
from netsim.training.profiler_trace import BackwardTrace, is_trace, read_trace
from netsim.training.sgd import SGDConfig

FORWARD = 1 / 3
"""Assumed fraction of a gradient's time for the forward pass; the backward pass makes twice as many products."""

MOST_BUCKETS = 10_000
"""Most buckets of a vector without tensors; each bucket has its own exchange and its own entry in the result."""
COMMUNICATORS = ("concurrent", "serial")
"""How a rank's exchanges run: at the same time, or one after another in the order in which buckets are ready."""
TENSOR = "tensor"
"""The value of --overlap that makes every tensor a bucket."""


class Bucket(NamedTuple):
    """A piece of the gradient, and the algorithm that exchanges it with its own memory and its own k.

    `server` is the index of the parameter server that serves the bucket, if the algorithm uses servers.
    """

    piece: Piece
    algorithm: Algorithm
    server: int = 0


class Overlapped(Algorithm):
    """An algorithm that exchanges the gradient bucket by bucket.

    One coroutine exchanges one bucket, and the coroutines of all buckets may run at the same time. With a single bucket
    the result is that of the algorithm itself. A parameter server that serves only some buckets leaves its copy of the
    parameters unchanged, because it does not know the other buckets.

    Parameters
    ----------
    buckets
        The buckets in the order in which their gradients are complete, the last layers first.
    serial
        Whether the exchange of a bucket, with its selection, begins only when that of the bucket before has ended, as
        on one communicator of NCCL.
    """

    concurrent = 1

    def __init__(self, buckets: Sequence[Bucket], serial: bool = False) -> None:
        self.buckets = tuple(buckets)
        self.serial = serial
        first = self.buckets[0].algorithm
        traits = ("name", "title", "sparse", "uses_server", "accumulates", "rate_on_sum", "precision")
        vars(self).update({trait: getattr(first, trait) for trait in traits})
        self._pieces: WeakKeyDictionary[Any, list[Vector]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Overlapped({self.name}, {len(self.buckets)} buckets)"

    def initial_memory(self, template: Vector) -> tuple[Any, ...]:
        """Return the memory of every bucket before the first exchange."""
        pieces = self._cut(template)
        return tuple(bucket.algorithm.initial_memory(piece) for bucket, piece in zip(self.buckets, pieces, strict=True))

    def selected(self, size: int, step: int) -> int:
        """Return the sum of k over the buckets."""
        return sum(algorithm.selected(piece.last - piece.first, step) for piece, algorithm, _ in self.buckets)

    def residual(self, memory: tuple[Any, ...]) -> Vector | None:
        """Return the residuals of all buckets, joined to one vector (d,); None without residuals."""
        parts = [bucket.algorithm.residual(part) for bucket, part in zip(self.buckets, memory, strict=True)]
        residuals = [part for part in reversed(parts) if isinstance(part, Dense)]
        return joined(*residuals) if residuals else None

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Make one training step, with the exchange of each bucket beside the rest of the backward pass."""
        backward: Pieces | None = None
        if gradient is not None:
            backward = await InPieces(gradient(parameters), [bucket.piece for bucket in self.buckets])
        branches: list[Worker] = []
        exchanges: dict[int, Handle[list[Any]]] = {}
        before: Handle[list[Any]] | None = None
        for index, piece in enumerate(self._cut(parameters)):
            if backward is None and self._server(worker, index) != worker.rank:
                continue
            gradient_piece = None if backward is None else await backward.next()
            branch = self._branch(worker, index, parameters.size)
            exchange = partial(self._exchange, branch, index, gradient_piece, piece, recipe, state.memory[index])
            branches.append(branch)
            exchanges[index] = before = await worker.fork(branch, _after(before if self.serial else None, exchange))
        if self.serial and before is not None:
            done = dict(zip(exchanges, await before, strict=True))
        else:
            done = {index: (await exchange)[0] for index, exchange in exchanges.items()}
        _count(worker, branches)
        memory = tuple(done[index][1] if index in done else old for index, old in enumerate(state.memory))
        state = state._replace(memory=memory)
        if len(done) < len(self.buckets):
            return parameters, state
        totals = [done[index][0] for index in reversed(range(len(self.buckets)))]
        total = totals[0] if len(totals) == 1 else await worker.replicated("update", joined, *totals)
        return await self.apply(worker, parameters, total, recipe, state)

    async def _exchange(
        self, worker: Worker, index: int, gradient: Vector | None, parameters: Vector, recipe: SGDConfig, memory: Any
    ) -> tuple[Vector, Any]:
        algorithm = self.buckets[index].algorithm
        vector = None if gradient is None else await algorithm.contribution(worker, gradient, parameters, recipe)
        return await algorithm.exchange_rounded(worker, vector, memory, template=parameters)

    def _branch(self, worker: Worker, index: int, size: int) -> Worker:
        first, last = self.buckets[index].piece[:2]
        server = self._server(worker, index)

        def observe(_: Worker, what: str, *vectors: Vector) -> None:
            worker.observe(what, *(_placed(vector, first, size) for vector in vectors))

        part = (first / size, last / size)
        return worker.branch(index, part, None if worker.observer is None else observe, server)

    def _server(self, worker: Worker, index: int) -> int:
        """Return the rank that serves a bucket; the ranks of servers on hosts of their own follow the workers'."""
        return worker.server + self.buckets[index].server

    def _cut(self, vector: Vector) -> list[Vector]:
        """Return the pieces of a vector; a cache gives all workers with the same vector the same pieces."""
        if vector not in self._pieces:
            self._pieces[vector] = [cut(vector, piece.first, piece.last) for piece, *_ in self.buckets]
        return self._pieces[vector]


async def _after(before: Handle[list[Any]] | None, exchange: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Begin an exchange after those `before` it, and return the results of all, because a handle has one waiter."""
    results = [] if before is None else await before
    results.append(await exchange())
    return results


def described(algorithm: Algorithm, measured: bool | None) -> dict[str, Any]:
    """Return the attributes `buckets` and `ready_provenance` of a result; none for an algorithm without buckets.

    Parameters
    ----------
    algorithm
        The algorithm that ran.
    measured
        Whether the times at which buckets are ready were measured; None for a real run, where they are not set.
    """
    if not isinstance(algorithm, Overlapped):
        return {}
    buckets = [
        {
            "elements": piece.last - piece.first,
            "k": exchange.selected(piece.last - piece.first, sys.maxsize) if exchange.sparse else None,
            "ready": None if measured is None else piece.ready,
            "server": server if exchange.uses_server else None,
        }
        for piece, exchange, server in algorithm.buckets
    ]
    provenance = None if measured is None else "MEASURED" if measured else "ASSUMED"
    return {"buckets": buckets, "ready_provenance": provenance}


def _count(worker: Worker, branches: Sequence[Worker]) -> None:
    """Add the counters and traffic of a worker's branches to its own; uploads of several buckets count as one."""
    uploads = [branch.tally.pop("uploads", 0) for branch in branches]
    for branch in branches:
        worker.tally.update(branch.tally)
        worker.traffic.add(branch.traffic)
    if any(uploads):
        worker.tally["uploads"] += max(uploads)


@size_rule(lambda vector, first, size: vector.resized(size, vector.entries))
def _placed(vector: Vector, first: int, size: int) -> Vector:
    """Return a piece as a sparse vector of `size` elements, zero outside the piece."""
    import torch

    assert isinstance(vector, Dense | Sparse)
    indices = vector.indices if isinstance(vector, Sparse) else torch.arange(vector.size, device=vector.values.device)
    return Sparse((indices + first).to(torch.int32), vector.values, size)


class Ready(NamedTuple):
    """The value of --ready: when the gradient of each bucket is complete.

    Attributes
    ----------
    measured
        Whether the times are measured on this machine.
    shares
        For each bucket, the fraction of the gradient's time after which it is complete; empty for times in proportion
        to elements.
    forward
        The fraction of the gradient's time for the forward pass, used with times in proportion to elements.
    trace
        The backward pass in a trace of torch.profiler, whose times replace all others; None without a trace.
    """

    measured: bool = False
    shares: tuple[float, ...] = ()
    forward: float = FORWARD
    trace: BackwardTrace | None = None

    @classmethod
    def of(cls, text: str) -> Ready:
        """Parse "measured", "elements", "elements:0.4" (fraction of the forward pass), "0.5,0.8,1" or a trace's name.

        Raises
        ------
        UsageError
            For any other text, for fractions that fall or do not end at 1, and for a file that is no trace.
        """
        if is_trace(text):
            return cls(trace=read_trace(text))
        kind, _, forward = text.partition(":")
        if text == "measured":
            return cls(measured=True)
        numbers = [read_number(part) for part in ([forward or str(FORWARD)] if kind == "elements" else text.split(","))]
        valid = tuple(-1.0 if number is None else number for number in numbers)
        ready = cls(forward=valid[0]) if kind == "elements" else cls(shares=valid)
        rising = all(0 <= earlier <= later for earlier, later in pairwise((*ready.shares, 1.0)))
        if not 0 <= ready.forward < 1 or not rising or (ready.shares and ready.shares[-1] != 1):
            raise UsageError(
                f"ready {shown(text)} must be measured, elements, elements:F with the fraction F of the forward pass, "
                "one rising fraction per bucket that ends at 1, such as 0.5,0.8,1, or a trace of torch.profiler"
            )
        return ready


def check_bucket(bucket: str) -> None:
    """Raise UsageError unless `bucket` is "tensor" or a size such as 25MB."""
    if bucket != TENSOR:
        try:
            parse_size(bucket, "overlap")
        except UsageError as error:
            raise UsageError(f"{error}; or tensor, for one bucket per tensor") from None


def even(size: int, bucket: str, value_bytes: int = VALUE_BYTES) -> tuple[int, ...]:
    """Return the elements of equal parts of a vector of `size` elements, each of at most `bucket` bytes.

    An element has `value_bytes` bytes.

    Raises
    ------
    UsageError
        If `bucket` is "tensor", because the tensors of the vector are unknown.
    InfeasibleError
        If there would be more than 10,000 parts.
    """
    if bucket == TENSOR:
        raise UsageError(
            "overlap 'tensor' was given, but --elements does not define tensors; give a size, such as 25MB, or --model"
        )
    count = min(size, -(-value_bytes * size // parse_size(bucket, "overlap")))
    if count > MOST_BUCKETS:
        raise InfeasibleError(
            f"overlap {bucket!r} cuts {size:,} elements into {count:,} buckets, each with its own exchange; take "
            f"at most {MOST_BUCKETS:,}, such as buckets of 25MB"
        )
    return tuple(size * (index + 1) // count - size * index // count for index in range(count))


def pieces_of(
    tensors: Sequence[int], bucket: str, ready: Sequence[float], value_bytes: int = VALUE_BYTES
) -> list[Piece]:
    """Cut the gradient into buckets of consecutive tensors.

    Parameters
    ----------
    tensors
        The number of elements of each tensor, first layer first.
    bucket
        "tensor" for one bucket per tensor, or a size such as 25MB. A bucket of a size takes consecutive tensors, from
        the last one on, up to that many bytes; a larger tensor is a bucket by itself.
    ready
        ``ready[n]`` is the fraction of the gradient's time after which tensor n is complete.
    value_bytes
        The bytes of an element.

    Returns
    -------
    list of Piece
        The buckets in the order in which they are complete, the last layers first.
    """
    starts = [0, *accumulate(tensors)]
    most = 0 if bucket == TENSOR else parse_size(bucket, "overlap")
    pieces: list[Piece] = []
    until = len(tensors)
    for first in range(until - 1, -1, -1):
        if first and value_bytes * (starts[until] - starts[first - 1]) <= most:
            continue
        earlier = pieces[-1].ready if pieces else 0.0
        pieces.append(Piece(starts[first], starts[until], (first, until), max(earlier, *ready[first:until])))
        until = first
    return [*pieces[:-1], pieces[-1]._replace(ready=1.0)]


def shards(size: int, tensors: int, servers: int) -> list[Piece]:
    """Return one equal piece of a gradient per server; each is exchanged when all `tensors` are complete."""
    ends = [size * index // servers for index in range(servers + 1)]
    return [Piece(first, last, (0, tensors), 1.0) for first, last in pairwise(ends)][::-1]


def at_shares(pieces: Sequence[Piece], shares: Sequence[float]) -> list[Piece]:
    """Return the pieces with `shares` as the fractions of the gradient's time after which they are complete.

    Raises
    ------
    UsageError
        If there is not one share per piece.
    """
    if len(shares) != len(pieces):
        raise UsageError(
            f"ready has {len(shares)} fractions, but there are {len(pieces)} buckets; give one for each bucket"
        )
    return [piece._replace(ready=share) for piece, share in zip(pieces, shares, strict=True)]


def ready_by_elements(tensors: Sequence[int], forward: float = FORWARD) -> list[float]:
    """Return the fraction of the gradient's time at which each tensor is complete, if backward time ∝ elements."""
    total = sum(tensors)
    left = accumulate(reversed(tensors))
    return [forward + (1 - forward) * size / total for size in left][::-1]
