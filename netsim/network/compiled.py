"""The incremental max-min solver, compiled by numba: flat records, local repair of rates, a heap of instants.

Import it lazily, and only where numba is installed. It computes the same rates as the reference,
:func:`netsim.network.filling.max_min`, in another way. Every flow remembers its bottleneck. When flows come and go,
only two kinds of flows get new rates: those that come, and those whose bottleneck is a link concerned. They share what
all other flows leave. Then the solver checks every bottleneck. A rate is max-min fair if and only if its flow is at its
cap, or uses a full link on which no flow has a higher level (rate by weight). Flows for which that no longer holds
join the flows that get new rates, until it holds for all. A flow alone on its links takes no part in this.

A loop in nopython mode can drive the solver by itself, for example with messages that wait for their route's latency::

    core = new_core(bandwidth_bps, flows=1000, knots=4000)  # in Python: room for flows, and for their links
    flow = add(core, tag, links, bits, weight, cap, start)   # drains from `start` on, in ps; weight 1, cap inf
    while (now := next_instant(core)) != NEVER:
        for flow in done[: settle(core, now, done)]:         # the flows that end now, in the order of their tags
            ...core.flows[flow].tag...                       # read what you need of the flow, then
            free(core, flow)                                 # give its room back

`done` is an int32 array as long as ``core.flows``. `add` returns NONE where there is no room; :func:`grow` makes more,
in Python.

A *slot* is the position of a record in its table: of a flow, a link or a knot. A *knot* ties one flow to one link of
its route. The knots of a link form a doubly linked list in order of arrival, those of a flow a singly linked list in
order of the route.

All of this is in one file because numba's cache knows only the file of a compiled function. After a change here, touch
the files whose compiled functions call these.

References
----------
Bertsekas and Gallager, *Data Networks*, section 6.5.
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
"""The bottleneck of a flow that its own cap limits."""
NEVER: Final = HORIZON_PS
"""The instant of an event that never happens: the horizon. Later instants are not distinguished from it."""
SECOND: Final = 10**12
LARGEST_RATE: Final = FASTEST_BPS
"""The time at a rate of whole bit/s up to this is computed in integers."""
TOLERANCE: Final = 1e-12
"""Levels and sums with a smaller relative difference count as equal; a larger difference is repaired."""
REACH: Final = 6
"""Steps from a change within which flows get new rates at first, each step from a link to the flows it limits."""
WAITING, DRAINING, OVER = range(3)

# The fields that repairs read come first, so that they lie together in the cache. A *member* is a flow that gets a new
# rate in the present repair.
LINK = np.dtype(
    [
        ("first", "i4"),  # first knot, in order of arrival
        ("users", "i4"),  # number of members on the link
        ("weight", "f8"),  # sum of their weights
        ("kept", "f8"),  # sum of the rates of the other flows
        ("highest", "f8"),  # highest level of the other flows
        ("held", "f8"),  # highest level of those whose bottleneck is this link; -1 if there are none
        ("spare", "f8"),  # while filling: bandwidth that is left,
        ("growing", "f8"),  # weight of the members whose rate still grows,
        ("unfixed", "i4"),  # and their number
        ("stale", "i4"),  # whether `users` to `held` must be summed anew
        ("capacity", "f8"),  # bit/s
        ("repair", "i8"),  # number of the last repair that touched the link
        ("last", "i4"),  # last knot
        ("flows", "i4"),  # number of flows on the link
        ("changed", "i4"),  # whether the link is in the list of changed links
    ],
    align=True,
)
FLOW = np.dtype(
    [
        ("knot", "i4"),  # first knot; of a free record, the next free record
        ("bottleneck", "i4"),  # the knot of the limiting link, CAP or NONE
        ("new_bottleneck", "i4"),
        ("fixed", "i4"),  # while filling: whether the new rate is known
        ("repair", "i8"),  # number of the last repair that the flow was a member of
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
        ("capped", "i8"),  # picoseconds at the cap
        ("place", "i4"),  # position in the heap of instants
        ("phase", "i4"),
    ],
    align=True,
)
KNOT = np.dtype(
    [
        ("flow", "i4"),
        ("link", "i4"),
        ("next", "i4"),  # neighbours on the link
        ("previous", "i4"),
        ("following", "i4"),  # next knot of the flow; of a free record, the next free record
        ("held", "i8"),  # picoseconds for which this link was the flow's bottleneck
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
        ("repair", "i8"),  # number of the present repair
        ("solved", "i8"),  # repairs so far
        ("shared_out", "i8"),  # rates computed by them
    ],
    align=True,
)


class Core(NamedTuple):
    """The state of the solver: links, flows and the knots that tie them together; then working lists."""

    head: Records
    links: Records
    flows: Records
    knots: Records
    agenda: NDArray[np.int32]
    """A heap of flows by (due, tag)."""
    dues: NDArray[np.int64]
    """The instants of the entries of `agenda`."""
    members: NDArray[np.int32]
    """The flows that get new rates in the present repair."""
    touched: NDArray[np.int32]
    """The links that members use."""
    changed: NDArray[np.int32]
    """The links that flows entered or left, or whose capacity changed."""
    keys: NDArray[np.float64]
    """The levels of a heap for filling; `ids` has the entry's link, or the number of links plus its flow."""
    ids: NDArray[np.int32]


