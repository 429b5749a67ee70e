"""One message over torch.distributed: one transfer, or a header and a body, and perhaps the receiver's word for it.

gloo moves nothing before its receiver is ready for as much, and says so over the very connection that carries data
the other way. Header and body are one transfer where the receiver knows the size before; else the header goes first,
and the receiver makes ready for a body of the size that it tells.

All this is on the way of every message. Where many ranks take turns on a processor, what each needs is in no cache,
and a call of torch's costs many times what it does in a loop: the fewer, the better.
"""

from __future__ import annotations

import functools
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from netsim._util.errors import NetsimError
from netsim.comm.payload import Payload, describe
from netsim.comm.worker import Handle
from netsim.distributed.rank_context import failure

HEADER, BODY, RECEIPT = range(3)
"""The kinds of transfer that a tag stands for; torch.distributed matches them by tag."""


_WHOLE = 1 << 30


def transfer_tag(tag: int, kind: int) -> int:
    """Return torch.distributed's tag of one transfer of a message."""
    return 3 * tag + kind


@functools.lru_cache(256)
def whole_tag(tag: int, nbytes: int) -> int:
    """Return torch.distributed's tag of a message that is one transfer.

    The size is part of it: gloo ends a process that is sent more than it is ready for, without a word of Python's.
    """
    return _WHOLE | zlib.crc32(struct.pack("<qq", tag, nbytes)) % _WHOLE


class Where(NamedTuple):
    """What a rank is at with a peer; put into words only if that is wanted."""

    rank: int
    operation: str
    step: int
    doing: str
    peer: int
    payload: Payload | None = None
    """What is sent, or what is expected to be like."""

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.operation}, step {self.step}, {self.doing} {self.peer}"

    def failed(self, error: RuntimeError) -> NetsimError:
        """Return what an error of torch.distributed means here: PeerSilentError after a timeout, or PeerLostError."""
        return failure(str(self), error, self.peer, "" if self.payload is None else describe(self.payload))


class Transfer:
    """A tensor under way, held until it has arrived or left; ``begin`` is the group's `send` or its `recv`."""

    __slots__ = ("_where", "_work", "tensor")

    def __init__(self, begin: Callable[..., dist.Work | None], tensor: torch.Tensor, tag: int, where: Where) -> None:
        self.tensor, self._where = tensor, where
        try:
            self._work: Any = begin([tensor], where.peer, tag)
        except RuntimeError as error:  # the connection is known to be gone
            raise where.failed(error) from error

    def wait(self) -> torch.Tensor:
        """Wait until it has arrived or left; raise PeerSilentError after the group's timeout, or PeerLostError."""
        wait(self._work, self._where)
        return self.tensor


def wait(work: dist.Work, where: Where) -> None:
    """Wait until something is done; raise PeerSilentError after the group's timeout, or PeerLostError."""
    try:
        work.wait()
    except RuntimeError as error:
        raise where.failed(error) from error


class Outgoing(Handle[None]):
    """A message being sent; `finish` waits until the sender may go on.

    That is when the kernel holds the last of it, or, if the first of its transfers is a receipt, when the receiver has
    it. Where its header is one of them, ``begin_body()`` sends its body.
    """

    __slots__ = ("_begin_body", "_transfers")

    def __init__(self, transfers: list[Transfer], begin_body: Callable[[], Transfer] | None = None) -> None:
        self._transfers, self._begin_body = transfers, begin_body

    def send_body(self) -> None:
        """Let the body follow the header."""
        if self._begin_body is not None:
            self._transfers.append(self._begin_body())
            self._begin_body = None

    def finish(self) -> None:
        self.send_body()
        for transfer in reversed(self._transfers):  # the receipt comes last, for which all else has to be there
            transfer.wait()
        self._transfers = []  # their tensors must go


class Incoming(Handle[Any]):
    """A message being received; `finish` waits for it and returns what ``unpack(message)`` makes of it.

    ``acknowledge()``, if any, is called as soon as it is there.
    """

    __slots__ = ("_acknowledge", "_answer", "_error", "_first", "_thread", "_unpack")

    def __init__(self, first: Transfer, unpack: Callable[..., Any], acknowledge: Callable[[], None] | None) -> None:
        self._first, self._unpack, self._acknowledge = first, unpack, acknowledge
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._answer: list[Any] = []

    def make_ready(self) -> None:
        """Be ready for all of it, if need be by waiting for its header."""

    def in_background(self) -> None:
        """Receive while this rank does something else: no more is sent than somebody is ready for."""
        if self._acknowledge is not None:
            self._start_thread()

    def finish(self) -> Any:
        if not self._answer:
            if self._thread is None:
                self._receive()
            else:
                self._thread.join()
            if self._error is not None:
                raise self._error
            self._answer.append(self._unpack(*self._tensors()))
        return self._answer[0]

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._note_errors, daemon=True)
        self._thread.start()

    def _note_errors(self) -> None:
        try:
            self._receive()
        except BaseException as error:
            self._error = error

    def _receive(self) -> None:
        self._wait()
        if self._acknowledge is not None:
            self._acknowledge()

    def _wait(self) -> None:
        self._first.wait()

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        return (self._first.tensor,)


class Announced(Incoming):
    """A message being received whose size only its header tells: that arrives first, ``unpack(header, body)``.

    ``body_after(header)`` makes ready for the body, or returns None if there is none, or raises if it is not the
    one expected.
    """

    __slots__ = ("_body", "_body_after")

    def __init__(
        self,
        header: Transfer,
        body_after: Callable[[torch.Tensor], Transfer | None],
        unpack: Callable[..., Any],
        acknowledge: Callable[[], None] | None,
    ) -> None:
        super().__init__(header, unpack, acknowledge)
        self._body_after: Callable[[torch.Tensor], Transfer | None] | None = body_after
        self._body: Transfer | None = None

    def make_ready(self) -> None:
        if self._body_after is not None:
            self._body = self._body_after(self._first.wait())
            self._body_after = None

    def in_background(self) -> None:
        self._start_thread()

    def _wait(self) -> None:
        self.make_ready()
        if self._body is not None:
            self._body.wait()

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        empty = torch.empty(0, dtype=torch.uint8)
        return self._first.tensor, empty if self._body is None else self._body.tensor
