"""The rounds of an exchange: which rank sends what to whom at the same time, if every message takes one round."""

from __future__ import annotations

from typing import NamedTuple

from netsim.comm.payload import nbytes
from netsim.comm.worker import Send, Worker
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.scheduler import Done, InMemoryTransport


class RoundMessage(NamedTuple):
    """A message of an exchange.

    Attributes
    ----------
    round
        The round in which it is sent, from 1.
    src, dst
        The ranks of its sender and its receiver.
    bytes
        Bytes of its values and indices.
    operation
        The collective that it belongs to.
    """

    round: int
    src: int
    dst: int
    bytes: int
    operation: str


class RoundsTransport(InMemoryTransport):
    """The transport of a network where every message takes one round, and computations take no time.

    A sender continues when its message has arrived, so a rank that sends two messages one after another needs two
    rounds. ``messages`` lists all messages in the order in which they were sent.
    """

    def __init__(self) -> None:
        self.messages: list[RoundMessage] = []
        self._round = 1
        self._under_way: list[tuple[CriticalPath, Done, Done]] = []

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Record the message, and deliver it at the end of the round."""
        message = RoundMessage(self._round, worker.rank, request.dst, nbytes(request.payload), worker.operation)
        self.messages.append(message)
        self._under_way.append((path, sent, arrived))

    def advance(self) -> bool:
        """Deliver the messages of the round; return False if there are none."""
        delivered, self._under_way = self._under_way, []
        self._round += 1
        for path, sent, arrived in delivered:
            sent(None, path)
            arrived(None, path)
        return bool(delivered)