def jit(function: F) -> F:
    """Compile a function that releases the GIL; cache it on disk where that is writable."""
    try:
        return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def new_core(bandwidth_bps: NDArray[Any], flows: int = 256, knots: int = 1024) -> Core:
    """Return an idle network of links with these capacities, and room for flows (waiting ones too) and knots."""
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
    """Return the same state with room for more flows, knots and links."""
    had_flows, had_knots = len(core.flows), len(core.knots)
    more_links, more_flows, more_knots = np.zeros(links, LINK), np.zeros(flows, FLOW), np.zeros(knots, KNOT)
    more_links["first"] = more_links["last"] = NONE
    head = core.head.copy()
    # Free records form a chain through `knot` and `following`.
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


# The interface.


@jit
def add(core: Core, tag: int, links: NDArray[Any], bits: int, weight: float, cap: float, start: int) -> int:
    """Let `bits` drain through `links` from `start` on, at most at `cap` bit/s; return the flow's slot, NONE if full.

    A flow without bits or without links ends at `start`.
    """
    head, knots = core.head[0], core.knots
    slot = head.free_flow
    spare = head.free_knot
    for _ in range(len(links)):
        if spare == NONE:
            return NONE
        spare = knots[spare].following
    if slot == NONE:
        return NONE
    flow = core.flows[slot]
    head.free_flow = flow.knot
    flow.tag, flow.bits, flow.remaining = tag, bits, bits
    flow.rate, flow.level, flow.weight, flow.cap = 0.0, 0.0, weight, cap
    flow.updated, flow.due, flow.capped = start, start, 0
    flow.knot, flow.bottleneck, flow.phase, flow.place = NONE, NONE, WAITING, NONE
    flow.repair = 0
    for position in range(len(links) - 1, -1, -1):
        index = head.free_knot
        knot = knots[index]
        head.free_knot = knot.following
        knot.flow, knot.link, knot.held = slot, links[position], 0
        knot.following = flow.knot
        flow.knot = index
    _schedule(core, slot, start)
    return int(slot)


@jit
def free(core: Core, slot: int) -> None:
    """Give back the room of a flow that ended."""
    head, flow, knots = core.head[0], core.flows[slot], core.knots
    index = flow.knot
    while index != NONE:
        following = knots[index].following
        knots[index].following = head.free_knot
        head.free_knot = index
        index = following
    flow.knot = head.free_flow
    head.free_flow = slot


@jit
def take(core: Core, slot: int, held: NDArray[np.int64]) -> int:
    """Free a flow that ended, and return the picoseconds for which the flow's own cap limited its rate.

    Write into `held` the picoseconds for which each link of the route limited the rate.
    """
    index, position = core.flows[slot].knot, 0
    while index != NONE:
        held[position] = core.knots[index].held
        position += 1
        index = core.knots[index].following
    free(core, slot)
    return int(core.flows[slot].capped)


@jit
def next_instant(core: Core) -> int:
    """Return the instant at which a flow begins to drain or ends next, NEVER if none does."""
    return int(core.dues[0]) if core.head[0].scheduled else NEVER


