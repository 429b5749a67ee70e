"""Critical paths: the chains of events that led to an instant, and the parts of a round's time along the longest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import replace

from netsim._util.units import PICOSECONDS
from netsim.comm.worker import COMPUTE, SELECT
from netsim.experiment.results import Timing
from netsim.network.fabric import Link

LONGEST = 4096
"""Events after which a chain is summed up, so that the memory of a long run stays constant."""


class CriticalPath:
    """A chain of (event, picoseconds). Chains share their beginnings.

    The durations of a worker's path always sum to the present instant: a worker that waited for a message continues the
    path of that message.

    >>> path = CriticalPath.start(0).then("gradient", 5).then("latency", 2).then("gradient", 1)
    >>> path.totals()["gradient"], path.totals().total()
    (6, 8)
    """

    __slots__ = ("_depth", "_duration", "_previous", "_summed", "_what")

    def __init__(self, previous: CriticalPath | None, what: Hashable, duration: int) -> None:
        self._previous = previous
        self._what = what
        self._duration = duration
        self._depth: int = 1 if previous is None else previous._depth + 1
        self._summed: Counter[Hashable] | None = None
        if self._depth > LONGEST:
            self._summed = self.totals()
            self._previous, self._depth = None, 1

    def __repr__(self) -> str:
        return f"CriticalPath(…, {self._what!r} for {self._duration} ps)"

    @classmethod
    def start(cls, now: int) -> CriticalPath:
        """Return the path of a worker that starts at `now`, in picoseconds."""
        return cls(None, "start", now)

    @classmethod
    def after(cls, totals: Counter[Hashable]) -> CriticalPath:
        """Return a path that continues another path, from the totals of that path."""
        path = cls.start(0)
        path._summed = totals
        return path

    def then(self, what: Hashable, duration: int) -> CriticalPath:
        """Return this path extended by `duration` picoseconds of `what`."""
        return CriticalPath(self, what, duration) if duration else self

    def totals(self) -> Counter[Hashable]:
        """Return the picoseconds of each event along the path."""
        return sum_of([self])


def sum_of(paths: Iterable[CriticalPath]) -> Counter[Hashable]:
    """Return the picoseconds of each event, summed over paths. What paths share is looked at once."""
    totals: Counter[Hashable] = Counter()
    ends: defaultdict[int, dict[CriticalPath, int]] = defaultdict(dict)
    for path in paths:
        ends[path._depth][path] = ends[path._depth].get(path, 0) + 1
    through: dict[CriticalPath, int] = {}  # by link of a chain: how many paths lead through it
    for depth in range(max(ends, default=0), 0, -1):
        if depth in ends:
            for path, count in ends[depth].items():
                through[path] = through.get(path, 0) + count
        before: dict[CriticalPath, int] = {}
        for link, count in through.items():
            if link._summed is None:
                totals[link._what] += count * link._duration
            else:
                for what, duration in link._summed.items():
                    totals[what] += count * duration
            if (previous := link._previous) is not None:
                before[previous] = before.get(previous, 0) + count
        through = before
    return totals


def timing(totals: Counter[Hashable], whole: int, chains: int, rounds: int, server_hosts: Sequence[str]) -> Timing:
    """Return the parts of a round's time along critical paths, and its bottleneck.

    Parameters
    ----------
    totals
        Picoseconds of each kind of work, link and latency, summed over `chains` critical paths.
    whole
        Picoseconds of these critical paths in all.
    chains
        Number of critical paths: of the ranks that end last.
    rounds
        Number of rounds.
    server_hosts
        Hosts of parameter servers.
    """

    def seconds(picoseconds: int) -> float:
        return picoseconds / (PICOSECONDS * rounds * chains)

    compute = sum(totals[work] for work in COMPUTE)
    select = sum(totals[work] for work in SELECT)
    return Timing(
        seconds(whole),
        seconds(compute),
        seconds(select),
        seconds(whole - compute - select),
        bound_by(totals, server_hosts),
    )


def with_alike_links(found: Timing, near: Callable[[], Counter[Hashable]], server_hosts: Collection[str]) -> Timing:
    """Return a timing whose bottleneck is no single link if other ranks that end within 1 % are bound by theirs.

    Chunks that differ by one element make one rank the last; its link is as fast as all others.

    Parameters
    ----------
    found
        The timing along the critical paths of the ranks that end last.
    near
        Returns the totals of the paths of all ranks that end within 1 % of these.
    server_hosts
        Hosts of parameter servers.
    """
    if not found.bound_by.startswith("link "):
        return found
    name = bound_by(near(), server_hosts)
    return replace(found, bound_by=name) if name.startswith("worker links") else found


def bound_by(totals: Counter[Hashable], server_hosts: Collection[str]) -> str:
    """Return the event that took most of the time along a critical path, as text.

    Parameters
    ----------
    totals
        Picoseconds of each event along the path; links are their own events.
    server_hosts
        The hosts of parameter servers. Their links together count as "server NIC".

    Returns
    -------
    str
        Such as "compute", "selection", "latency", "server NIC (worker0)" or "link worker1→switch". Both directions of a
        cable that is slower than all others count together, and the busier one is named. If no link took half of the
        time of all links, "worker links", with the first of the busiest as an example. What all messages at a node
        share, such as a host's ceiling, is "limit of worker1" or "node limits".
    """
    links: Counter[Link] = Counter({what: time for what, time in totals.items() if isinstance(what, Link)})
    candidates = {
        "compute": sum(totals[work] for work in COMPUTE),
        "selection": sum(totals[work] for work in SELECT),
        "latency": totals["latency"] + totals["switching"],
        "host overhead": totals["host overhead"],
        "slow start": totals["slow start"] + totals["handshake"],
        "window": totals["window"],
        "stream rate": totals["stream rate"],
        "clear to send": totals["clear to send"],
        "links": links.total(),
    }
    greatest = max(candidates, key=lambda name: candidates[name])
    if not candidates[greatest]:
        return "nothing"
    if greatest != "links":
        return greatest
    at_servers = {host: sum(time for link, time in links.items() if host in link.ends) for host in server_hosts}
    if 2 * sum(at_servers.values()) > links.total():
        return f"server NIC ({max(at_servers, key=lambda host: at_servers[host])})"
    busiest = max(links, key=lambda link: (links[link], -link.index))
    if 2 * max(links[busiest], _of_slowest_cable(links, busiest)) > links.total():
        return f"{'link' if busiest.cabled else 'limit of'} {busiest.name}"
    alike = [link for link, time in links.items() if 2 * time > links[busiest]]
    example = min(alike, key=lambda link: link.index)
    return f"{'worker links' if example.cabled else 'node limits'}, e.g. {example.name}"


def _of_slowest_cable(links: Counter[Link], busiest: Link) -> int:
    """Return the time of both directions of the busiest link's cable if there are other links, all faster; else 0."""
    others = [link for link in links if set(link.ends) != set(busiest.ends)]
    if min((link.bandwidth_bps for link in others), default=0) <= busiest.bandwidth_bps:
        return 0
    return links.total() - sum(links[link] for link in others)
