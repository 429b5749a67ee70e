"""Messages that wait until their receiver is ready: the receiver's notice, and the messages that it releases.

gloo sends no byte of a message before the receiver has posted its buffer and has told the sender. The notice takes the
latency of its way. It leaves the receiver's host in turn, behind the messages that the host is sending. So it arrives
when the last of them has drained, if that is later.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
ChannelKey = tuple[int, int, int]
"""Sender, receiver and tag."""


@dataclass(slots=True, eq=False)
class Notice:
    """A notice on its way; it arrives after `waits_for` more events: its latency, and messages that left before it."""

    channel: ChannelKey
    waits_for: int


class Clearances(Generic[T]):
    """Holds messages of type T back until their receivers are ready.

    Parameters
    ----------
    after
        ``after(delay, call)`` calls a function after a delay in picoseconds.
    depart
        ``depart(message)`` is called when a message may leave.
    """

    def __init__(self, after: Callable[[int, Callable[[], None]], None], depart: Callable[[T], None]) -> None:
        self._after, self._depart = after, depart
        self._queues: defaultdict[ChannelKey, deque[T]] = defaultdict(deque)
        self._cleared: Counter[ChannelKey] = Counter()
        self._leaving: defaultdict[int, dict[T, list[Notice]]] = defaultdict(dict)
        self.held: dict[T, None] = {}
        """The messages that wait for a notice."""
        self.arriving = 0
        """Number of notices whose latency is not over."""

    def __repr__(self) -> str:
        return f"Clearances({len(self.held)} messages held, {self.arriving} notices on their way)"

    def expect(self, channel: ChannelKey, latency_ps: int) -> None:
        """Send the notice that the receiver of a channel is ready for its next message."""
        leaving = self._leaving[channel[1]]
        notice = Notice(channel, 1 + len(leaving))
        for notices in leaving.values():
            notices.append(notice)
        self.arriving += 1

        def passed() -> None:
            self.arriving -= 1
            self._count_down(notice)

        self._after(latency_ps, passed)

    def hold(self, channel: ChannelKey, message: T) -> None:
        """Let a message depart as soon as a notice for it is there."""
        self._queues[channel].append(message)
        self.held[message] = None
        self._release(channel)

    def drained(self, sender: int, message: T) -> None:
        """Note that a message has left its host, and with it the notices behind it."""
        for notice in self._leaving[sender].pop(message):
            self._count_down(notice)

    def _count_down(self, notice: Notice) -> None:
        notice.waits_for -= 1
        if not notice.waits_for:
            self._cleared[notice.channel] += 1
            self._release(notice.channel)

    def _release(self, channel: ChannelKey) -> None:
        if self._queues[channel] and self._cleared[channel]:
            self._cleared[channel] -= 1
            message = self._queues[channel].popleft()
            del self.held[message]
            self._leaving[channel[0]][message] = []
            self._depart(message)
