"""One message over torch.distributed: a header, a body, and perhaps the receiver's word that it is there.

gloo moves nothing before its receiver is ready, and says so over the very connection that carries data
the other way. So a header goes first, and the receiver makes ready for a body of that size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from netsim.backends.wire import HEADER_WORDS, Header
from netsim.jobs.whereabouts import failure
from netsim.worker import Handle

HEADER, BODY, RECEIPT = range(3)
"""The kinds of transfer that a tag stands for; torch.distributed matches them by tag."""


def transfer_tag(tag: int, kind: int) -> int:
    """Return torch.distributed's tag of one transfer of a message."""
    return 3 * tag + kind


class Transfer:
    """A tensor under way, held until it has arrived or left."""

    __slots__ = ("_peer", "_work", "tensor")

    def __init__(self, work: dist.Work | None, tensor: torch.Tensor, peer: int) -> None:
        assert work is not None, "this process is not in the group"
        self._work, self._peer = work, peer
        self.tensor = tensor

    @classmethod
    def out(cls, tensor: torch.Tensor, dst: int, tag: int, where: str) -> Transfer:
        return cls(_begin(_group().send, tensor, dst, tag, where), tensor, dst)

    @classmethod
    def into(cls, tensor: torch.Tensor, src: int, tag: int, where: str) -> Transfer:
        return cls(_begin(_group().recv, tensor, src, tag, where), tensor, src)

    def wait(self, where: str) -> torch.Tensor:
        """Wait until it has arrived or left; raise PeerSilentError after the group's timeout, or PeerLostError."""
        try:
            self._work.wait()
        except RuntimeError as error:
            raise failure(where, error, self._peer) from error
        return self.tensor


def _group() -> dist.ProcessGroup:
    """Return the group that everybody is in: asked itself, it leaves out what isend and irecv look up at every call."""
    group = dist.group.WORLD
    assert group is not None, "this process is not in the group"
    return group


def _begin(begin: Callable[..., dist.Work | None], tensor: torch.Tensor, peer: int, tag: int, where: str) -> Any:
    try:
        return begin([tensor], peer, tag)
    except RuntimeError as error:  # the connection is known to be gone
        raise failure(where, error, peer) from error


class Outgoing(Handle[Any]):
    """A message being sent; `finish` waits until the sender may go on.

    That is when the kernel holds the last of it, or, if `acknowledged`, when the receiver has it.
    """

    __slots__ = ("_body", "_dst", "_header", "_pending", "_receipt", "_tag", "_where")

    def __init__(self, header: torch.Tensor, body: torch.Tensor, dst: int, tag: int, where: str, acknowledged: bool):
        self._dst, self._tag, self._where = dst, tag, where
        self._receipt = None
        if acknowledged:
            self._receipt = Transfer.into(torch.empty(1, dtype=torch.uint8), dst, transfer_tag(tag, RECEIPT), where)
        self._header = Transfer.out(header, dst, transfer_tag(tag, HEADER), where)
        self._pending: torch.Tensor | None = body if body.numel() else None
        self._body: Transfer | None = None

    def send_body(self) -> None:
        """Let the body follow the header."""
        if self._pending is not None:
            self._body = Transfer.out(self._pending, self._dst, transfer_tag(self._tag, BODY), self._where)
            self._pending = None

    def finish(self) -> None:
        self.send_body()
        for transfer in (self._header, self._body, self._receipt):
            if transfer is not None:
                transfer.wait(self._where)
        self._body = self._receipt = None  # their tensors must go


class Incoming(Handle[Any]):
    """A message being received; `finish` waits for it and returns what `unpack` makes of header and body.

    ``check(words)`` decodes a header, and raises unless it is the one expected.
    """

    __slots__ = (
        *("_acknowledged", "_answer", "_body", "_check", "_device", "_error", "_header", "_src", "_tag"),
        *("_thread", "_unpack", "_where", "header", "receipt"),
    )

    def __init__(
        self,
        src: int,
        tag: int,
        device: str,
        where: str,
        check: Callable[[torch.Tensor], Header],
        unpack: Callable[[torch.Tensor, Header], Any],
        acknowledged: bool,
    ) -> None:
        self._src, self._tag, self._device, self._where = src, tag, device, where
        self._check, self._unpack, self._acknowledged = check, unpack, acknowledged
        words = torch.empty(HEADER_WORDS, dtype=torch.int64)
        self._header = Transfer.into(words, src, transfer_tag(tag, HEADER), where)
        self._body: Transfer | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._answer: list[Any] = []
        self.header: Header | None = None
        self.receipt: Transfer | None = None

    def make_ready(self) -> Header:
        """Wait for the header, and be ready for the body that it announces."""
        if self.header is None:
            self.header = self._check(self._header.wait(self._where))
            body = torch.empty(self.header.body_bytes, dtype=torch.uint8, device=self._device)
            if self.header.body_bytes:
                self._body = Transfer.into(body, self._src, transfer_tag(self._tag, BODY), self._where)
        return self.header

    def in_background(self) -> None:
        """Receive while this rank does something else: a body is not sent before somebody is ready for it."""
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        try:
            self.make_ready()
            if self._body is not None:
                self._body.wait(self._where)
            if self._acknowledged:
                byte = torch.zeros(1, dtype=torch.uint8)
                self.receipt = Transfer.out(byte, self._src, transfer_tag(self._tag, RECEIPT), self._where)
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
            assert self.header is not None
            body = torch.empty(0, dtype=torch.uint8) if self._body is None else self._body.tensor
            self._answer.append(self._unpack(body, self.header))
            self._body = None
        return self._answer[0]
