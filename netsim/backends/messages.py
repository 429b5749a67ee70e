"""One message over torch.distributed: a header, a body, and perhaps the receiver's word that it is there.

gloo moves nothing before its receiver is ready for as much, and says so over the very connection that carries data
the other way. Header and body are one transfer where the receiver knows the size before; else the header goes first,
and the receiver makes ready for a body of the size that it tells.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from netsim.backends.wire import HEADER_BYTES
from netsim.errors import NetsimError
from netsim.jobs.whereabouts import failure
from netsim.payload import Payload, describe
from netsim.worker import Handle

HEADER, BODY, RECEIPT = range(3)
"""The kinds of transfer that a tag stands for; torch.distributed matches them by tag."""


_WHOLE = 1 << 30


def transfer_tag(tag: int, kind: int) -> int:
    """Return torch.distributed's tag of one transfer of a message."""
    return 3 * tag + kind


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


class Transfer:
    """A tensor under way, held until it has arrived or left."""

    __slots__ = ("_peer", "_work", "tensor")

    def __init__(self, work: dist.Work | None, tensor: torch.Tensor, peer: int) -> None:
        assert work is not None, "this process is not in the group"
        self._work, self._peer = work, peer
        self.tensor = tensor

    @classmethod
    def out(cls, tensor: torch.Tensor, dst: int, tag: int, where: Where) -> Transfer:
        return cls(_begin(_group().send, tensor, dst, tag, where), tensor, dst)

    @classmethod
    def into(cls, tensor: torch.Tensor, src: int, tag: int, where: Where) -> Transfer:
        return cls(_begin(_group().recv, tensor, src, tag, where), tensor, src)

    def wait(self, where: Where) -> torch.Tensor:
        """Wait until it has arrived or left; raise PeerSilentError after the group's timeout, or PeerLostError."""
        try:
            self._work.wait()
        except RuntimeError as error:
            raise _failed(where, error, self._peer) from error
        return self.tensor


def _group() -> dist.ProcessGroup:
    """Return the group that everybody is in: asked itself, it leaves out what isend and irecv look up at every call."""
    group = dist.group.WORLD
    assert group is not None, "this process is not in the group"
    return group


def _begin(begin: Callable[..., dist.Work | None], tensor: torch.Tensor, peer: int, tag: int, where: Where) -> Any:
    try:
        return begin([tensor], peer, tag)
    except RuntimeError as error:  # the connection is known to be gone
        raise _failed(where, error, peer) from error


def _failed(where: Where, error: RuntimeError, peer: int) -> NetsimError:
    return failure(str(where), error, peer, "" if where.payload is None else describe(where.payload))


class Outgoing(Handle[Any]):
    """A message being sent; `finish` waits until the sender may go on.

    That is when the kernel holds the last of it, or, if `acknowledged`, when the receiver has it. Without a `body` of
    its own, `first` is the whole message.
    """

    __slots__ = ("_dst", "_pending", "_tag", "_transfers", "_where")

    def __init__(
        self, first: torch.Tensor, body: torch.Tensor | None, dst: int, tag: int, where: Where, acknowledged: bool
    ) -> None:
        self._dst, self._tag, self._where = dst, tag, where
        self._pending = body if body is not None and body.numel() else None
        first_tag = whole_tag(tag, first.numel()) if body is None else transfer_tag(tag, HEADER)
        self._transfers: list[Transfer] = []
        if acknowledged:
            byte = torch.empty(1, dtype=torch.uint8)
            self._transfers.append(Transfer.into(byte, dst, transfer_tag(tag, RECEIPT), where))
        self._transfers.append(Transfer.out(first, dst, first_tag, where))

    def send_body(self) -> None:
        """Let the body follow the header."""
        if self._pending is not None:
            body = Transfer.out(self._pending, self._dst, transfer_tag(self._tag, BODY), self._where)
            self._transfers.append(body)
            self._pending = None

    def finish(self) -> None:
        self.send_body()
        for transfer in reversed(self._transfers):  # the receipt comes last, for which all else has to be there
            transfer.wait(self._where)
        self._transfers = []  # their tensors must go


class Incoming(Handle[Any]):
    """A message being received; `finish` waits for it and returns what ``unpack(first, body, receipt)`` makes of it.

    If it has `known` bytes, `first` is all of it and `body` is None. Else `first` is its header, of which
    ``body_bytes(header)`` tells the size of the body, or raises if it is not the one expected.
    """

    __slots__ = (
        *("_acknowledged", "_answer", "_body", "_body_bytes", "_device", "_error", "_first", "_known", "_src", "_tag"),
        *("_receipt", "_thread", "_unpack", "_where"),
    )

    def __init__(
        self,
        src: int,
        tag: int,
        device: str,
        where: Where,
        known: int | None,
        body_bytes: Callable[[torch.Tensor], int],
        unpack: Callable[[torch.Tensor, torch.Tensor | None, Transfer | None], Any],
        acknowledged: bool,
    ) -> None:
        self._src, self._tag, self._device, self._where = src, tag, device, where
        self._known, self._body_bytes, self._unpack, self._acknowledged = known, body_bytes, unpack, acknowledged
        first_tag = transfer_tag(tag, HEADER) if known is None else whole_tag(tag, known)
        first = torch.empty(HEADER_BYTES if known is None else known, dtype=torch.uint8)
        self._first = Transfer.into(first, src, first_tag, where)
        self._body: Transfer | torch.Tensor | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._answer: list[Any] = []
        self._receipt: Transfer | None = None

    def make_ready(self) -> None:
        """Be ready for all of it, if need be by waiting for its header."""
        if self._known is None and self._body is None:
            size = self._body_bytes(self._first.wait(self._where))
            body = torch.empty(size, dtype=torch.uint8, device=self._device)
            tag = transfer_tag(self._tag, BODY)
            self._body = Transfer.into(body, self._src, tag, self._where) if size else body

    def in_background(self) -> None:
        """Receive while this rank does something else: no more is sent than somebody is ready for."""
        if self._known is None or self._acknowledged:
            self._thread = threading.Thread(target=self._receive, daemon=True)
            self._thread.start()

    def _receive(self) -> None:
        try:
            self.make_ready()
            last = self._first if self._known is not None else self._body
            if isinstance(last, Transfer):
                last.wait(self._where)
            if self._acknowledged:
                byte = torch.zeros(1, dtype=torch.uint8)
                self._receipt = Transfer.out(byte, self._src, transfer_tag(self._tag, RECEIPT), self._where)
        except BaseException as error:
            self._error = error

    def finish(self) -> Any:
        if not self._answer:
            if self._thread is None:
                self._receive()
            else:
                self._thread.join()
            if self._error is not None:
                raise self._error
            body = self._body.tensor if isinstance(self._body, Transfer) else self._body
            self._answer.append(self._unpack(self._first.tensor, body, self._receipt))
            self._body = None
        return self._answer[0]
