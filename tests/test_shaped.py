"""Links that are shaped: shared max-min, and let through at once what the kernel's buckets do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.network.fabric import Link, Route
from netsim.network.filling import max_min
from netsim.testbed.shaped_links import PacketStream, ShapedNetwork

RATE = 100_000_000
FRAME = 1514


def kernels_queue(frames: int, gso_segments: int, burst: int) -> float:
    """Return when the last of `frames` leaves a token bucket: groups go, whole, as soon as tokens are not negative."""
    now, tokens = 0.0, float(burst)
    for first in range(0, frames, gso_segments):
        now += max(0.0, -tokens) * 8 / RATE
        tokens = max(0.0, tokens) - FRAME * min(gso_segments, frames - first)
    return now


@given(st.integers(1, 60), st.sampled_from([1, 2, 3, 4, 8]))
@settings(deadline=None)
def test_a_message_leaves_in_groups_as_from_a_token_bucket(frames: int, gso_segments: int) -> None:
    wire = Wire(header_bytes=66, ack_bytes=0, burst_bytes=4096, gso_segments=gso_segments)
    environment = simpy.Environment()
    network = ShapedNetwork(environment, wire)
    link, back = Link(0, "a", "b", RATE, 0.0), Link(1, "b", "a", RATE, 0.0)
    ends: list[float] = []
    network.start(
        Route((link,), 0), Route((back,), 0), frames * FRAME, lambda _: ends.append(environment.now / PICOSECONDS)
    )
    environment.run()
    assert ends[0] == pytest.approx(kernels_queue(frames, gso_segments, 4096), abs=1e-11)


def htb(frames: list[int], gso_segments: int, burst: int, sure: float) -> list[float]:
    """Return when the last of each message leaves one link, as sch_htb of Linux has it: a class a message, one above.

    A class with tokens sends at its own expense and that of the one above; else, if the one above has tokens, at its
    expense alone. Classes take turns.
    """
    left, own, above = list(frames), [float(burst)] * len(frames), float(burst)
    now, turn, ends = 0.0, 0, [0.0] * len(frames)
    while any(left):
        waiting = [(turn + place) % len(frames) for place in range(len(frames))]
        waiting = [number for number in waiting if left[number]]
        rich = [number for number in waiting if own[number] >= 0]
        if not rich and above < 0:  # until somebody has tokens
            wait = min([-above * 8 / RATE, *(-own[number] * 8 / (sure * RATE) for number in waiting)]) + 1e-12
            now += wait
            above = min(burst, above + wait * RATE / 8)
            own = [min(burst, tokens + wait * sure * RATE / 8) for tokens in own]
            continue
        number = (rich or waiting)[0]
        group = min(gso_segments, left[number])
        left[number] -= group
        above -= group * FRAME
        if rich:
            own[number] -= group * FRAME
        ends[number], turn = now, number + 1
    return ends


@given(st.integers(1, 8), st.integers(20, 80), st.sampled_from([1, 2, 4]), st.sampled_from([1e-4, 0.1]))
@settings(deadline=None)
def test_messages_that_share_a_link_end_one_after_the_other_as_from_the_kernels_classes(
    messages: int, frames: int, gso_segments: int, sure: float
) -> None:
    wire = Wire(header_bytes=66, ack_bytes=0, burst_bytes=4096, gso_segments=gso_segments, guaranteed_rate=sure)
    environment = simpy.Environment()
    network = ShapedNetwork(environment, wire)
    uplink, back = Link(0, "a", "b", RATE, 0.0), Link(1, "b", "a", RATE, 0.0)
    ends: list[float] = []
    for number in range(messages):  # of one host to others
        route = Route((uplink, Link(2 + number, "b", f"c{number}", RATE, 0.0)), 0)
        network.start(route, Route((back,), 0), frames * FRAME, lambda _: ends.append(environment.now / PICOSECONDS))
    environment.run()
    group = 8 * gso_segments * FRAME / RATE
    expected = sorted(htb([frames] * messages, gso_segments, 4096, sure))
    # What they are sure of lets the last groups go earlier, at their own expense; that much the model does not know.
    assert ends[-1] == pytest.approx(expected[-1], abs=(0.02 if sure < 0.1 else messages) * group)
    # Nor, of those before, whose turn it is.
    assert ends == pytest.approx(expected, abs=messages * group)


@given(st.integers(1, 8), st.sampled_from([1, 4, 8]), st.data())
@settings(deadline=None)
def test_single_groups_of_several_hosts_go_at_once_as_from_the_kernels_classes(
    messages: int, gso_segments: int, data: st.DataObject
) -> None:
    """So a link carries more than its bandwidth for a moment, and owes it."""
    frames = data.draw(st.integers(1, gso_segments))
    wire = Wire(header_bytes=66, ack_bytes=0, burst_bytes=4096, gso_segments=gso_segments, guaranteed_rate=0.1)
    environment = simpy.Environment()
    network = ShapedNetwork(environment, wire)
    downlink, back = Link(0, "b", "a", RATE, 0.0), Link(1, "a", "b", RATE, 0.0)
    ends: list[float] = []

    def send(host: int, frames: int) -> None:
        route = Route((Link(2 + host, f"c{host}", "b", RATE, 0.0), downlink), 0)
        network.start(route, Route((back,), 0), frames * FRAME, lambda _: ends.append(environment.now / PICOSECONDS))

    for host in range(messages):
        send(host, frames)
    environment.run()
    assert ends == htb([frames] * messages, gso_segments, 4096, 0.1) == [0.0] * messages
    send(messages, 40 * gso_segments)
    environment.run()
    assert ends[-1] == pytest.approx(
        htb([frames] * messages + [40 * gso_segments], gso_segments, 4096, 0.1)[-1], rel=0.05
    )


def test_two_hosts_have_a_credit_of_their_own_where_a_link_owes() -> None:
    """A message of 4 kB goes at once though its link owes what another, to somebody else, just left with."""
    wire = Wire(header_bytes=66, ack_bytes=0, burst_bytes=4096, gso_segments=4, guaranteed_rate=0.1)

    def ends(guaranteed_rate: float) -> list[float]:
        environment = simpy.Environment()
        network = ShapedNetwork(environment, replace(wire, guaranteed_rate=guaranteed_rate))
        uplink, back = Link(0, "a", "b", RATE, 0.0), Link(1, "b", "a", RATE, 0.0)
        found: list[float] = []

        def send(number: int, frames: int, then: Any = None) -> None:
            def done(_: PacketStream) -> None:
                found.append(environment.now / PICOSECONDS)
                if then is not None:
                    then()

            route = Route((uplink, Link(2 + number, "b", f"c{number}", RATE, 0.0)), 0)
            network.start(route, Route((back,), 0), frames * FRAME, done)

        send(0, 40, lambda: send(1, 2))
        environment.run()
        return found

    first, second = ends(0.1)
    assert second == first
    first, second = ends(0.0)
    assert second - first == pytest.approx(4 * FRAME * 8 / RATE, rel=1e-6)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.sampled_from([1, 2, 4]))
@settings(deadline=None)
def test_what_a_link_lets_through_early_it_earns_back(messages: list[int], gso_segments: int) -> None:
    """One message after another over one link: never ahead of its bandwidth by more than a bucket and a group."""
    wire = Wire(header_bytes=66, ack_bytes=0, burst_bytes=4096, gso_segments=gso_segments)
    environment = simpy.Environment()
    network = ShapedNetwork(environment, wire)
    link, back = Link(0, "a", "b", RATE, 0.0), Link(1, "b", "a", RATE, 0.0)
    waiting, sent = list(messages), 0

    def go_on(_: Any = None) -> None:
        nonlocal sent
        earned = environment.now / PICOSECONDS * RATE / 8
        assert sent <= earned + 4096 + gso_segments * FRAME + 1e-3
        assert sent >= earned - 1e-3  # nor does a link that has something to send ever rest
        if waiting:
            sent += FRAME * (frames := waiting.pop(0))
            network.start(Route((link,), 0), Route((back,), 0), FRAME * frames, go_on)

    go_on()
    environment.run()
    assert not waiting


@given(st.integers(1, 40_000), st.sampled_from([1, 2, 3, 4]))
def test_what_is_owed_is_the_last_group(nbytes: int, gso_segments: int) -> None:
    wire = Wire(header_bytes=66, gso_segments=gso_segments)
    payload = nbytes + 176  # gloo's header, and ours with its table
    frames = [1514] * (payload // 1448) + ([payload % 1448 + 66] if payload % 1448 else [])
    groups = [frames[first : first + gso_segments] for first in range(0, len(frames), gso_segments)]
    assert wire.bytes_of(nbytes) == sum(frames)
    assert wire.deficit_of(sum(frames)) == sum(groups[-1])


LINKS = [Link(number, f"n{number}", "x", 1000 * (number + 1), 0.0) for number in range(5)]


@given(st.lists(st.lists(st.sampled_from(LINKS), min_size=1, max_size=3, unique=True), min_size=1, max_size=8))
@settings(deadline=None)
def test_every_stream_has_a_full_link_on_which_nobody_is_faster(routes: list[list[Link]]) -> None:
    streams = [PacketStream(tuple(route), (), 1, lambda _: None) for route in routes]
    rates = {stream: rate for stream, (rate, _) in max_min(streams).items()}
    load = {link: sum(rates[stream] for stream in streams if link in stream.links) for link in LINKS}
    assert all(load[link] <= link.bandwidth_bps * (1 + 1e-9) for link in LINKS)
    for stream in streams:
        assert any(
            load[link] >= link.bandwidth_bps * (1 - 1e-9)
            and all(rates[other] <= rates[stream] * (1 + 1e-9) for other in streams if link in other.links)
            for link in stream.links
        )
