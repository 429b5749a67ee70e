"""The flow engine compiled by numba: flat records, local repair of max-min shares, a heap of instants.

Import it lazily, and only where numba is there. What it computes is what :mod:`netsim.network.flows` says; how is its
own. Every flow stores the link that holds it back, its bottleneck. When flows come and go, only those are shared
out again that come or that a link concerned held back, in what the others leave. Then each bottleneck is looked at: a
rate is max-min fair if and only if its flow is at its cap, or uses a full link on which no flow has a higher level,
which is a rate by its weight (Bertsekas and Gallager, Data Networks, section 6.5). Flows for which that ceased to hold
join those that are shared out, until it holds for all. A flow alone on its links is never shared out.

A loop in nopython mode drives the engine by itself, for example with messages that wait their route's latency::

    core = new_core(bandwidth_bps, flows=1000, knots=4000)   # in Python: room for so many flows and links of flows
    flow = add(core, tag, links, bits, weight, cap, at)      # drains from `at` on, in picoseconds; weight 1, cap inf
    while (now := next_instant(core)) != NEVER:
        for flow in done[: settle(core, now, done)]:         # those whose last bit has drained, by tag
            ...core.flows[flow].tag...                       # read what you need of it, then
            free(core, flow)                                 # give its room back

`done` is an int32 array as long as ``core.flows``. Of one instant, flows end in the order of their tags. `add` returns
NONE where there is no room; :func:`grow` makes more, in Python.

All of it is in one file, since numba's cache of a function knows the file of that function alone: who changes this file
touches those whose compiled functions call it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from netsim._util.system import compiler
from netsim._util.units import FASTEST_BPS, HORIZON_PS

numba = compiler()

F = TypeVar("F", bound=Callable[..., Any])
Records: TypeAlias = Any
"""A structured array; its records' fields are attributes in compiled code."""

NONE: Final = -1
CAP: Final = -2
"""Stands for a knot where a flow is held back by its own cap."""
NEVER: Final = HORIZON_PS
"""The instant of what does not happen. Later ones cannot be told from it."""
SECOND: Final = 10**12
LARGEST_RATE: Final = FASTEST_BPS
"""Of whole bit/s up to this, times are computed in integers."""
TOLERANCE: Final = 1e-12
"""Levels and sums that differ by less, relatively, are equal; what is above is repaired."""
REACH: Final = 6
"""How far from a change flows are shared out at first: those that its links hold back, those that their links do, …"""
WAITING, DRAINING, OVER = range(3)

# What repairs look at comes first, so that it lies together in the cache.
LINK = np.dtype(
    [
        ("first", "i4"),  # knots of the flows on it, in order of arrival
        ("users", "i4"),  # flows on it that are shared out,
        ("weight", "f8"),  # their weights,
        ("kept", "f8"),  # rates of the others,
        ("highest", "f8"),  # the highest level of those,
        ("held", "f8"),  # and of those among them that it holds back; -1 where there is none
        ("spare", "f8"),  # while filling: what is left,
        ("growing", "f8"),  # for flows of this weight in all,
        ("unfixed", "i4"),  # and of this number
        ("stale", "i4"),  # whether `users` to `held` must be summed anew
        ("capacity", "f8"),
        ("repair", "i8"),  # stamp of the repair that touched it last
        ("last", "i4"),
        ("flows", "i4"),
        ("changed", "i4"),  # whether it is among the links that changed
    ],
    align=True,
)
FLOW = np.dtype(
    [
        ("knot", "i4"),  # its first
        ("bottleneck", "i4"),  # the knot of the link that holds it back, CAP or NONE
        ("new_bottleneck", "i4"),
        ("fixed", "i4"),
        ("repair", "i8"),  # stamp of the repair that it takes part in
        ("weight", "f8"),
        ("level", "f8"),
        ("rate", "f8"),
        ("new_rate", "f8"),
        ("cap", "f8"),
        ("due", "i8"),
        ("tag", "i8"),
        ("remaining", "f8"),
        ("updated", "i8"),
        ("bits", "i8"),
        ("capped", "i8"),  # picoseconds at its cap
        ("place", "i4"),  # in the heap of instants
        ("phase", "i4"),
    ],
    align=True,
)
KNOT = np.dtype(
    [
        ("flow", "i4"),
        ("link", "i4"),
        ("next", "i4"),  # on the link
        ("previous", "i4"),
        ("following", "i4"),  # of the flow
        ("held", "i8"),  # picoseconds for which this link held the flow back
    ],
    align=True,
)
HEAD = np.dtype(
    [
        ("free_flow", "i4"),
        ("free_knot", "i4"),
        ("scheduled", "i4"),
        ("members", "i4"),
        ("touched", "i4"),
        ("entering", "i4"),
        ("changes", "i4"),
        ("filling", "i4"),
        ("repair", "i8"),
        ("solved", "i8"),  # repairs so far, and flows shared out by them
        ("shared_out", "i8"),
    ],
    align=True,
)


