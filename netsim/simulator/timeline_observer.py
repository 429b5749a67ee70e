"""Runs ranks, and keeps timelines of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from netsim.comm.worker import Recv, Send, SendRecv
from netsim.simulator.critical_path import CriticalPath
from netsim.simulator.scheduler import RankCoroutine, RankScheduler, Transport
from netsim.simulator.timeline import Timeline

T = TypeVar("T")


class Watched(RankScheduler[T]):
    """Runs as any, and notes when a coroutine of rank r waited for a message in ``timelines[r]``."""

    def __init__(self, transport: Transport, timelines: Sequence[Timeline]) -> None:
        super().__init__(transport)
        self._timelines = timelines

    def _wake(self, task: RankCoroutine[T], answer: Any, path: CriticalPath) -> None:
        assert task.waits_for is not None
        if isinstance(task.waits_for.request, Send | Recv | SendRecv):
            self._timelines[task.worker.rank].communicated(task.blocked_since, self._transport.now)
        super()._wake(task, answer, path)
