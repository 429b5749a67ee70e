"""Times of a great many workers by closed forms of the literature: on an idle star of equal links, with ranks in step.

α is the latency of a message, β the time of a byte on a link, P the number of workers. The layout of a collective says
who sends what. A formula then extends the critical path of each representative, without playing the rounds:

===========================  =================================================================
ring reduce-scatter          (P-1)(α + ⌈d/P⌉β), then as long again for the all-gather of chunks
ring all-gather              (P-1)(α + mβ)
pipelined ring               :meth:`Formulas.pipelined_ring_time`
Bruck's all-gather           ⌈log₂P⌉ α + (P-1) m β
binomial tree                log₂P (α + mβ) to rank 0, and as long from it
parameter server             α + n m β from n workers, and to them; n (2α + (s + m)β) if serial
===========================  =================================================================

(gTop-k paper, table of costs; Thakur, Rabenseifner and Gropp, 2005.) Two forms are exact where the textbook has only a
bound: :meth:`Formulas.path_of_tree_reduce` for P that is no power of two, and :func:`after_ring` for a ring with chunks
of two sizes. Where no formula holds, NoScheduleError says why, and the engine plays the rounds instead.
"""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from netsim._util.arrays import IntArray
from netsim._util.units import HORIZON_PS, beyond_horizon
from netsim.comm.collectives import (
    Pipeline,
    all_to_all,
    broadcast_from_server,
    bruck_all_gather,
    gather,
    ring_all_gather,
    ring_all_reduce,
    scatter,
    swap,
    tree_broadcast,
    tree_reduce,
)
from netsim.comm.collectives.pipeline import addition
from netsim.comm.payload import PRECISION_BYTES, SizeOnly, concatenate, nbytes, split
from netsim.comm.schedule import size_of
from netsim.comm.worker import COMPUTE, SELECT, Collective, Compute
from netsim.network.flow import time_alone
from netsim.simulator.layout import CollectiveLayout, NoScheduleError, PerRole, RoleMap, SizedRound, lay_out
from netsim.simulator.symmetry import SymmetryRecorder
from netsim.simulator.vectorized_sharing import drain
from netsim.training.costs import Costs

WORKER_LINKS, SERVER_LINK = "worker links", "server link"
WORKS = (*COMPUTE, *SELECT)
MessageSize: TypeAlias = tuple[int, int, int]
"""The bytes of a message: values, indices and flags."""


class Star(NamedTuple):
    """An idle star: the latency α of a message in picoseconds, and the bandwidth of every link in bit/s."""

    latency_ps: int
    bandwidth_bps: int

    def draining_ps(self, size: MessageSize, flows: int = 1) -> int:
        """Return the picoseconds that `flows` equal messages take to drain together over one link."""
        return time_alone(8 * sum(size) * flows, self.bandwidth_bps)


class PathSums(NamedTuple):
    """A critical path: the instant at which it ends, and the picoseconds on it by kind of work, link and latency."""

    end_ps: int
    spent: Counter[str]

    def extended(self, spent: Counter[str]) -> PathSums:
        """Return the path with the time `spent` added at its end."""
        end_ps = self.end_ps + spent.total()
        if end_ps >= HORIZON_PS:
            raise beyond_horizon()
        return PathSums(end_ps, self.spent + spent)


EMPTY_PATH = PathSums(0, Counter())


class RankOffsets(NamedTuple):
    """By how much each rank ends before the path of its representative, if ranks do not all end at once.

    Parameters
    ----------
    is_last
        Whether a rank is known to end exactly where its representative's path ends (P,). No rank ends later.
    early_ps
        The picoseconds by which each rank ends before that path (P,); None if they are not known.
    """

    is_last: npt.NDArray[np.bool_]
    early_ps: IntArray | None = None


class RankTimes(NamedTuple):
    """Where all ranks are in time.

    Parameters
    ----------
    paths
        The critical path of each representative. No rank that it represents ends later than this path.
    is_exact
        Whether the path of a representative ends where every rank that it represents ends.
    offsets
        By how much each rank ends earlier than its representative's path; None if nothing more is known than
        `is_exact` says.
    """

    paths: list[PathSums]
    is_exact: list[bool]
    offsets: RankOffsets | None = None