class Core(NamedTuple):
    """Links, flows, and the knots that tie them together; then lists that are only used inside."""

    head: Records
    links: Records
    flows: Records
    knots: Records
    agenda: NDArray[np.int32]
    """A heap of flows by (due, tag)."""
    dues: NDArray[np.int64]
    """When they are due."""
    members: NDArray[np.int32]
    """Flows that are shared out."""
    touched: NDArray[np.int32]
    """Links that they use."""
    changed: NDArray[np.int32]
    """Links that flows entered or left, or whose capacity changed."""
    keys: NDArray[np.float64]
    """A heap of (level, link), or flow after the last link, for filling."""
    ids: NDArray[np.int32]


def jit(function: F) -> F:
    """Compile without the GIL, cached on disk where that can be written."""
    try:
        return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def new_core(bandwidth_bps: NDArray[Any], flows: int = 256, knots: int = 1024) -> Core:
    """Return an idle network with room for so many flows, waiting ones included, and links of all their routes."""
    no_ints, no_floats = np.zeros(0, np.int32), np.zeros(0, np.float64)
    head = np.zeros(1, HEAD)
    head["free_flow"] = head["free_knot"] = NONE
    links, nobody, no_knots = (np.zeros(0, kind) for kind in (LINK, FLOW, KNOT))
    dues = np.zeros(0, np.int64)
    empty = Core(head, links, nobody, no_knots, no_ints, dues, no_ints, no_ints, no_ints, no_floats, no_ints)
    core = grow(empty, max(1, flows), max(1, knots), len(bandwidth_bps))
    core.links["capacity"] = bandwidth_bps
    return core


def grow(core: Core, flows: int = 0, knots: int = 0, links: int = 0) -> Core:
    """Return the same state with room for so many flows, knots and links more."""
    had_flows, had_knots = len(core.flows), len(core.knots)
    more_links, more_flows, more_knots = np.zeros(links, LINK), np.zeros(flows, FLOW), np.zeros(knots, KNOT)
    more_links["first"] = more_links["last"] = NONE
    head = core.head.copy()
    # What is free forms a chain, through `knot` and `following`.
    if flows:
        more_flows["knot"] = np.append(np.arange(had_flows + 1, had_flows + flows), head["free_flow"])
        head["free_flow"] = had_flows
    if knots:
        more_knots["following"] = np.append(np.arange(had_knots + 1, had_knots + knots), head["free_knot"])
        head["free_knot"] = had_knots
    room, all_links = had_flows + flows, len(core.links) + links
    return Core(
        head,
        np.concatenate([core.links, more_links]),
        np.concatenate([core.flows, more_flows]),
        np.concatenate([core.knots, more_knots]),
        np.concatenate([core.agenda, np.zeros(flows, np.int32)]),
        np.concatenate([core.dues, np.zeros(flows, np.int64)]),
        np.zeros(room, np.int32),
        np.zeros(all_links, np.int32),
        np.concatenate([core.changed, np.zeros(links, np.int32)]),
        np.zeros(all_links + room, np.float64),
        np.zeros(all_links + room, np.int32),
    )