@jit
def settle(core: Core, now: int, done: NDArray[np.int32]) -> int:
    """Let flows begin and end that are due by `now`, then share links once. Return how many ended; they are in `done`.

    Call this function at every :func:`next_instant`, and after changes of capacities and caps.
    """
    head, links, flows, knots = core.head[0], core.links, core.flows, core.knots
    over = 0
    entering = 0  # these flows are put at the end of `done`, which has room for all flows
    while head.scheduled and core.dues[0] <= now:
        slot = core.agenda[0]
        _unschedule(core, slot)
        flow = flows[slot]
        if flow.phase == WAITING and flow.bits > 0 and flow.knot != NONE:
            flow.phase, flow.updated = DRAINING, now
            _tie(core, slot)
            entering += 1
            done[len(done) - entering] = slot
            continue
        if flow.phase == DRAINING:
            _progress(core, slot, now)
            _untie(core, slot)
        flow.phase = OVER
        done[over] = slot
        over += 1
    head.repair += 1
    head.members = head.touched = 0
    for position in range(entering):
        slot = done[len(done) - 1 - position]
        if _is_alone(core, slot):
            _alone(core, slot, now)
        else:
            _join(core, slot)
            index = flows[slot].knot
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
    """Do as :func:`settle`, and free the flows that end. Return the length of the report, and the next instant.

    The next instant is NONE if there is none, and NEVER if it lies beyond the horizon.

    The report has, for each flow that ended: the flow, for how many picoseconds its own cap limited it, and for how
    many each link of its route did. Its size must be two for each flow that there is room for, and one for each knot.
    """
    size = 0
    for position in range(settle(core, now, done)):
        slot, index, links = done[position], core.flows[done[position]].knot, 0
        while index != NONE:
            links, index = links + 1, core.knots[index].following
        report[size], report[size + 1] = slot, take(core, slot, report[size + 2 :])
        size += 2 + links
    return size, int(core.dues[0]) if core.head[0].scheduled else NONE


@jit
def set_capacity(core: Core, link: int, capacity: float) -> None:
    """Give a link another capacity, in bit/s, from the next :func:`settle` on."""
    core.links[link].capacity = capacity
    # Any flow on the link may be too fast now, so all of them get new rates.
    index = core.links[link].first
    while index != NONE:
        core.flows[core.knots[index].flow].repair = _UNSETTLED
        index = core.knots[index].next
    _mark(core, link)


@jit
def set_cap(core: Core, slot: int, cap: float) -> None:
    """Limit a flow to `cap` bit/s from the next :func:`settle` on."""
    flow = core.flows[slot]
    flow.cap = cap
    if flow.phase == DRAINING:
        flow.repair = _UNSETTLED
        _mark(core, core.knots[flow.knot].link)


# Flows and the links that they use.

_UNSETTLED: Final = -1
"""The `repair` of a flow that must get a new rate in the next repair."""


@jit
def _tie(core: Core, slot: int) -> None:
    """Append a flow to the list of flows of each of its links."""
    links, knots = core.links, core.knots
    index = core.flows[slot].knot
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
def _untie(core: Core, slot: int) -> None:
    """Take a flow off its links, and mark the links that other flows use."""
    links, knots = core.links, core.knots
    index = core.flows[slot].knot
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
    """Put a link in the list of changed links."""
    if not core.links[link].changed:
        core.links[link].changed = 1
        core.changed[core.head[0].changes] = link
        core.head[0].changes += 1


@jit
def _is_alone(core: Core, slot: int) -> bool:
    """Return whether no other flow uses any of a flow's links."""
    index = core.flows[slot].knot
    while index != NONE:
        if core.links[core.knots[index].link].flows > 1:
            return False
        index = core.knots[index].following
    return True


@jit
def _alone(core: Core, slot: int, now: int) -> None:
    """Give a flow alone on its links its rate: the least capacity of its links, or its cap."""
    flow, knots = core.flows[slot], core.knots
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
    _set_rate(core, slot, rate, narrowest, now)


@jit
def _progress(core: Core, slot: int, now: int) -> None:
    """Subtract the bits that drained at the present rate since the last change."""
    flow = core.flows[slot]
    elapsed = now - flow.updated
    if elapsed > 0 and flow.bottleneck != NONE:
        flow.remaining = max(0.0, flow.remaining - flow.rate * elapsed / SECOND)
        if flow.bottleneck == CAP:
            flow.capped += elapsed
        else:
            core.knots[flow.bottleneck].held += elapsed
    flow.updated = now


