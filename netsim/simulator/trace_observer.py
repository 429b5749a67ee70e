"""Fills a trace while a simulation runs."""

from __future__ import annotations

from netsim.simulator.event_engine import SimulatedTransport
from netsim.simulator.observer import Computation, RunObserver, TracedMessage
from netsim.simulator.scheduler import Transport
from netsim.simulator.trace import Trace


class TraceObserver(RunObserver):
    """Keeps every computation and message in `trace`, and how much of each link's bandwidth is in use."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def began(self, transport: Transport) -> None:
        """Read link utilisation from `transport`, which must simulate a network."""
        assert isinstance(transport, SimulatedTransport)
        self._transport = transport

    def computed(self, computation: Computation) -> None:
        """Keep the computation."""
        self._trace.add(computation)

    def delivered(self, message: TracedMessage) -> None:
        """Keep the message."""
        self._trace.add(message)

    def advanced(self) -> None:
        """Keep the utilisation of all links if it changed."""
        self._trace.set_levels(self._transport.now, self._transport.utilisation())