# What others call.


@jit
def add(core: Core, tag: int, links: NDArray[Any], bits: int, weight: float, cap: float, at: int) -> int:
    """Have `bits` drain through `links` from `at` on, with a weight and at most `cap` bit/s; return the flow's number.

    Of no bits, or without links, it is over at `at`. Return NONE where there is no room.
    """
    head, knots = core.head[0], core.knots
    number = head.free_flow
    spare = head.free_knot
    for _ in range(len(links)):
        if spare == NONE:
            return NONE
        spare = knots[spare].following
    if number == NONE:
        return NONE
    flow = core.flows[number]
    head.free_flow = flow.knot
    flow.tag, flow.bits, flow.remaining = tag, bits, bits
    flow.rate, flow.level, flow.weight, flow.cap = 0.0, 0.0, weight, cap
    flow.updated, flow.due, flow.capped = at, at, 0
    flow.knot, flow.bottleneck, flow.phase, flow.place = NONE, NONE, WAITING, NONE
    flow.repair = 0
    for position in range(len(links) - 1, -1, -1):
        index = head.free_knot
        knot = knots[index]
        head.free_knot = knot.following
        knot.flow, knot.link, knot.held = number, links[position], 0
        knot.following = flow.knot
        flow.knot = index
    _schedule(core, number, at)
    return int(number)


@jit
def free(core: Core, number: int) -> None:
    """Give back the room of a flow that is over."""
    head, flow, knots = core.head[0], core.flows[number], core.knots
    index = flow.knot
    while index != NONE:
        following = knots[index].following
        knots[index].following = head.free_knot
        head.free_knot = index
        index = following
    flow.knot = head.free_flow
    head.free_flow = number


@jit
def take(core: Core, number: int, held: NDArray[np.int64]) -> int:
    """Read of a flow that is over for how many picoseconds each link of its route held it back, and free it.

    Return for how many its own cap did.
    """
    index, position = core.flows[number].knot, 0
    while index != NONE:
        held[position] = core.knots[index].held
        position += 1
        index = core.knots[index].following
    free(core, number)
    return int(core.flows[number].capped)


@jit
def next_instant(core: Core) -> int:
    """Return when something happens next, NEVER if nothing does."""
    return int(core.dues[0]) if core.head[0].scheduled else NEVER


@jit
def settle(core: Core, now: int, done: NDArray[np.int32]) -> int:
    """Let all that is due by `now` happen, share links once, and return how many flows are over, now in `done`.

    Call it at every :func:`next_instant`, and after changes of links and caps.
    """
    head, links, flows, knots = core.head[0], core.links, core.flows, core.knots
    over = 0
    entering = 0  # they come last in `done`, which has room for all flows
    while head.scheduled and core.dues[0] <= now:
        number = core.agenda[0]
        _unschedule(core, number)
        flow = flows[number]
        if flow.phase == WAITING and flow.bits > 0 and flow.knot != NONE:
            flow.phase, flow.updated = DRAINING, now
            _tie(core, number)
            entering += 1
            done[len(done) - entering] = number
            continue
        if flow.phase == DRAINING:
            _progress(core, number, now)
            _untie(core, number)
        flow.phase = OVER
        done[over] = number
        over += 1
    head.repair += 1
    head.members = head.touched = 0
    for position in range(entering):
        number = done[len(done) - 1 - position]
        if _is_alone(core, number):
            _alone(core, number, now)
        else:
            _join(core, number)
            index = flows[number].knot
            while index != NONE:
                _mark(core, knots[index].link)
                index = knots[index].following
    for position in range(head.changes):
        link = core.changed[position]
        links[link].changed = 0
        _join_held(core, link)
    head.changes = 0
    if head.members:
        _repair(core, now)
    return over


