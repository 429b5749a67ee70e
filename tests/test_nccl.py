"""The interpreter's rules for nccl, on a process group that notes what it is asked for; nothing is sent."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netsim._util.errors import UsageError
from netsim.comm.payload import Dense
from netsim.comm.worker import Worker
from netsim.distributed.interpreter import RankInterpreter


class Group:
    """A process group whose transfers are done at once."""

    def send(self, tensors: list[torch.Tensor], peer: int, tag: int) -> Group:
        return self

    recv = send

    def wait(self) -> None:
        """Return at once."""


def on_nccl(program: Any) -> None:
    worker = Worker(0, 3)
    RankInterpreter(worker, "cpu", "nccl", group=Group()).run(program(worker))  # type: ignore[arg-type]


def test_messages_of_both_directions_at_once_are_refused_because_two_ranks_could_wait_for_each_other() -> None:
    async def program(worker: Worker) -> None:
        vector = Dense(torch.ones(3))
        await worker.start_send(1, vector)
        await worker.start_send(2, vector)
        await worker.start_recv(1, vector)

    with pytest.raises(UsageError, match=r"sends and receives several messages at the same time.*--backend gloo"):
        on_nccl(program)


def test_messages_of_one_direction_at_once_are_not_refused() -> None:
    async def program(worker: Worker) -> None:
        vector = Dense(torch.ones(3))
        for handle in [await worker.start_send(peer, vector) for peer in (1, 2)]:
            await handle
        for peer in (1, 2):
            await worker.start_recv(peer, vector)

    on_nccl(program)
