"""One message over torch.distributed: a single transfer, or a header and a body, and perhaps a receipt.

gloo moves no data before the receiver is ready for it. Its notice of that goes over the connection that carries data
the other way. If the receiver knows the size beforehand, header and body are one transfer. Else the header goes first,
and the receiver gets ready for a body of the size in the header.

Every message runs this code. Where many ranks take turns on a core, none of it is in a cache. A call of torch's then
costs many times what it does in a loop, so this code makes few calls.
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
"""Kinds of transfer; torch.distributed matches transfers by tag, so the kind is part of it."""
_WHOLE = 1 << 30
"""Bit of the tags of messages that are a single transfer."""


def transfer_tag(tag: int, kind: int) -> int:
    """Return torch.distributed's tag of a message's header, body or receipt."""
    return 3 * tag + kind


@functools.lru_cache(256)
def whole_tag(tag: int, nbytes: int) -> int:
    """Return torch.distributed's tag of a message that is a single transfer.

    The size is part of the tag, since gloo ends a process that is sent more than it is ready for, with no Python error.
    """
    return _WHOLE | zlib.crc32(struct.pack("<qq", tag, nbytes)) % _WHOLE


class Where(NamedTuple):
    """An operation of a rank with a peer; it becomes text only for an error.

    `payload` is what is sent, or a template of what is expected.
    """

    rank: int
    operation: str
    step: int
    doing: str
    peer: int
    payload: Payload | None = None

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.operation}, step {self.step}, {self.doing} {self.peer}"

    def failed(self, error: RuntimeError) -> NetsimError:
        """Return netsim's error for one of torch.distributed: PeerSilentError after a timeout, or PeerLostError."""
        return failure(str(self), error, self.peer, "" if self.payload is None else describe(self.payload))


class Transfer:
    """A tensor under way, which is kept until it has arrived or left.

    Parameters
    ----------
    begin
        The group's `send` or `recv`.
    tensor
        What is sent, or room for what is received.
    tag
        Tag by which torch.distributed matches transfers.
    where
        For errors.
    """

    __slots__ = ("_where", "_work", "tensor")

    def __init__(self, begin: Callable[..., dist.Work | None], tensor: torch.Tensor, tag: int, where: Where) -> None:
        self.tensor, self._where = tensor, where
        try:
            self._work: Any = begin([tensor], where.peer, tag)
        except RuntimeError as error:  # the connection is closed already
            raise where.failed(error) from error

    def wait(self) -> torch.Tensor:
        """Wait until the tensor has arrived or left; raise PeerSilentError after the timeout, or PeerLostError."""
        wait(self._work, self._where)
        return self.tensor


def wait(work: dist.Work, where: Where) -> None:
    """Wait for a transfer; raise PeerSilentError after the group's timeout, or PeerLostError."""
    try:
        work.wait()
    except RuntimeError as error:
        raise where.failed(error) from error


class Outgoing(Handle[None]):
    """A message being sent.

    Parameters
    ----------
    transfers
        Transfers under way. If the first is a receipt, the sender may go on when the receiver has the message; else it
        may when the kernel holds the whole message.
    begin_body
        Sends the body, where one of the transfers is the header.
    """

    __slots__ = ("_begin_body", "_transfers")

    def __init__(self, transfers: list[Transfer], begin_body: Callable[[], Transfer] | None = None) -> None:
        self._transfers, self._begin_body = transfers, begin_body

    def send_body(self) -> None:
        """Send the body after the header, if it is separate and has not been sent."""
        if self._begin_body is not None:
            self._transfers.append(self._begin_body())
            self._begin_body = None

    @property
    def done(self) -> bool:
        """Whether the sender has waited for it."""
        return not self._transfers

    def finish(self) -> None:
        """Wait until the sender may go on."""
        self.send_body()
        for transfer in reversed(self._transfers):  # the receipt comes last, after all the rest has arrived
            transfer.wait()
        self._transfers = []  # free their tensors


class Incoming(Handle[Any]):
    """A message being received.

    Parameters
    ----------
    first
        Transfer of the message, or of its header.
    unpack
        ``unpack(message)`` returns the payload.
    acknowledge
        Called as soon as the message has arrived; None to send no receipt.
    """

    __slots__ = ("_acknowledge", "_answer", "_error", "_first", "_thread", "_unpack")

    def __init__(self, first: Transfer, unpack: Callable[..., Any], acknowledge: Callable[[], None] | None) -> None:
        self._first, self._unpack, self._acknowledge = first, unpack, acknowledge
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._answer: list[Any] = []

    def make_ready(self) -> None:
        """Get ready for the whole message, if necessary by waiting for its header."""

    def in_background(self) -> None:
        """Receive while this rank does something else, in a thread if the message needs an answer meanwhile."""
        if self._acknowledge is not None:
            self._start_thread()

    @property
    def done(self) -> bool:
        """Whether the receiver has its payload."""
        return bool(self._answer)

    def finish(self) -> Any:
        """Wait for the message, and return its payload."""
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


class BothWays(Handle[Any]):
    """A message being sent and one being received, which are done together."""

    __slots__ = ("_outgoing", "incoming")

    def __init__(self, incoming: Incoming, outgoing: Outgoing) -> None:
        self.incoming, self._outgoing = incoming, outgoing

    def finish(self) -> Any:
        """Wait for both messages, and return the payload received."""
        payload = self.incoming.finish()
        self._outgoing.finish()
        return payload


class Received(Handle[Any]):
    """An exchange that was finished when it was started, and its result."""

    __slots__ = ("_payload",)

    def __init__(self, payload: Any) -> None:
        self._payload = payload

    def finish(self) -> Any:
        """Return the payload received."""
        return self._payload


class Announced(Incoming):
    """A message that is received in two transfers: a header, which tells the size, then the body.

    Parameters
    ----------
    header
        Transfer of the header.
    body_after
        ``body_after(header)`` gets ready for the body and returns its transfer, or None if the body is empty; it raises
        ProtocolError if the message is not the expected one.
    unpack
        ``unpack(header, body)`` returns the payload.
    acknowledge
        Called as soon as the body has arrived; None to send no receipt.
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
        """Wait for the header, and get ready for the body."""
        if self._body_after is not None:
            self._body = self._body_after(self._first.wait())
            self._body_after = None

    def in_background(self) -> None:
        """Receive in a thread, since the body is sent only when this rank is ready for it."""
        self._start_thread()

    def _wait(self) -> None:
        self.make_ready()
        if self._body is not None:
            self._body.wait()

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        empty = torch.empty(0, dtype=torch.uint8)
        return self._first.tensor, empty if self._body is None else self._body.tensor