class Formulas(SymmetryRecorder):
    """Advances the representatives by closed forms, and counts the bytes that all ranks send and receive.

    A representative is named by its *role*, which is its index in ``world.representatives``.
    """

    def __init__(self, world: RoleMap, costs: Costs, star: Star, *, concurrent: bool = False) -> None:
        super().__init__(world, costs, concurrent=concurrent)
        self.star = star
        self.times = RankTimes([EMPTY_PATH for _ in world.representatives], [True for _ in world.representatives])
        self.sent: IntArray = np.zeros((world.size, 3), np.int64)
        self.received: IntArray = np.zeros((world.size, 3), np.int64)
        self.computed = [Counter[str]() for _ in world.representatives]
        """The picoseconds of each kind of work, by role."""
        self.hidden: IntArray = np.zeros(world.size, np.int64)
        """The picoseconds for which each rank exchanged while it computed."""
        self._exchanges_beside: dict[int, tuple[RankTimes, RankTimes]] = {}
        """By number of an exchange beside computations that no rank has waited for yet: where it begins and ends."""
        self._links_idle_from = 0
        """The instant at which the last exchange beside computations ends, and from which all links are idle."""
        self._server_role = world.representatives.index(world.server)
        self._other_roles = [role for role in range(len(world.representatives)) if role != self._server_role]

    @property
    def paths(self) -> list[PathSums]:
        """The critical path of each representative."""
        return self.times.paths

    @property
    def last_path(self) -> PathSums:
        """The critical path to the last event of all ranks."""
        is_attained, offsets = list(self.times.is_exact), self.times.offsets
        if offsets is not None:
            for role in np.unique(self.world.role[offsets.is_last]).tolist():
                is_attained[role] = True
        # Paths without a rank that surely ends there are upper bounds. They do no harm if another path ends as late.
        path, attained = max(zip(self.paths, is_attained, strict=True), key=lambda pair: (pair[0].end_ps, pair[1]))
        if not attained:
            raise NoScheduleError("who ends last is not known")
        return path

    def hidden_ps(self) -> float:
        """Return the mean picoseconds for which the ranks that end last exchanged while they computed."""
        ends = self._ends_of_ranks(self.times)
        return float(self.hidden[ends == ends.max()].mean())

    def knows(self, call: Collective[Any]) -> bool:
        """Return whether a collective has a closed form here."""
        return call.function in FORMULAS or call.function is RING_ALL_REDUCE

    def step_ended(self) -> None:
        """Do nothing: the paths run on through all steps."""

    def compute(self, charges: tuple[Counter[str], ...]) -> None:
        """Advance each representative by the time that it computes."""
        paths = [path.extended(charge) for path, charge in zip(self.paths, charges, strict=True)]
        self.times = self.times._replace(paths=paths)
        for computed, charge in zip(self.computed, charges, strict=True):
            computed.update(charge)

    @contextmanager
    def beside(self, number: int) -> Iterator[None]:
        """Advance an exchange that runs beside computations, then set the representatives back to its begin.

        Raises
        ------
        NoScheduleError
            If ranks compute or select in the exchange, because a host makes one computation after another.
        """
        begin = self.times
        yield
        if any(
            +(path.spent - before.spent) & Counter(dict.fromkeys(WORKS, HORIZON_PS))
            for before, path in zip(begin.paths, self.paths, strict=True)
        ):
            raise NoScheduleError("an exchange computes beside other computations")
        self._exchanges_beside[number] = begin, self.times
        self._links_idle_from = max(path.end_ps for path in self.paths)
        self.times = begin

    def join(self, number: int) -> None:
        """Let every representative wait for the end of an exchange beside its computations."""
        begin, end = self._exchanges_beside.pop(number)
        begins, ends, clocks = map(self._ends_of_ranks, (begin, end, self.times))
        self.hidden += np.minimum(ends, clocks) - begins
        # Where both end at once, the path is that of the computation: a rank that did not wait keeps its own path.
        paths = [
            exchange if exchange.end_ps > path.end_ps else path
            for exchange, path in zip(end.paths, self.paths, strict=True)
        ]
        early_ps = np.array([path.end_ps for path in paths])[self.world.role] - np.maximum(ends, clocks)
        in_step = not early_ps.any()
        self.times = RankTimes(
            paths, [in_step for _ in paths], None if in_step else RankOffsets(early_ps == 0, early_ps)
        )

    def _ends_of_ranks(self, times: RankTimes) -> IntArray:
        """Return the instant of each rank (P,) in picoseconds; raise NoScheduleError if it is not known for all."""
        ends = np.array([path.end_ps for path in times.paths])[self.world.role]
        if times.offsets is not None and times.offsets.early_ps is not None:
            return ends - times.offsets.early_ps
        if not all(times.is_exact):
            raise NoScheduleError("ranks are not in step")
        return ends

    def exchange(self, calls: PerRole[Collective[Any]]) -> PerRole[Any]:
        """Advance the representatives by a collective; return the answer of each."""
        # Every closed form is for idle links, so an exchange must not begin before the one beside it has ended.
        if any(path.end_ps < self._links_idle_from for path in self.paths):
            raise NoScheduleError("links carry several exchanges at a time")
        if calls[0].function is RING_ALL_REDUCE:
            pipeline: Pipeline | None = _arguments(calls[0])["pipeline"]
            return self.time_ring_all_reduce([call.args[0] for call in calls], pipeline)
        layout = lay_out(self.world, calls)
        self.uneven |= layout.uneven
        if layout.rounds:
            FORMULAS[calls[0].function](self, layout, _levels_with_groups(calls[0]))
        return layout.answers

    def time_ring_all_reduce(self, vector: PerRole[Any], pipeline: Pipeline | None) -> PerRole[Any]:
        """Advance all workers by a ring all-reduce of d elements, with γ the time of adding a chunk.

        The closed form is 2(P-1)(α + ⌈d/P⌉β) + (P-1)γ, or twice :meth:`pipelined_ring_time` if chunks are forwarded in
        slices. Ranks need not begin in step: each link carries messages of one sender, and after 2(P-1) hops every rank
        has waited for the one that began last. If P does not divide d, the smaller chunks let some ranks end earlier,
        by what :func:`after_ring` says.
        """
        workers, whole = self.world.workers, self.world.common_payload(vector)
        assert isinstance(whole, SizeOnly)
        if workers == 1:
            return vector
        chunks = np.full(workers, whole.size // workers)
        chunks[: whole.size % workers] += 1
        largest, even = whole.resized(int(chunks[0])), whole.size % workers == 0
        slices = split(largest, 1 if pipeline is None else pipeline.slices(nbytes(largest)))
        combine = addition(self.workers[0], len(slices))
        adding = [self.charge([combine(part, part)]) for part in slices]  # type: ignore[list-item]
        if pipeline is None or len(slices) == 1:
            smallest = whole.resized(int(chunks[-1]))
            hop, short_hop = self._message_time(size_of(largest)), self._message_time(size_of(smallest))
            # after_ring compares hops by draining alone. Were additions different too, another path could be latest.
            if (
                self.times.offsets is not None and self.charge([combine(smallest, smallest)]) != adding[0]  # type: ignore[list-item]
            ):
                raise NoScheduleError("ranks are not in step")
            begin, spent = self._path_of_last_workers(), _multiplied(workers - 1, hop + adding[0] + hop)
            saved_ps, offsets = 0, None
            if not even:
                saved_ps, offsets = self._offsets_after_ring(whole.size % workers, hop.total() - short_hop.total())
            # Hops differ in draining alone, so what the last rank saves is time on links.
            spent[WORKER_LINKS] -= saved_ps
            self._advance_workers(spent, offsets, begin)
        elif not even:
            raise NoScheduleError("chunks of different sizes are forwarded in slices")
        else:
            ring = [size_of(part) for part in slices], workers - 1, pipeline.ahead(len(slices))
            self._advance_workers(self.pipelined_ring_time(*ring, adding) + self.pipelined_ring_time(*ring))
        # Rank r sends every chunk twice but r and r + 1, which it sends once; it receives what rank r - 1 sends.
        width, ranks = PRECISION_BYTES[whole.precision], np.arange(workers)
        self.sent[:workers, 0] += width * (2 * whole.size - chunks - chunks[(ranks + 1) % workers])
        self.received[:workers, 0] += width * (2 * whole.size - chunks - chunks[ranks - 1])
        self.compute(tuple(self.charge([Compute("merge", concatenate, (whole,))]) for _ in self.paths))
        return vector

    def time_all_gather(self, layout: CollectiveLayout, _: TreeLevels) -> None:
        """Advance all workers by an all-gather of m bytes from each, in which a rank sends one message a round.

        Around a ring: (P-1)(α + mβ), or :meth:`pipelined_ring_time`. By Bruck's algorithm: ⌈log₂P⌉ α + (P-1) m β.
        """
        if layout.rounds.in_turn:
            self.time_all_to_all(layout, _)
            return
        first, count = layout.rounds[0], len(layout.rounds)
        if layout.ahead:
            steps = self.world.workers - 1
            slices = [layout.rounds[index] for index in range(count // steps)]
            self._advance_workers(
                self.pipelined_ring_time([_message_size(round_) for round_ in slices], steps, layout.ahead)
            )
            for round_ in slices:
                self._count(round_, steps)
            return
        if len(first.sizes) > 1:
            raise NoScheduleError("vectors of different sizes are gathered")
        # The rounds of a ring share one Pairs object and are equal, so that one is sized and counted for all P-1.
        equal_rounds = layout.rounds[count - 1].pairs is first.pairs
        for round_, times in [(first, count)] if equal_rounds else [(round_, 1) for round_ in layout.rounds]:
            self._advance_workers(_multiplied(times, self._message_time(_message_size(round_))))
            self._count(round_, times)

    def time_all_to_all(self, layout: CollectiveLayout, _: TreeLevels) -> None:
        """Advance all workers by R rounds, in each of which a rank sends and receives one message of m bytes.

        The closed form is R(α + mβ), or the sum of that over the sizes m that rounds have.
        """
        for round_, count in layout.rounds.by_size():
            if len(round_.sizes) > 1:
                raise NoScheduleError("parts of different sizes are exchanged")
            self._advance_workers(_multiplied(count, self._message_time(_message_size(round_))))
            self._count(round_, count)

    def pipelined_ring_time(
        self,
        sizes: Sequence[MessageSize],
        steps: int,
        ahead: int,
        charges: Sequence[Counter[str]] | None = None,
    ) -> Counter[str]:
        """Return the time of a pipelined ring, all of whose ranks do the same at the same time.

        Slice i is posted at p(i), when slice i - 1 - `ahead` has been received and combined. It drains from
        max(p(i) + α, e(i-1)) until e(i). A rank receives exactly as it sends, so the slices of one rank are enough.
        For slices that take t to drain and whose window covers the latency, this is α + `steps` · len(`sizes`) · t.

        Parameters
        ----------
        sizes
            The bytes of each slice of a chunk.
        steps
            The number of chunks that a rank forwards.
        ahead
            The number of slices that are posted ahead.
        charges
            The time of combining each slice, if slices are combined.
        """
        latency = self.star.latency_ps
        drains = [self.star.draining_ps(size) for size in sizes]
        combining = [0] * len(sizes) if charges is None else [charge["merge"] for charge in charges]
        # Critical paths: picoseconds of latency, of draining and of combining, which sum to an instant.
        rank = message = (0, 0, 0)
        under_way: deque[tuple[tuple[int, int, int], int]] = deque()

        def path_after_receiving() -> tuple[int, int, int]:
            received, merge = under_way.popleft()
            # On a tie, max takes the first: a rank that did not wait keeps its own path, as in the event engine.
            alpha, drained, merged = max(rank, received, key=sum)
            return alpha, drained, merged + merge

        skipped, rank_before, state = (0, 0, 0), rank, None
        for step in range(steps):
            for draining, merge in zip(drains, combining, strict=True):
                if len(under_way) > ahead:
                    rank = path_after_receiving()
                # On a tie, the slice did not queue: the path goes through its own posting and latency.
                if sum(message) <= sum(rank) + latency:
                    message = rank[0] + latency, *rank[1:]
                message = message[0], message[1] + draining, message[2]
                under_way.append((message, merge))
            state_before = state
            state = [_difference(path, rank) for path in (message, *(message for message, _ in under_way))]
            passed, rank_before = _difference(rank, rank_before), rank
            # A step depends on the state relative to the rank alone. Once a step leaves it as it was, every later step
            # takes the same time, so that 65,535 steps are a few.
            if state == state_before:
                skipped = passed[0] * (left := steps - 1 - step), passed[1] * left, passed[2] * left
                break
        while under_way:
            rank = path_after_receiving()
        spent = zip(("latency", WORKER_LINKS, "merge"), rank, skipped, strict=True)
        return +Counter({what: picoseconds + more for what, picoseconds, more in spent})

    def time_tree_reduce(self, layout: CollectiveLayout, levels: TreeLevels) -> None:
        """Advance rank 0 by a reduction of m bytes over a binomial tree; the other ranks end earlier.

        The closed form is Σᵢ (α + mβ + γᵢ) over log₂P rounds, with γᵢ the time of the merge after round i. For P that
        is no power of two, see :meth:`path_of_tree_reduce`.
        """
        size, charges = _message_size(layout.rounds[0]), [self.charge(request) for request in layout.requests]
        if levels is None:
            tree = self.path_of_tree_reduce(self.world.workers, size, charges)
        else:
            _check_equal_groups(levels)
            tree = EMPTY_PATH.extended(
                _multiplied(len(layout.rounds), self._message_time(size)) + sum(charges, Counter())
            )
        start = self._common_path()
        self.times = RankTimes(
            [start.extended(tree.spent) for _ in self.paths], [rank == 0 for rank in self.world.representatives]
        )
        self._count_all(layout)

    def time_tree_broadcast(self, layout: CollectiveLayout, levels: TreeLevels) -> None:
        """Advance all ranks by a broadcast of m bytes over a binomial tree.

        The closed form is ⌈log₂P⌉ (α + mβ). If P is no power of two, only the ranks with a part in every round end
        then, and it is not known by how much the others end earlier.
        """
        message = self._message_time(_message_size(layout.rounds[0]))
        end = self._path_if_last(0).extended(_multiplied(len(layout.rounds), message))
        workers = self.world.workers
        in_step = levels is not None or workers & (workers - 1) == 0
        if levels is not None:
            _check_equal_groups(levels)
        # The first 2^(L-1) of P < 2^L ranks send or receive in every round after they got the vector.
        busy_to_the_end = RankOffsets(self.world.ranks < 1 << ((workers - 1).bit_length() - 1))
        is_exact = [in_step or rank == 0 for rank in self.world.representatives]
        self.times = RankTimes([end for _ in self.paths], is_exact, None if in_step else busy_to_the_end)
        self._count_all(layout)

    def path_of_tree_reduce(self, ranks: int, size: MessageSize, charges: Sequence[Counter[str]]) -> PathSums:
        """Return the path, from instant 0 on, until the first of `ranks` ranks has merged the vectors of all.

        For 2^L ranks it is Σᵢ (α + mβ + γᵢ) over L rounds. Otherwise, the first rank receives from the roots of trees
        of 1, 2, 4 … ranks, and each of these trees takes a round more than the one before. The last tree may have fewer
        than its 2^b ranks. Its root is then ready early, and its message shares the first rank's link with those of
        other trees. These few flows are solved exactly, and the last tree by this method again.

        Parameters
        ----------
        ranks
            The number of ranks of the tree.
        size
            The bytes of each message.
        charges
            The time of merging after each round.
        """
        rounds = (ranks - 1).bit_length()
        if ranks & (ranks - 1) == 0:
            return EMPTY_PATH.extended(_multiplied(rounds, self._message_time(size)) + sum(charges[:rounds], Counter()))
        largest_whole_tree = 1 << (rounds - 1)
        subtrees = [self.path_of_tree_reduce(1 << index, size, charges) for index in range(rounds - 1)]
        subtrees.append(self.path_of_tree_reduce(ranks - largest_whole_tree, size, charges))
        # Flow i uses a link of its own and the last one, which is that of the first rank.
        flows, enter = np.arange(rounds), np.array([path.end_ps for path in subtrees]) + self.star.latency_ps
        links = np.stack([flows, np.full(rounds, rounds)], 1).ravel()
        bandwidth = np.full(rounds + 1, self.star.bandwidth_bps)
        leave = drain(np.repeat(flows, 2), links, enter, np.full(rounds, 8 * sum(size)), bandwidth).leave
        root = EMPTY_PATH
        # The root receives in the order of rounds, even if the message of a later one is there before.
        for subtree, start, end, charge in zip(subtrees, enter.tolist(), leave.tolist(), charges, strict=False):
            if end > root.end_ps:
                root = subtree.extended(Counter({"latency": self.star.latency_ps, WORKER_LINKS: end - start}))
            root = root.extended(charge)
        return root

    def time_gather_at_server(self, layout: CollectiveLayout, _: TreeLevels) -> None:
        """Advance all ranks by messages of m bytes from n workers to the server.

        All at once, they share the server's link: α + n m β. In turn, each waits for s bytes from the server:
        n (2α + (s + m)β).
        """
        first, upload = layout.rounds[0], layout.rounds[len(layout.rounds) - 1]
        serial = len(layout.rounds) > 1
        if _message_size(layout.rounds[1] if serial else first) != _message_size(upload) or (
            len(np.unique(upload.which)) > 1
        ):
            raise NoScheduleError("workers upload different sizes")
        if not serial:
            senders = len(upload.which)
            end = self._common_path(self._other_roles).extended(
                self._message_time(_message_size(upload), senders, SERVER_LINK if senders > 1 else WORKER_LINKS)
            )
            server = self.paths[self._server_role]
            paths = [end for _ in self.paths]
            if server.end_ps >= end.end_ps:
                paths[self._server_role] = server
            self.times = self.times._replace(paths=paths)
            self._count(upload)
            return
        turn = self._message_time(_message_size(first), link=SERVER_LINK)
        sent = self._message_time(_message_size(upload))
        worker, server = self._common_path(self._other_roles), self.paths[self._server_role].extended(turn)
        senders = len(layout.rounds) // 2
        # All workers are ready at one instant, so the first turn is the only one that may have to wait for a worker.
        begin = server if server.end_ps >= worker.end_ps else worker
        end = begin.extended(sent + _multiplied(senders - 1, turn + sent))
        self.times = RankTimes(
            [end for _ in self.paths], [role == self._server_role for role in range(len(self.paths))]
        )
        clients = self.world.ranks[: self.world.workers][self.world.ranks[: self.world.workers] != self.world.server]
        servers = np.full(senders, self.world.server)
        self._count_messages(servers, clients, np.broadcast_to(_message_size(first), (senders, 3)))
        self._count_messages(clients, servers, np.broadcast_to(_message_size(upload), (senders, 3)))

    def time_send_from_server(self, layout: CollectiveLayout, _: TreeLevels) -> None:
        """Advance all ranks by messages of m bytes from the server to n workers at once: α + n m β."""
        (round_,) = layout.rounds
        message = self._message_time(_message_size(round_), len(round_.which), SERVER_LINK)
        end = self._path_if_last(self._server_role).extended(message)
        self.times = RankTimes([end for _ in self.paths], [True for _ in self.paths])
        self._count(round_)

    # What several closed forms need.

    def _message_time(self, size: MessageSize, shared_by: int = 1, link: str = WORKER_LINKS) -> Counter[str]:
        """Return α + `shared_by` · m · β: the time of a message whose link `shared_by` equal messages share."""
        return Counter({"latency": self.star.latency_ps, link: self.star.draining_ps(size, shared_by)})

    def _common_path(self, roles: Sequence[int] | None = None) -> PathSums:
        """Return the path of ranks that all end at one instant; raise NoScheduleError if they do not.

        Without `roles`, the ranks are all workers.
        """
        roles = [role for role in range(len(self.paths)) if self._trains(role)] if roles is None else roles
        if len({self.paths[role].end_ps for role in roles}) > 1 or not all(self.times.is_exact[role] for role in roles):
            raise NoScheduleError("ranks are not in step")
        return self.paths[roles[0]]

    def _path_of_last_workers(self) -> PathSums:
        """Return the path to the instant at which the last workers end; raise NoScheduleError if none surely does."""
        paths = [path for role, path in enumerate(self.paths) if self._trains(role)]
        if self.times.offsets is None or len({path.end_ps for path in paths}) > 1:
            return self._common_path()
        return paths[0]

    def _path_if_last(self, role: int) -> PathSums:
        """Return the path of a representative; raise NoScheduleError if another rank may end later."""
        path = self.paths[role]
        if not self.times.is_exact[role] or any(other.end_ps > path.end_ps for other in self.paths):
            raise NoScheduleError("ranks are not in step")
        return path

    def _offsets_after_ring(self, large: int, difference_ps: int) -> tuple[int, RankOffsets | None]:
        """Return how many picoseconds all ranks save in a ring all-reduce, and their offsets after it.

        The first `large` chunks take the longest; a hop of another chunk is shorter by `difference_ps`. Where no rank
        takes 2(P-1) of the longest hops from the last begin on, the last rank saves the returned picoseconds.
        """
        all_workers = np.ones(self.world.workers, np.bool_)
        is_last, begins_early_ps = self.times.offsets or RankOffsets(
            all_workers, 0 * self.world.ranks[: self.world.workers]
        )
        if begins_early_ps is not None:
            early_ps = after_ring(begins_early_ps, large, difference_ps)
            if (saved_ps := int(early_ps.min())) and self._concurrent:
                raise NoScheduleError("ranks are not in step")  # a path may lead through computations instead
            early_ps -= saved_ps
            return saved_ps, RankOffsets(early_ps == 0, early_ps) if early_ps.any() else None
        # Begins are not known, but any rank that is not last begins a picosecond before the last ones, or more. With
        # exactly one, a rank ends at the latest instant only by a path from a last rank through long hops alone. So
        # those ranks are surely last, whatever the true begins are.
        is_last = after_ring(1 - is_last.astype(np.int64), large, difference_ps) == 0
        if not is_last.any():
            raise NoScheduleError("ranks are not in step")
        return 0, RankOffsets(is_last)

    def _trains(self, role: int) -> bool:
        """Return whether a representative is a worker, and not a server with a host of its own."""
        return self.world.representatives[role] < self.world.workers

    def _advance_workers(
        self, spent: Counter[str], offsets: RankOffsets | None = None, begin: PathSums | None = None
    ) -> None:
        """Advance all workers by the time `spent`, after which they have `offsets`.

        The time is spent after the path `begin`, or without it after the common path of workers in step.
        """
        end = (self._common_path() if begin is None else begin).extended(spent)
        trains = [self._trains(role) for role in range(len(self.paths))]
        paths = [end if trained else path for trained, path in zip(trains, self.paths, strict=True)]
        is_exact = [
            offsets is None if trained else before for trained, before in zip(trains, self.times.is_exact, strict=True)
        ]
        self.times = RankTimes(paths, is_exact, offsets)
        self.uneven |= offsets is not None

    def _count_all(self, layout: CollectiveLayout) -> None:
        for round_ in layout.rounds:
            self._count(round_)

    def _count(self, round_: SizedRound, times: int = 1) -> None:
        """Count the bytes of `times` rounds like this one."""
        self._count_messages(round_.pairs.src, round_.pairs.dst, times * round_.sizes[round_.which])

    def _count_messages(self, src: IntArray, dst: IntArray, sizes: IntArray) -> None:
        for column in np.flatnonzero(sizes.any(0)).tolist():
            np.add.at(self.sent[:, column], src, sizes[:, column])
            np.add.at(self.received[:, column], dst, sizes[:, column])


def after_ring(early_ps: IntArray, large: int, difference_ps: int) -> IntArray:
    """Return by how much each rank ends a ring all-reduce before 2(P-1) of the longest hops after the last begin.

    At hop t, rank r sends chunk r - 1 - t (modulo P). The hop ends when this chunk has been sent, and the one of rank
    r - 1 has been received. A path back from the end of rank r therefore has two choices at each hop. It *stays* at the
    rank if the rank's own message was the last to end, or *moves* to rank r - 1. The latest path counts.

    Three ranks, whose chunks 0, 1 and 2 have 2, 1 and 1 elements. A cell is the chunk that a rank sends; stars mark the
    latest path to the end of rank 0, which is read upwards: it stays twice, then moves twice::

                 rank 0   rank 1   rank 2
        hop 0       2        0*       1       rank 1 sends chunk 0 to rank 2
        hop 1       1        2        0*      rank 2 sends chunk 0 to rank 0
        hop 2       0*       1        2       rank 0 stays: its own chunk 0 takes long
        hop 3       2*       0        1       rank 0 stays: its own chunk 2 is short
        end         .

    It has three long hops and a short one, so that rank 0 ends one difference early:

    >>> after_ring(np.array([0, 0, 0]), large=1, difference_ps=10)
    array([10,  0,  0])

    Moves go on with one chunk, because the rank before sent it one hop earlier. A stay leads to the next chunk. The
    path back from rank r therefore begins with chunk v = r + 1. After x stays, it has led through chunks v … v + x. It
    ends at rank v + 1 + x, because 2(P-1) - x moves lead back from rank v - 1. Stays use the chunks v + 1 … v + x once
    each, and the moves may use any of v … v + x. With S(a, b) the number of small chunks among a … b, and D the
    difference, rank v - 1 ends, in relation to 2(P-1) longest hops, at the maximum over x of::

        begin(v + 1 + x) - D S(v + 1, v + x)      if one of the chunks v … v + x is large, which all moves then use
        begin(v + 1 + x) - D 2(P-1)               otherwise

    Parameters
    ----------
    early_ps
        The picoseconds by which each rank begins before the last one (P,).
    large
        The number of chunks that take the longest, which are the first ones of P chunks; between 1 and P - 1.
    difference_ps
        The picoseconds by which a hop of any other chunk is shorter.
    """
    workers = len(early_ps)
    chunk = np.arange(workers)
    # D S(0, i) for i = v + x < 2P, so that chunks are counted on beyond P - 1. More stays than P - 1 only lose time.
    small = np.cumsum(np.arange(2 * workers) % workers >= large) * difference_ps
    begin = -np.roll(early_ps, -1)  # begin[i] is that of rank i + 1
    late = np.concatenate([begin, begin]) - small  # for i = v + x, but for D S(0, v)
    first_lap, second_lap = late[:workers], late[workers:]
    # A large v: all moves are long, and S(0, v) = 0. The maximum is over i = v … P - 1 and over i = P … P + v - 1.
    until_p = np.maximum.accumulate(first_lap[::-1])[::-1]
    from_p = np.maximum.accumulate(np.concatenate([until_p[-1:], second_lap[:-1]]))
    through_large = np.maximum(until_p, from_p)
    # A small v: up to i = P - 1 all chunks are small; from i = P on, the moves use chunk 0, which is large.
    all_short = np.maximum.accumulate(begin[::-1])[::-1] - (2 * workers - 2) * difference_ps
    through_small = np.maximum(all_short, small[:workers] + second_lap.max())
    ends = np.where(chunk < large, through_large, through_small)
    return -np.roll(ends, -1)  # chunk v arrives last at rank v - 1


def _difference(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] - right[0], left[1] - right[1], left[2] - right[2]


TreeLevels: TypeAlias = Sequence[Sequence[Sequence[int]]] | None
"""The groups of ranks at each level of a tree; None if all ranks are one group."""


def _arguments(call: Collective[Any]) -> dict[str, Any]:
    """Return the arguments of a collective by name."""
    bound = inspect.signature(call.function).bind(call.worker, *call.args, **call.kwargs)
    bound.apply_defaults()
    return bound.arguments


def _levels_with_groups(call: Collective[Any]) -> TreeLevels:
    """Return the levels of a tree whose lowest level has several groups, else None."""
    levels: TreeLevels = _arguments(call).get("levels")
    return levels if levels is not None and len(levels[0]) > 1 else None


def _check_equal_groups(levels: Sequence[Sequence[Sequence[int]]]) -> None:
    """Raise NoScheduleError unless all groups of a level have the same power of two of ranks, and are done at once."""
    for level in levels:
        sizes = {len(group) for group in level}
        if len(sizes) > 1:
            raise NoScheduleError(f"groups have different sizes, such as {min(sizes)} and {max(sizes)}")
        if (size := sizes.pop()) & (size - 1):
            raise NoScheduleError(f"a group of {size} workers is no power of two")


def _message_size(round_: SizedRound) -> MessageSize:
    """Return the size of the messages of a round, which are all equal."""
    values, indices, flags = round_.sizes[round_.which[0]].tolist()
    return values, indices, flags


def _multiplied(count: int, spent: Counter[str]) -> Counter[str]:
    return Counter({what: count * picoseconds for what, picoseconds in spent.items()})


# A recorded call has the function that the decorator of collectives wraps.
RING_ALL_REDUCE = getattr(ring_all_reduce, "__wrapped__", None)
FORMULAS: dict[Any, Callable[[Formulas, CollectiveLayout, TreeLevels], None]] = {
    getattr(collective, "__wrapped__", None): formula
    for collective, formula in (
        (ring_all_gather, Formulas.time_all_gather),
        (bruck_all_gather, Formulas.time_all_gather),
        (all_to_all, Formulas.time_all_to_all),
        (swap, Formulas.time_all_to_all),
        (tree_reduce, Formulas.time_tree_reduce),
        (tree_broadcast, Formulas.time_tree_broadcast),
        (gather, Formulas.time_gather_at_server),
        (scatter, Formulas.time_send_from_server),
        (broadcast_from_server, Formulas.time_send_from_server),
    )
}