@jit
def _set_rate(core: Core, slot: int, rate: float, bottleneck: int, now: int) -> None:
    """Give a flow a rate and a bottleneck from `now` on, and schedule its end."""
    flow = core.flows[slot]
    if rate != flow.rate or bottleneck != flow.bottleneck:
        _progress(core, slot, now)
        same = rate == flow.rate
        flow.rate, flow.bottleneck = rate, bottleneck
        if same and flow.place != NONE:
            return
        if rate == 0.0:
            if flow.place != NONE:
                _unschedule(core, slot)
        elif flow.place == NONE:
            _schedule(core, slot, now + _time_left(flow))
        else:
            flow.due = min(now + _time_left(flow), NEVER)
            _move(core, slot, flow.place)


@jit
def _time_left(flow: Any) -> int:
    """Return the picoseconds until a flow ends at its present rate, NEVER if beyond the horizon."""
    if flow.remaining == flow.bits and flow.rate <= LARGEST_RATE and flow.rate == math.floor(flow.rate):
        # The usual case, a flow at one rate from its start: integers keep the time exact at any size. Long division
        # of bits times 10¹² by the rate, a thousand at a time, which stays within 64 bits; then rounded.
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
def _before(core: Core, due: int, slot: int, place: int) -> bool:
    """Return whether a flow with the instant `due` comes before the flow at a place of the heap."""
    if due != core.dues[place]:
        return bool(due < core.dues[place])
    return bool(core.flows[slot].tag < core.flows[core.agenda[place]].tag)


@jit
def _schedule(core: Core, slot: int, due: int) -> None:
    """Put a flow on the agenda."""
    core.flows[slot].due = min(due, NEVER)
    core.head[0].scheduled += 1
    _rise(core, slot, core.head[0].scheduled - 1)


@jit
def _unschedule(core: Core, slot: int) -> None:
    """Take a flow off the agenda."""
    head = core.head[0]
    place = core.flows[slot].place
    core.flows[slot].place = NONE
    head.scheduled -= 1
    last = core.agenda[head.scheduled]
    if last != slot:
        _move(core, last, place)