@jit
def settle_and_report(core: Core, now: int, done: NDArray[np.int32], report: NDArray[np.int64]) -> tuple[int, int]:
    """Do as :func:`settle`, free the flows that are over, and return the length of the report, and the next instant.

    That is NONE if there is none, and NEVER if it is further away than can be counted.

    The report holds of each flow its number, for how many picoseconds its own cap held it back, and for how many
    each link of its route did; it takes two for each flow there is room for, and one for each knot.
    """
    size = 0
    for position in range(settle(core, now, done)):
        number, index, links = done[position], core.flows[done[position]].knot, 0
        while index != NONE:
            links, index = links + 1, core.knots[index].following
        report[size], report[size + 1] = number, take(core, number, report[size + 2 :])
        size += 2 + links
    return size, int(core.dues[0]) if core.head[0].scheduled else NONE


@jit
def set_capacity(core: Core, link: int, capacity: float) -> None:
    """Give a link another capacity from the next :func:`settle` on."""
    core.links[link].capacity = capacity
    # Its flows may all be too fast now: have them held back by it, so that they are shared out.
    index = core.links[link].first
    while index != NONE:
        core.flows[core.knots[index].flow].repair = _UNSETTLED
        index = core.knots[index].next
    _mark(core, link)


@jit
def set_cap(core: Core, number: int, cap: float) -> None:
    """Have a flow not exceed `cap` bit/s from the next :func:`settle` on."""
    flow = core.flows[number]
    flow.cap = cap
    if flow.phase == DRAINING:
        flow.repair = _UNSETTLED
        _mark(core, core.knots[flow.knot].link)


# Flows and their links.

_UNSETTLED: Final = -1


@jit
def _tie(core: Core, number: int) -> None:
    """Put a flow on its links."""
    links, knots = core.links, core.knots
    index = core.flows[number].knot
    while index != NONE:
        knot = knots[index]
        link = links[knot.link]
        knot.previous, knot.next = link.last, NONE
        if link.last == NONE:
            link.first = index
        else:
            knots[link.last].next = index
        link.last = index
        link.flows += 1
        index = knot.following


@jit
def _untie(core: Core, number: int) -> None:
    """Take a flow off its links, and mark those that others use."""
    links, knots = core.links, core.knots
    index = core.flows[number].knot
    while index != NONE:
        knot = knots[index]
        link = links[knot.link]
        if knot.previous == NONE:
            link.first = knot.next
        else:
            knots[knot.previous].next = knot.next
        if knot.next == NONE:
            link.last = knot.previous
        else:
            knots[knot.next].previous = knot.previous
        link.flows -= 1
        if link.flows:
            _mark(core, knot.link)
        index = knot.following


@jit
def _mark(core: Core, link: int) -> None:
    """Note that something about a link changed."""
    if not core.links[link].changed:
        core.links[link].changed = 1
        core.changed[core.head[0].changes] = link
        core.head[0].changes += 1


@jit
def _is_alone(core: Core, number: int) -> bool:
    index = core.flows[number].knot
    while index != NONE:
        if core.links[core.knots[index].link].flows > 1:
            return False
        index = core.knots[index].following
    return True


@jit
def _alone(core: Core, number: int, now: int) -> None:
    """Give a flow that shares no link the least capacity of its links, or its cap."""
    flow, knots = core.flows[number], core.knots
    rate, narrowest = math.inf, NONE
    index = flow.knot
    while index != NONE:
        capacity = core.links[knots[index].link].capacity
        if capacity < rate:
            rate, narrowest = capacity, index
        index = knots[index].following
    if flow.cap < rate:
        rate, narrowest = flow.cap, CAP
    flow.level = rate / flow.weight
    _set_rate(core, number, rate, narrowest, now)


