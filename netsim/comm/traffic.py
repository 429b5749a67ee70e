"""Bytes that each rank sent and received."""

from __future__ import annotations

from dataclasses import dataclass, fields

from netsim.comm.payload import Payload


@dataclass(slots=True)
class Traffic:
    """Payload bytes of one rank: values, indices and flags, sent (up) and received (down).

    Headers of real messages are not counted, because they belong to the transport.
    """

    value_bytes_up: int = 0
    index_bytes_up: int = 0
    value_bytes_down: int = 0
    index_bytes_down: int = 0
    control_bytes_up: int = 0
    control_bytes_down: int = 0
    messages_up: int = 0

    def sent(self, payload: Payload) -> None:
        """Count a payload that was sent."""
        self.value_bytes_up += payload.value_bytes
        self.index_bytes_up += payload.index_bytes
        self.control_bytes_up += payload.control_bytes
        self.messages_up += 1

    def received(self, payload: Payload) -> None:
        """Count a payload that was received."""
        self.value_bytes_down += payload.value_bytes
        self.index_bytes_down += payload.index_bytes
        self.control_bytes_down += payload.control_bytes

    def add(self, other: Traffic) -> None:
        """Add the counts of another."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def bytes_up(self) -> int:
        """Bytes sent."""
        return self.value_bytes_up + self.index_bytes_up + self.control_bytes_up

    @property
    def bytes_down(self) -> int:
        """Bytes received."""
        return self.value_bytes_down + self.index_bytes_down + self.control_bytes_down
