"""A gradient whose pieces are used during backward: the pieces of the last layers are ready first."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from netsim.comm.payload import Vector, cut
from netsim.comm.worker import EXPAND, Compute


class Piece(NamedTuple):
    """A piece of a flat vector: the elements [first, last), which lie in tensors number [tensors[0], tensors[1]).

    `ready` is the fraction of the gradient's compute time after which the piece is ready.
    """

    first: int
    last: int
    tensors: tuple[int, int]
    ready: float


@dataclass(frozen=True, slots=True)
class InPieces:
    """Request to compute a gradient, whose pieces become ready one after another, those of the last layers first.

    ``await`` returns :class:`Pieces`. An interpreter may continue the computation while other coroutines of the rank
    exchange pieces. After :data:`EXPAND` the whole gradient is computed at once, and its time passes in pieces.
    """

    whole: Compute[Vector]
    pieces: Sequence[Piece]

    def __await__(self) -> Generator[Any, Any, Pieces]:
        answer = yield self
        return InTurn(self) if answer is EXPAND else answer


class Pieces:
    """The pieces of a gradient that is being computed."""

    async def next(self) -> Vector:
        """Wait until the next piece is ready, and return it; no other coroutine uses its elements."""
        raise NotImplementedError


class InTurn(Pieces):
    """The pieces of a gradient that was computed at once, each returned after its share of the time."""

    def __init__(self, request: InPieces) -> None:
        self._request = request
        self._whole: Vector | None = None
        self._given = 0

    async def next(self) -> Vector:
        """Return the next piece after its share of the time."""
        whole, pieces = self._request.whole, self._request.pieces
        part = (pieces[self._given - 1].ready if self._given else 0.0, pieces[self._given].ready)
        if self._whole is None:
            self._whole = await whole._replace(part=part)
        else:
            await Compute(whole.work, _pass_time, whole.args, part=part)
        self._given += 1
        return cut(self._whole, *pieces[self._given - 1][:2])


def _pass_time(*args: Any) -> None:
    """Do nothing: the gradient is already computed, and only its time is charged."""
