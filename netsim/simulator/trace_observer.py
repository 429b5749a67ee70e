"""A transport that records what goes on in another one, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsim.comm.payload import nbytes
from netsim.comm.worker import Compute, Recv, Send, Worker
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.scheduler import Done
from netsim.simulator.trace import Computation, Trace, TracedMessage


class TracedTransport:
    """Passes everything on to `transport`, message by message, and fills `trace`."""

    def __init__(self, transport: SimulatedTransport, trace: Trace) -> None:
        self._transport = transport
        self._also, transport.note = transport.note, self._note
        self._trace = trace

    @property
    def now(self) -> int:
        return self._transport.now

    def carry(self, worker: Worker, request: Send, path: CriticalPath, sent: Done, arrived: Done) -> None:
        start, step, operation, size = self.now, worker.step, worker.operation, nbytes(request.payload)
        ends: dict[str, int] = {}

        def noted(what: str, then: Done) -> Done:
            def at(answer: Any, path: CriticalPath) -> None:
                ends[what] = self.now
                if len(ends) == 2:
                    message = TracedMessage(worker.rank, request.dst, size, operation, step, request.tag, start, **ends)
                    self._trace.add(message)
                then(answer, path)

            return at

        self._transport.carry(worker, request, path, noted("sent", sent), noted("end", arrived))

    def expect(self, worker: Worker, request: Recv[Any]) -> None:
        self._transport.expect(worker, request)

    def compute(
        self, worker: Worker, request: Compute[Any], call: Callable[[], Any], path: CriticalPath, done: Done
    ) -> None:
        self._transport.compute(worker, request, call, path, done)

    def _note(self, worker: Worker, work: str, start: int, end: int) -> None:
        self._trace.add(Computation(worker.rank, work, worker.step, start, end))
        self._also(worker, work, start, end)

    def advance(self) -> bool:
        went_on = self._transport.advance()
        self._trace.set_levels(self.now, self._transport.utilisation())
        return went_on
