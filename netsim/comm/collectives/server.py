"""Collectives between a parameter server and all workers."""

from __future__ import annotations

import numpy as np

from netsim._util.arrays import IntArray
from netsim.comm.payload import Flag, Payload, PayloadT
from netsim.comm.schedule import NoScheduleError, Pairs, PerRole, RoleMap, Round, Rounds, Schedule, schedule_of, size_of
from netsim.comm.worker import Worker, collective


@collective
async def gather(
    worker: Worker, own: PayloadT | None, template: PayloadT, serial: bool = False
) -> list[PayloadT] | None:
    """Return the workers' payloads in rank order at the server, None elsewhere: α + n d β.

    The server receives from n workers at once, and they share its link; or, if `serial`, from one
    after another, giving each its turn: n (2α + d β). `own` is None at a server that has a host, and
    no data, of its own.
    """
    if worker.rank != worker.server:
        assert own is not None, "only a server has nothing to send"
        if serial:
            await worker.recv(worker.server, template=Flag(True))
        await worker.send(worker.server, own)
        return None
    others = [rank for rank in range(worker.workers) if rank != worker.rank]
    gathered: dict[int, PayloadT] = {} if own is None else {worker.rank: own}
    if serial:
        for rank in others:
            await worker.send(rank, Flag(True))
            gathered[rank] = await worker.recv(rank, template)
    else:
        underway = [(rank, await worker.start_recv(rank, template)) for rank in others]
        for rank, handle in underway:
            gathered[rank] = await handle
    return [gathered[rank] for rank in sorted(gathered)]


@schedule_of(gather)
def _gather(
    world: RoleMap, own: PerRole[Payload | None], template: PerRole[Payload], serial: PerRole[bool] | None = None
) -> Schedule:
    others, server = _others(world)
    everyones = [own[role] for role in world.role[: world.workers].tolist()]
    answers = world.only_at(world.server, everyones)
    sizes, which = _sizes(own), world.role[others]
    if serial is None or not serial[0]:
        return Schedule([Round(Pairs(others, server), sizes, which)] if len(others) else [], answers)
    turn = np.array([size_of(Flag(True))])

    def one(number: int) -> Round:
        rank, the_server = others[number // 2 : number // 2 + 1], server[:1]
        if number % 2 == 0:
            return Round(Pairs(the_server, rank), turn, np.zeros(1, np.int64))
        return Round(Pairs(rank, the_server), sizes, which[number // 2 : number // 2 + 1])

    return Schedule(Rounds(2 * len(others), one), answers)


@collective
async def scatter(worker: Worker, payloads: list[PayloadT] | None, template: PayloadT) -> PayloadT | None:
    """Return to each worker its own of the server's `payloads`, which are in rank order: α + n d β.

    `payloads` is None elsewhere; a server with a host of its own gets None.
    """
    if worker.rank != worker.server:
        return await worker.recv(worker.server, template)
    if payloads is None:
        raise ValueError("the server has nothing to scatter")
    others = [rank for rank in range(worker.workers) if rank != worker.rank]
    underway = [await worker.start_send(rank, payloads[rank]) for rank in others]
    for handle in underway:
        await handle
    return payloads[worker.rank] if worker.trains else None


@schedule_of(scatter)
def _scatter(world: RoleMap, payloads: PerRole[list[Payload] | None], template: PerRole[Payload]) -> Schedule:
    others, server = _others(world)
    everyones = payloads[world.representatives.index(world.server)]
    assert everyones is not None
    answers = [everyones[rank] if rank < world.workers else None for rank in world.representatives]
    if len({size_of(payload) for payload in everyones}) > 1 or len({repr(payload) for payload in everyones}) > 1:
        raise NoScheduleError("the server does not tell all workers the same")
    return Schedule(_at_once(Pairs(server, others), everyones[0]), answers)


@collective
async def broadcast_from_server(worker: Worker, own: PayloadT | None, template: PayloadT) -> PayloadT:
    """Return the server's payload everywhere, sent to all workers at once: α + n d β."""
    if worker.rank != worker.server:
        return await worker.recv(worker.server, template)
    if own is None:
        raise ValueError("the server has nothing to broadcast")
    underway = [await worker.start_send(rank, own) for rank in range(worker.workers) if rank != worker.rank]
    for handle in underway:
        await handle
    return own


@schedule_of(broadcast_from_server)
def _broadcast_from_server(world: RoleMap, own: PerRole[Payload | None], template: PerRole[Payload]) -> Schedule:
    others, server = _others(world)
    payload = own[world.representatives.index(world.server)]
    assert payload is not None
    return Schedule(_at_once(Pairs(server, others), payload), world.everywhere(payload))


def _others(world: RoleMap) -> tuple[IntArray, IntArray]:
    """Return the workers that are not the server, and the server as often."""
    others = np.flatnonzero(np.arange(world.workers) != world.server)
    return others, np.full(len(others), world.server)


def _sizes(payloads: PerRole[Payload | None]) -> IntArray:
    return np.array([(0, 0, 0) if payload is None else size_of(payload) for payload in payloads])


def _at_once(pairs: Pairs, payload: Payload) -> list[Round]:
    """Return the round in which each pair exchanges the payload, if there are any."""
    if not len(pairs.src):
        return []
    return [Round(pairs, np.array([size_of(payload)]), np.zeros(len(pairs.src), np.int64))]
