"""Simulates recorded steps message by message, where the vectorised engine cannot time them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np

from netsim.comm.payload import Payload
from netsim.comm.schedule import Repeated, Round, RoundsByRank, Schedule, play
from netsim.comm.worker import Compute, Work, Worker
from netsim.simulator.symmetry import RecordedPhase

Charge = Mapping[str, int]
"""The picoseconds of each kind of work."""


class RecordedMessage(NamedTuple):
    """A payload of which only the bytes are known, and what its receiver is charged for the work that follows."""

    value_bytes: int
    index_bytes: int
    control_bytes: int
    charge: Charge

    def version(self) -> int:
        """Return 0: sizes do not change."""
        return 0


class RecordedCosts:
    """The costs of recorded computations, whose only argument are their picoseconds."""

    def picoseconds(self, request: Compute[Any], settle: Callable[[], None]) -> int:
        """Return the picoseconds that were recorded."""
        return cast(int, request.args[0])


class MessageReplay:
    """The program of every rank: what was recorded of it in `steps`; `ended(step)` is called when it ends a step."""

    def __init__(self, steps: Sequence[Sequence[RecordedPhase]], ended: Callable[[int], None]) -> None:
        different = {id(phase): _ReplayedPhase(phase) for phase in chain.from_iterable(steps)}
        self._steps = [[different[id(phase)] for phase in step] for step in steps]
        self._ended = ended

    def __repr__(self) -> str:
        return f"MessageReplay({len(self._steps)} steps)"

    async def run(self, worker: Worker) -> None:
        """Exchange the messages of a rank, and spend the time of its computations."""
        for number, phases in enumerate(self._steps):
            for phase in phases:
                if phase.rounds:
                    await play(worker, Schedule(phase.rounds, phase.messages, len, combine=_receive, ahead=phase.ahead))
                else:
                    await _spend(phase.computing.get(worker.rank, {}))
            self._ended(number)


class _ReplayedPhase:
    """A phase as a schedule, each of whose slots is a message of its own; without messages, the charge of each rank."""

    def __init__(self, phase: RecordedPhase) -> None:
        self.ahead = phase.ahead
        self.computing: dict[int, Charge] = {}
        messages: list[RecordedMessage] = []
        numbers: dict[tuple[int, int], int] = {}
        rounds = []
        for pairs, sizes, which, then in phase.rounds:
            if then is not None and len(then.at) and not len(pairs.src):
                self.computing = {int(rank): phase.charges[pick] for rank, pick in zip(*then, strict=True)}
                continue
            picks = which if then is None else then.pick
            slots: dict[tuple[int, int], int] = {}
            for src, dst, size, pick in np.stack([pairs.src, pairs.dst, which, picks], 1).tolist():
                if (size, pick) not in numbers:
                    numbers[size, pick] = len(messages)
                    values, indices, flags = sizes[size].tolist()
                    messages.append(
                        RecordedMessage(values, indices, flags, {} if then is None else phase.charges[pick])
                    )
                slots[src, dst] = numbers[size, pick]
            rounds.append(Round(pairs, partial(_number, slots)))
        self.rounds, self.messages = RoundsByRank(rounds), _Messages(messages)


def _number(slots: Mapping[tuple[int, int], int], src: int, dst: int) -> int:
    return slots[src, dst]


class _Messages(Repeated[Payload]):
    """Slots whose messages stay, however often they are sent and received."""

    def __init__(self, messages: Sequence[RecordedMessage]) -> None:
        super().__init__(cast(Payload, None), len(messages))
        self._messages = messages

    def __getitem__(self, index: Any) -> Any:
        return self._messages[index]

    def __setitem__(self, index: Any, payload: Any) -> None:
        pass


async def _receive(_: Any, message: Any) -> Any:
    """Spend the time of the work that follows a message."""
    await _spend(message.charge)
    return message


async def _spend(charge: Charge) -> None:
    for work, picoseconds in charge.items():
        await Compute(cast(Work, work), _nothing, (picoseconds,))


def _nothing(picoseconds: int) -> None:
    """Do nothing: what took the time was computed when the steps were recorded."""
