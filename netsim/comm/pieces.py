"""A gradient that is used while it is still being computed: the last layers' pieces are there first."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from netsim.comm.payload import Vector, cut
from netsim.comm.worker import EXPAND, Compute


class Piece(NamedTuple):
    """One piece of a flat vector: elements `first` to `last`, which are its `tensors` from one number to another.

    `ready` is the share of a gradient's time after which the piece is there.
    """

    first: int
    last: int
    tensors: tuple[int, int]
    ready: float


@dataclass(frozen=True, slots=True)
class InPieces:
    """Begin to compute a gradient whose pieces are taken as they get ready, the last layers' first.

    Answers :class:`Pieces`. An interpreter may compute on while others of the rank's coroutines exchange what is
    there, or answer :data:`EXPAND`: then the whole is made at once, and its time passes piece by piece.
    """

    whole: Compute[Vector]
    pieces: Sequence[Piece]

    def __await__(self) -> Generator[Any, Any, Pieces]:
        answer = yield self
        return InTurn(self) if answer is EXPAND else answer


class Pieces:
    """A gradient that is being computed."""

    async def next(self) -> Vector:
        """Return the next piece; nobody else holds it."""
        raise NotImplementedError


class InTurn(Pieces):
    """The pieces of a gradient that is computed at once, each after its share of the time."""

    def __init__(self, request: InPieces) -> None:
        self._request = request
        self._whole: Vector | None = None
        self._given = 0

    async def next(self) -> Vector:
        whole, pieces = self._request.whole, self._request.pieces
        part = (pieces[self._given - 1].ready if self._given else 0.0, pieces[self._given].ready)
        if self._whole is None:
            self._whole = await replace(whole, part=part)
        else:
            await Compute(whole.work, _pass_time, whole.args, part=part)
        self._given += 1
        return cut(self._whole, *pieces[self._given - 1][:2])


def _pass_time(*args: Any) -> None:
    """Compute nothing: what takes this time was computed before."""