@jit
def _move(core: Core, slot: int, place: int) -> None:
    """Restore the order of the heap for a flow that is put at a place or has another instant."""
    if place and _before(core, core.flows[slot].due, slot, (place - 1) // 2):
        _rise(core, slot, place)
    else:
        _sink(core, slot, place)


@jit
def _put(core: Core, slot: int, due: int, place: int) -> None:
    """Put a flow at a place of the heap."""
    core.agenda[place], core.dues[place] = slot, due
    core.flows[slot].place = place


@jit
def _rise(core: Core, slot: int, place: int) -> None:
    """Move a flow from a place of the heap towards the top until the flow above is due before it."""
    due = core.flows[slot].due
    while place:
        above = (place - 1) // 2
        if not _before(core, due, slot, above):
            break
        _put(core, core.agenda[above], core.dues[above], place)
        place = above
    _put(core, slot, due, place)


@jit
def _sink(core: Core, slot: int, place: int) -> None:
    """Move a flow from a place of the heap downwards until all flows below are due after it."""
    due, count = core.flows[slot].due, core.head[0].scheduled
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and _before(core, core.dues[child + 1], core.agenda[child + 1], child):
            child += 1
        if _before(core, due, slot, child):
            break
        _put(core, core.agenda[child], core.dues[child], place)
        place = child
    _put(core, slot, due, place)


# Sharing.


@jit
def _join(core: Core, slot: int) -> None:
    """Make a flow a member of the present repair, and mark the sums of its links as stale."""
    head, flow, links, knots = core.head[0], core.flows[slot], core.links, core.knots
    if flow.repair == head.repair:
        return
    flow.repair = head.repair
    core.members[head.members] = slot
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
def _join_held(core: Core, slot: int) -> None:
    """Make members of a link's flows that have their bottleneck there, and of its unsettled flows."""
    index = core.links[slot].first
    while index != NONE:
        knot = core.knots[index]
        flow = core.flows[knot.flow]
        if flow.bottleneck == index or flow.repair == _UNSETTLED:
            _join(core, knot.flow)
        index = knot.next


@jit
def _repair(core: Core, now: int) -> None:
    """Compute the members' rates; add the flows whose bottleneck no longer holds, and repeat until there are none."""
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
        _check_bottlenecks(core, before)
        if head.members == before:
            break
    head.shared_out += head.members
    for position in range(head.members):
        slot = core.members[position]
        _set_rate(core, slot, flows[slot].new_rate, flows[slot].new_bottleneck, now)


@jit
def _sum_up(core: Core, slot: int) -> None:
    """Sum the weights of the members on a link, and the rates of the link's other flows."""
    link, flows, knots, repair = core.links[slot], core.flows, core.knots, core.head[0].repair
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
    """Progressive filling of the links' remaining capacity: the link of the lowest level is full first."""
    head, links, flows, knots = core.head[0], core.links, core.flows, core.knots
    first_flow = len(links)
    _gather_limits(core)
    unfixed = head.members
    while unfixed:
        key, slot = core.keys[0], core.ids[0]
        if slot >= first_flow:
            _pop(core)
            flow = flows[slot - first_flow]
            if not flow.fixed:
                rate = flow.cap if flow.new_bottleneck == CAP else links[knots[flow.new_bottleneck].link].spare
                _fix(core, slot - first_flow, rate, key, flow.new_bottleneck)
                unfixed -= 1
            continue
        link = links[slot]
        if not link.unfixed:
            _pop(core)
            continue
        level = link.spare / link.growing
        if level > key:  # members were fixed below its level since, so the link is full at a higher level
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
    """Make a heap of the levels at which links with several members are full, and at which members are limited alone.

    A member is limited alone by its cap, or by the least spare capacity of the links on which it is the only member.
    """
    head, links, flows, knots = core.head[0], core.links, core.flows, core.knots
    head.filling = 0
    for position in range(head.touched):
        slot = core.touched[position]
        link = links[slot]
        link.spare, link.growing, link.unfixed = max(0.0, link.capacity - link.kept), link.weight, link.users
        if link.users > 1:
            core.keys[head.filling], core.ids[head.filling] = link.spare / link.growing, slot
            head.filling += 1
    for position in range(head.members):
        slot = core.members[position]
        flow = flows[slot]
        least, bottleneck = flow.cap, CAP
        index = flow.knot
        while index != NONE:
            link = links[knots[index].link]
            if link.users == 1 and (link.spare < least or (link.spare == least and bottleneck == CAP)):
                least, bottleneck = link.spare, index
            index = knots[index].following
        flow.fixed, flow.new_bottleneck = 0, bottleneck
        if least < math.inf:
            core.keys[head.filling], core.ids[head.filling] = least / flow.weight, len(links) + slot
            head.filling += 1
    for place in range(head.filling // 2 - 1, -1, -1):
        _sink_limit(core, place)


@jit
def _fix(core: Core, slot: int, rate: float, level: float, bottleneck: int) -> None:
    """Fix the new rate of a member, and take it off its links' spare capacity."""
    links, knots, flow = core.links, core.knots, core.flows[slot]
    flow.new_rate, flow.level, flow.new_bottleneck, flow.fixed = rate, level, bottleneck, 1
    index = flow.knot
    while index != NONE:
        link = links[knots[index].link]
        link.spare = max(0.0, link.spare - rate)
        link.growing -= flow.weight
        link.unfixed -= 1
        index = knots[index].following


@jit
def _check_bottlenecks(core: Core, count: int) -> None:
    """Make members of all flows whose bottleneck no longer holds, given the new rates of the first `count` members."""
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
        # The flows that the link limits could go faster if it is no longer full.
        if link.held >= 0.0 and not link.stale and link.spare > TOLERANCE * link.capacity:
            _join_held(core, core.touched[position])


@jit
def _join_above(core: Core, slot: int, level: float) -> None:
    """Make members of the flows on a link that are above a level."""
    index = core.links[slot].first
    while index != NONE:
        flow = core.knots[index].flow
        if core.flows[flow].repair != core.head[0].repair and core.flows[flow].level > level:
            _join(core, flow)
        index = core.knots[index].next


# The heap of levels that filling uses.


@jit
def _pop(core: Core) -> None:
    """Remove the top entry."""
    head = core.head[0]
    head.filling -= 1
    core.keys[0], core.ids[0] = core.keys[head.filling], core.ids[head.filling]
    _sink_limit(core, 0)


@jit
def _sink_limit(core: Core, place: int) -> None:
    """Move an entry downwards until all entries below have higher levels."""
    keys, ids, count = core.keys, core.ids, core.head[0].filling
    key, slot = keys[place], ids[place]
    while 2 * place + 1 < count:
        child = 2 * place + 1
        right = child + 1
        if right < count and (keys[right] < keys[child] or (keys[right] == keys[child] and ids[right] < ids[child])):
            child = right
        if not (keys[child] < key or (keys[child] == key and ids[child] < slot)):
            break
        keys[place], ids[place] = keys[child], ids[child]
        place = child
    keys[place], ids[place] = key, slot
