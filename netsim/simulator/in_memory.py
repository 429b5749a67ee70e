"""The transport in memory: messages arrive at once, and nothing takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsim.comm.worker import Compute, Recv, Send, Worker
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.scheduler import Done


class InMemoryTransport:
    """A transport without time."""

    now = 0

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        """Let the message arrive at once."""
        sent(None, path)
        arrived(None, path)

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        """Do nothing: messages wait for their receivers."""

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        """Compute at once."""
        done(call(), path)

    def advance(self) -> bool:
        """Return False: no event is ever left."""
        return False
