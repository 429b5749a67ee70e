"""Collectives between a parameter server and all workers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from netsim.comm.payload import Flag, PayloadT
from netsim.comm.schedule import LazyRounds, Pairs, Repeated, Round, Schedule, scheduled
from netsim.comm.worker import Worker


@scheduled
def gather(
    worker: Worker, own: PayloadT | None, template: PayloadT, serial: bool = False
) -> Schedule[list[PayloadT] | None]:
    """Return the workers' payloads in rank order at the server, None elsewhere: α + n d β.

    The server receives from n workers at once, and they share its link; or, if `serial`, from one
    after another, giving each its turn: n (2α + d β). `own` is None at a server that has a host, and
    no data, of its own.
    """
    workers, server = worker.workers, worker.server
    serves = worker.rank == server
    held: Sequence[PayloadT] = Repeated(template if own is None else own, workers)
    if serves:
        held = [template if own is None or rank != server else own for rank in range(workers)]
    at_once = [Round(_to_server(workers, server), lambda src, dst: src)] if _clients(worker) else []
    return Schedule(
        _in_turn(worker) if serial else at_once,
        held,
        lambda held: list(held) if serves else None,
        holder="each",
        alike=False,
    )


@scheduled
def scatter(worker: Worker, payloads: list[PayloadT] | None, template: PayloadT) -> Schedule[PayloadT | None]:
    """Return to each worker its own of the server's `payloads`, which are in rank order: α + n d β.

    `payloads` is None elsewhere; a server with a host of its own gets None.
    """
    rank, trains = worker.rank, worker.trains
    if rank == worker.server and payloads is None:
        raise ValueError("the server has nothing to scatter")
    return Schedule(
        _from_server(worker, lambda src, dst: dst),
        Repeated(template, worker.workers) if payloads is None else payloads,
        lambda held: held[rank] if trains else None,
        holder=worker.server,
    )


@scheduled
def broadcast_from_server(worker: Worker, own: PayloadT | None, template: PayloadT) -> Schedule[PayloadT]:
    """Return the server's payload everywhere, sent to all workers at once: α + n d β."""
    serves = worker.rank == worker.server
    if serves and own is None:
        raise ValueError("the server has nothing to broadcast")
    return Schedule(
        _from_server(worker, lambda src, dst: 0 * dst),
        [own if serves else template],
        lambda held: held[0],
        holder=worker.server,
    )


def _clients(worker: Worker) -> int:
    """Return how many workers are not the server."""
    return worker.workers - (worker.server < worker.workers)


@functools.lru_cache(maxsize=8)
def _to_server(workers: int, server: int) -> Pairs:
    others = np.flatnonzero(np.arange(workers) != server)
    return Pairs(others, np.full(len(others), server))


def _from_server(worker: Worker, slot: Any) -> list[Round]:
    return [Round(_to_server(worker.workers, worker.server).reversed, slot)] if _clients(worker) else []


def _in_turn(worker: Worker) -> LazyRounds:
    """Return two rounds a worker: the server gives it its turn, and it sends."""
    server, clients = worker.server, _clients(worker)
    first = worker.workers - clients  # the server is rank 0 or after the last worker

    def turn(number: int) -> Round:
        other, the_server = np.array([first + number // 2]), np.array([server])
        if number % 2 == 0:
            return Round(Pairs(the_server, other), signal=Flag(True))
        return Round(Pairs(other, the_server), lambda src, dst: src)

    def of(rank: int) -> Iterable[int]:
        return range(2 * clients) if rank == server else range(2 * (rank - first), 2 * (rank - first) + 2)

    return LazyRounds(2 * clients, turn, of)