@jit
def _progress(core: Core, number: int, now: int) -> None:
    """Account for what drained at the present rate since the last change."""
    flow = core.flows[number]
    elapsed = now - flow.updated
    if elapsed > 0 and flow.bottleneck != NONE:
        flow.remaining = max(0.0, flow.remaining - flow.rate * elapsed / SECOND)
        if flow.bottleneck == CAP:
            flow.capped += elapsed
        else:
            core.knots[flow.bottleneck].held += elapsed
    flow.updated = now


@jit
def _set_rate(core: Core, number: int, rate: float, bottleneck: int, now: int) -> None:
    flow = core.flows[number]
    if rate != flow.rate or bottleneck != flow.bottleneck:
        _progress(core, number, now)
        same = rate == flow.rate
        flow.rate, flow.bottleneck = rate, bottleneck
        if same and flow.place != NONE:
            return
        if rate == 0.0:
            if flow.place != NONE:
                _unschedule(core, number)
        elif flow.place == NONE:
            _schedule(core, number, now + _time_left(flow))
        else:
            flow.due = min(now + _time_left(flow), NEVER)
            _move(core, number, flow.place)


@jit
def _time_left(flow: Any) -> int:
    if flow.remaining == flow.bits and flow.rate <= LARGEST_RATE and flow.rate == math.floor(flow.rate):
        # As a rule alone from the start: integers, so that the time is exact at any size. Long division
        # of bits times a second by the rate, by thousands, which stays within 64 bits; then rounded.
        rate = np.int64(flow.rate)
        time, rest = flow.bits // rate, flow.bits % rate
        if time >= NEVER // SECOND:
            return NEVER
        for _ in range(4):
            rest *= 1000
            time = 1000 * time + rest // rate
            rest %= rate
        return int(time + (2 * rest >= rate))
    time = flow.remaining * SECOND / flow.rate
    return NEVER if time >= NEVER else int(np.rint(time))


# The agenda.


@jit
def _before(core: Core, due: int, number: int, place: int) -> bool:
    """Return whether a flow that is due then comes before the one at a place of the heap."""
    if due != core.dues[place]:
        return bool(due < core.dues[place])
    return bool(core.flows[number].tag < core.flows[core.agenda[place]].tag)


@jit
def _schedule(core: Core, number: int, due: int) -> None:
    """Put a flow on the agenda."""
    core.flows[number].due = min(due, NEVER)
    core.head[0].scheduled += 1
    _rise(core, number, core.head[0].scheduled - 1)


@jit
def _unschedule(core: Core, number: int) -> None:
    """Take a flow off the agenda."""
    head = core.head[0]
    place = core.flows[number].place
    core.flows[number].place = NONE
    head.scheduled -= 1
    last = core.agenda[head.scheduled]
    if last != number:
        _move(core, last, place)


