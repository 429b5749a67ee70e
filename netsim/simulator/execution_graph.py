"""The execution graph of a run: what every rank computes, sends and receives, and what each of these waits for.

A coroutine makes a request when the requests that it awaited before are done, so a request waits for the latest of
these. What a rank begins and does not await delays nothing. The graph follows from the requests alone: the network
and the instants of the simulation leave no trace in it, except for the durations of computations.

:class:`GraphObserver` fills a graph while a simulation runs, and :mod:`netsim.simulator.chakra` writes it to files.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from netsim._util.errors import InfeasibleError
from netsim.comm.payload import nbytes
from netsim.comm.worker import Compute, Fork, Recv, Send, SendRecv, Start
from netsim.simulator.observer import Computation, RunObserver

if TYPE_CHECKING:
    from netsim.simulator.scheduler import Operation, RankCoroutine

MOST_NODES = 2_000_000
"""The most nodes of a graph; a node takes some 160 bytes of memory, and 130 in a file."""


@dataclass(slots=True)
class GraphMessage:
    """A message, which its sender and its receiver share; `number` counts the messages from `src` to `dst`."""

    src: int
    dst: int
    number: int
    nbytes: int = 0


@dataclass(slots=True)
class GraphNode:
    """A computation, or one end of a message.

    Parameters
    ----------
    work
        The kind of computation, or the collective that the message belongs to.
    waits_for
        The positions of earlier nodes of the same rank; this node may begin when all of them have ended.
    duration_ps
        The time of a computation in picoseconds.
    """

    kind: Literal["compute", "send", "receive"]
    work: str
    step: int
    waits_for: tuple[int, ...]
    duration_ps: int = 0
    message: GraphMessage | None = None


@dataclass(slots=True)
class ExecutionGraph:
    """The nodes of each rank of one algorithm's run, in the order in which they were requested."""

    algorithm: str
    ranks: list[list[GraphNode]] = field(default_factory=list)


Request: TypeAlias = Compute[Any] | Send | Recv[Any] | SendRecv[Any]


@dataclass(slots=True)
class Awaited:
    """What a coroutine has awaited: the latest nodes, and the forked coroutines whose ends it awaits."""

    nodes: tuple[int, ...] = ()
    joined: list[RankCoroutine[Any]] = field(default_factory=list)


class GraphObserver(RunObserver):
    """Adds every computation that takes time, and both ends of every message, to `graph`.

    Parameters
    ----------
    graph
        Filled with one list of nodes per rank.
    ranks
        The number of ranks.
    eager
        Whether a sender goes on at once, so that no request waits for a send.
    """

    def __init__(self, graph: ExecutionGraph, ranks: int, *, eager: bool) -> None:
        self._graph, self._eager = graph, eager
        graph.ranks = [[] for _ in range(ranks)]
        self._size = 0
        self._charged: list[Computation] = []
        self._awaited: dict[RankCoroutine[Any], Awaited] = {}
        self._started: dict[Operation, list[int]] = {}
        self._forked: dict[Operation, RankCoroutine[Any]] = {}
        self._unmatched: defaultdict[tuple[str, int, int, int], deque[GraphMessage]] = defaultdict(deque)
        self._counts: Counter[tuple[int, int]] = Counter()

    def computed(self, computation: Computation) -> None:
        """Keep a stage of the computation that is being requested."""
        self._charged.append(computation)

    def forked(self, parent: RankCoroutine[Any], child: RankCoroutine[Any]) -> None:
        """Let a forked coroutine begin after what its parent has awaited."""
        self._awaited[child] = Awaited(self._latest(parent))
        assert child.end is not None
        self._forked[child.end] = child

    def requested(self, task: RankCoroutine[Any], request: Any, operation: Operation) -> None:
        """Add the nodes of a request, and let the coroutine's next request wait for what it awaits now."""
        latest = self._latest(task)
        if isinstance(request, Start):
            self._started[operation] = self._add(task, latest, request.request)
        elif request is not operation:
            if not isinstance(request, Fork):
                self._awaited[task].nodes = self._after(task, latest, self._add(task, latest, request))
        elif (child := self._forked.pop(operation, None)) is not None:
            self._awaited[task].joined.append(child)
        else:
            self._awaited[task].nodes = self._after(task, latest, self._started.pop(operation, ()))

    def _latest(self, task: RankCoroutine[Any]) -> tuple[int, ...]:
        """Return the nodes that a request which a coroutine makes now waits for."""
        awaited = self._awaited.setdefault(task, Awaited())
        while awaited.joined:  # the coroutine goes on, so these have ended
            child = awaited.joined.pop()
            awaited.nodes = self._after(task, awaited.nodes, self._latest(child))
            del self._awaited[child]
        return awaited.nodes

    def _after(self, task: RankCoroutine[Any], nodes: Iterable[int], more: Iterable[int]) -> tuple[int, ...]:
        """Return the nodes of both, without those that others of them wait for."""
        both = {*nodes, *more}
        of_rank = self._graph.ranks[task.worker.rank]
        return tuple(sorted(both.difference(*(of_rank[node].waits_for for node in both))))

    def _add(self, task: RankCoroutine[Any], latest: tuple[int, ...], request: Request) -> list[int]:
        """Add the nodes of a request, and return those that a coroutine waits for when it awaits the request."""
        rank, step, work = task.worker.rank, task.worker.step, task.worker.operation
        if isinstance(request, Compute):
            stages, self._charged = self._charged, []
            nodes: list[int] = []
            for stage in stages:
                duration_ps, after = stage.end - stage.start, tuple(nodes) or latest
                nodes = [self._append(rank, GraphNode("compute", stage.work, step, after, duration_ps))]
            return nodes
        awaited = []
        if isinstance(request, Recv | SendRecv):
            recv = request if isinstance(request, Recv) else request.recv
            message = self._message("receive", recv.src, rank, recv.tag)
            awaited.append(self._append(rank, GraphNode("receive", work, step, latest, message=message)))
        if isinstance(request, Send | SendRecv):
            send = request if isinstance(request, Send) else request.send
            message = self._message("send", rank, send.dst, send.tag)
            message.nbytes = nbytes(send.payload)
            node = self._append(rank, GraphNode("send", work, step, latest, message=message))
            if not self._eager:
                awaited.append(node)
        return awaited

    def _append(self, rank: int, node: GraphNode) -> int:
        """Add a node, and return its position among the nodes of its rank."""
        self._size += 1
        if self._size > MOST_NODES:
            raise InfeasibleError(
                f"the execution graph of {self._graph.algorithm} has more than {MOST_NODES:,} computations, sends and "
                f"receives by round {node.step}; take fewer --rounds or --workers"
            )
        self._graph.ranks[rank].append(node)
        return len(self._graph.ranks[rank]) - 1

    def _message(self, end: Literal["send", "receive"], src: int, dst: int, tag: int) -> GraphMessage:
        """Return the message of a send or receive; the two are matched in the order in which they were posted."""
        other = "receive" if end == "send" else "send"
        if waiting := self._unmatched[other, src, dst, tag]:
            return waiting.popleft()
        message = GraphMessage(src, dst, self._counts[src, dst])
        self._counts[src, dst] += 1
        self._unmatched[end, src, dst, tag].append(message)
        return message