@jit
def _move(core: Core, number: int, place: int) -> None:
    """Have a flow that is put at a place of the heap, or due at another instant, go to where it belongs."""
    if place and _before(core, core.flows[number].due, number, (place - 1) // 2):
        _rise(core, number, place)
    else:
        _sink(core, number, place)


@jit
def _put(core: Core, number: int, due: int, place: int) -> None:
    core.agenda[place], core.dues[place] = number, due
    core.flows[number].place = place


@jit
def _rise(core: Core, number: int, place: int) -> None:
    due = core.flows[number].due
    while place:
        above = (place - 1) // 2
        if not _before(core, due, number, above):
            break
        _put(core, core.agenda[above], core.dues[above], place)
        place = above
    _put(core, number, due, place)


@jit
def _sink(core: Core, number: int, place: int) -> None:
    due, count = core.flows[number].due, core.head[0].scheduled
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and _before(core, core.dues[child + 1], core.agenda[child + 1], child):
            child += 1
        if _before(core, due, number, child):
            break
        _put(core, core.agenda[child], core.dues[child], place)
        place = child
    _put(core, number, due, place)


# Sharing.


@jit
def _join(core: Core, number: int) -> None:
    """Have a flow shared out, and what is known of its links summed anew."""
    head, flow, links, knots = core.head[0], core.flows[number], core.links, core.knots
    if flow.repair == head.repair:
        return
    flow.repair = head.repair
    core.members[head.members] = number
    head.members += 1
    index = flow.knot
    while index != NONE:
        link = links[knots[index].link]
        if link.repair != head.repair:
            link.repair = head.repair
            core.touched[head.touched] = knots[index].link
            head.touched += 1
        link.stale = 1
        index = knots[index].following


@jit
def _join_held(core: Core, number: int) -> None:
    """Have those flows shared out that a link holds back, or that are not settled."""
    index = core.links[number].first
    while index != NONE:
        knot = core.knots[index]
        flow = core.flows[knot.flow]
        if flow.bottleneck == index or flow.repair == _UNSETTLED:
            _join(core, knot.flow)
        index = knot.next


@jit
def _repair(core: Core, now: int) -> None:
    """Share out what the others leave; have those join whose bottleneck holds no more, until there are none."""
    head, flows = core.head[0], core.flows
    head.solved += 1
    position = 0
    for _ in range(REACH):
        reached = head.touched
        while position < reached:
            _join_held(core, core.touched[position])
            position += 1
    while True:
        for position in range(head.touched):
            if core.links[core.touched[position]].stale:
                _sum_up(core, core.touched[position])
        _fill(core)
        before = head.members
        _look(core, before)
        if head.members == before:
            break
    head.shared_out += head.members
    for position in range(head.members):
        number = core.members[position]
        _set_rate(core, number, flows[number].new_rate, flows[number].new_bottleneck, now)


@jit
def _sum_up(core: Core, number: int) -> None:
    """Find what the flows on a link that are not shared out take of it."""
    link, flows, knots, repair = core.links[number], core.flows, core.knots, core.head[0].repair
    link.stale = 0
    users, weight, kept, highest, held = 0, 0.0, 0.0, 0.0, -1.0
    index = link.first
    while index != NONE:
        flow = flows[knots[index].flow]
        if flow.repair == repair:
            users += 1
            weight += flow.weight
        else:
            kept += flow.rate
            highest = max(highest, flow.level)
            if flow.bottleneck == index:
                held = max(held, flow.level)
        index = knots[index].next
    link.users, link.weight, link.kept, link.highest, link.held = users, weight, kept, highest, held


@jit
def _fill(core: Core) -> None:
    """Progressive filling of what is left of the links: those of the lowest level are full first."""
    head, links, flows, knots = core.head[0], core.links, core.flows, core.knots
    first_flow = len(links)
    _gather_limits(core)
    unfixed = head.members
    while unfixed:
        key, number = core.keys[0], core.ids[0]
        if number >= first_flow:
            _pop(core)
            flow = flows[number - first_flow]
            if not flow.fixed:
                rate = flow.cap if flow.new_bottleneck == CAP else links[knots[flow.new_bottleneck].link].spare
                _fix(core, number - first_flow, rate, key, flow.new_bottleneck)
                unfixed -= 1
            continue
        link = links[number]
        if not link.unfixed:
            _pop(core)
            continue
        level = link.spare / link.growing
        if level > key:  # others have been fixed below its level since: it is full later than it seemed
            core.keys[0] = level
            _sink_limit(core, 0)
            continue
        _pop(core)
        index = link.first
        while index != NONE and link.unfixed:
            flow = flows[knots[index].flow]
            if flow.repair == head.repair and not flow.fixed:
                rate = link.spare if link.unfixed == 1 else level * flow.weight
                _fix(core, knots[index].flow, rate, level, index)
                unfixed -= 1
            index = knots[index].next


@jit
def _gather_limits(core: Core) -> None:
    """Make a heap of the levels at which links would be full, and flows at what limits them alone.

    That is a flow's cap, or the least that is left of links that no other flow shares in.
    """
    head, links, flows, knots = core.head[0], core.links, core.flows, core.knots
    head.filling = 0
    for position in range(head.touched):
        number = core.touched[position]
        link = links[number]
        link.spare, link.growing, link.unfixed = max(0.0, link.capacity - link.kept), link.weight, link.users
        if link.users > 1:
            core.keys[head.filling], core.ids[head.filling] = link.spare / link.growing, number
            head.filling += 1
    for position in range(head.members):
        number = core.members[position]
        flow = flows[number]
        least, at = flow.cap, CAP
        index = flow.knot
        while index != NONE:
            link = links[knots[index].link]
            if link.users == 1 and (link.spare < least or (link.spare == least and at == CAP)):
                least, at = link.spare, index
            index = knots[index].following
        flow.fixed, flow.new_bottleneck = 0, at
        if least < math.inf:
            core.keys[head.filling], core.ids[head.filling] = least / flow.weight, len(links) + number
            head.filling += 1
    for place in range(head.filling // 2 - 1, -1, -1):
        _sink_limit(core, place)


@jit
def _fix(core: Core, number: int, rate: float, level: float, bottleneck: int) -> None:
    links, knots, flow = core.links, core.knots, core.flows[number]
    flow.new_rate, flow.level, flow.new_bottleneck, flow.fixed = rate, level, bottleneck, 1
    index = flow.knot
    while index != NONE:
        link = links[knots[index].link]
        link.spare = max(0.0, link.spare - rate)
        link.growing -= flow.weight
        link.unfixed -= 1
        index = knots[index].following


@jit
def _look(core: Core, count: int) -> None:
    """Have all flows join whose bottleneck holds no more; `count` are shared out so far."""
    head, links, flows, knots = core.head[0], core.links, core.flows, core.knots
    for position in range(count):
        flow = flows[core.members[position]]
        above = flow.level * (1 + TOLERANCE)
        index = flow.knot
        while index != NONE:
            link = links[knots[index].link]
            if index == flow.new_bottleneck and link.highest > above:
                _join_above(core, knots[index].link, above)
                link.highest = above
            if link.held >= 0.0 and flow.level > link.held * (1 + TOLERANCE):
                _join_held(core, knots[index].link)
                link.held = -1.0
            index = knots[index].following
    for position in range(head.touched):
        link = links[core.touched[position]]
        # Flows that it holds back could go faster if it is not full any more.
        if link.held >= 0.0 and not link.stale and link.spare > TOLERANCE * link.capacity:
            _join_held(core, core.touched[position])


@jit
def _join_above(core: Core, number: int, level: float) -> None:
    """Have those flows on a link shared out that are above a level."""
    index = core.links[number].first
    while index != NONE:
        flow = core.knots[index].flow
        if core.flows[flow].repair != core.head[0].repair and core.flows[flow].level > level:
            _join(core, flow)
        index = core.knots[index].next


# The heap that filling uses.


@jit
def _pop(core: Core) -> None:
    """Take off what is on top."""
    head = core.head[0]
    head.filling -= 1
    core.keys[0], core.ids[0] = core.keys[head.filling], core.ids[head.filling]
    _sink_limit(core, 0)


@jit
def _sink_limit(core: Core, place: int) -> None:
    """Have an entry sink to where it belongs."""
    keys, ids, count = core.keys, core.ids, core.head[0].filling
    key, number = keys[place], ids[place]
    while 2 * place + 1 < count:
        child = 2 * place + 1
        right = child + 1
        if right < count and (keys[right] < keys[child] or (keys[right] == keys[child] and ids[right] < ids[child])):
            child = right
        if not (keys[child] < key or (keys[child] == key and ids[child] < number)):
            break
        keys[place], ids[place] = keys[child], ids[child]
        place = child
    keys[place], ids[place] = key, number
