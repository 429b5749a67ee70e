"""The compiled flow engine, driven by itself, against progressive filling in exact fractions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import progressive
from tests.progressive import SECOND, Wanted

compiled = pytest.importorskip("netsim.network.compiled", reason="numba is not installed")


def drive(capacity: list[int], flows: list[Wanted], look: Any = None) -> list[int]:
    """Run all flows through an engine; return when each was over. `look` is called with it after each instant."""
    core = compiled.new_core(np.array(capacity), len(flows), sum(len(flow.links) for flow in flows) + 1)
    done = np.zeros(len(core.flows), np.int32)
    ends = [-1] * len(flows)
    for tag, flow in enumerate(flows):
        cap = math.inf if flow.cap is None else float(flow.cap)
        links = np.array(flow.links, np.int64)
        assert compiled.add(core, tag, links, flow.bits, float(flow.weight), cap, flow.at) != compiled.NONE
    while (now := compiled.next_instant(core)) != compiled.NEVER:
        for number in done[: compiled.settle(core, now, done)].tolist():
            ends[core.flows[number]["tag"]] = now
            compiled.free(core, number)
        if look is not None:
            look(core)
    return ends


def check_shares(core: Any) -> None:
    """No link above its capacity, no flow at rest, each at its cap or of the top level on a full link."""
    draining = [flow for flow in core.flows if flow["phase"] == compiled.DRAINING]
    used = np.zeros(len(core.links))
    levels = np.zeros(len(core.links))
    links = {}
    for flow in draining:
        knot, route = flow["knot"], []
        while knot != compiled.NONE:
            route.append(core.knots[knot]["link"])
            knot = core.knots[knot]["following"]
        links[int(flow["tag"])] = route
        used[route] += flow["rate"]
        levels[route] = np.maximum(levels[route], flow["rate"] / flow["weight"])
    assert (used <= core.links["capacity"] * (1 + 1e-9)).all(), "a link carries more than it can"
    for flow in draining:
        assert flow["rate"] > 0, "a flow starves"
        assert flow["rate"] <= flow["cap"] * (1 + 1e-9)
        top = flow["rate"] / flow["weight"] * (1 + 1e-9)
        full = [n for n in links[int(flow["tag"])] if used[n] >= core.links["capacity"][n] * (1 - 1e-9)]
        assert flow["rate"] >= flow["cap"] * (1 - 1e-9) or any(levels[n] <= top for n in full), "not max-min fair"


@settings(max_examples=300, deadline=None)
@given(progressive.traffics())
def test_flows_end_when_the_reference_says(traffic: tuple[list[int], list[Wanted]]) -> None:
    capacity, flows = traffic
    expected = [float(end) for end in progressive.finish(flows, capacity)]
    np.testing.assert_allclose(drive(capacity, flows, check_shares), expected, rtol=1e-9, atol=len(flows))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 80), st.sampled_from([1, 4, 12]))
@pytest.mark.slow
def test_repairs_leave_every_share_fair_on_racks(seed: int, hosts: int, rack: int) -> None:
    random = np.random.default_rng(seed)
    racks = -(-hosts // rack)
    capacity = [10**9] * (2 * hosts) + [int(rack * 10**9 // random.integers(1, 5))] * (2 * racks)
    flows = []
    for _ in range(2 * hosts):
        src, dst = (int(n) for n in random.integers(0, hosts, 2))
        between = (2 * hosts + src // rack, 2 * hosts + racks + dst // rack) if src // rack != dst // rack else ()
        bits = 8 * int(random.lognormal(12, 2)) + 8
        flows.append(Wanted((src, *between, hosts + dst), bits, int(random.integers(0, SECOND // 100))))
    ends = drive(capacity, flows, check_shares)
    assert all(end > flow.at for end, flow in zip(ends, flows, strict=True))


def test_a_flow_alone_takes_exactly_its_bits_over_the_bandwidth() -> None:
    for bits, rate in [(8 * (10**12 + 1), 3 * 10**9), (8 * 7, 7 * 10**11), (8, 6 * 10**15), (8 * 10**5, 10**9)]:
        (end,) = drive([rate], [Wanted((0,), bits, 5)])
        assert end == 5 + (2 * bits * SECOND // rate + 1) // 2


def test_of_one_instant_flows_end_in_the_order_of_their_tags() -> None:
    core = compiled.new_core(np.array([10**6] * 50), 50, 50)
    done = np.zeros(50, np.int32)
    tags = np.random.default_rng(0).permutation(50).tolist()
    for tag in tags:
        compiled.add(core, tag, np.array([tag]), 8000, 1.0, math.inf, 0)
    assert compiled.settle(core, 0, done) == 0
    over = done[: compiled.settle(core, compiled.next_instant(core), done)]
    assert core.flows["tag"][over].tolist() == sorted(tags)


def test_where_there_is_no_room_it_says_so_and_grows() -> None:
    core = compiled.new_core(np.array([10**6]), 1, 1)
    one = np.array([0])
    assert compiled.add(core, 0, one, 8, 1.0, math.inf, 0) != compiled.NONE
    assert compiled.add(core, 1, one, 8, 1.0, math.inf, 0) == compiled.NONE
    core = compiled.grow(core, 3, 1)
    second = compiled.add(core, 1, one, 8, 1.0, math.inf, 0)
    assert second != compiled.NONE
    assert compiled.add(core, 2, one, 8, 1.0, math.inf, 0) == compiled.NONE  # a flow, but no knot
    done = np.zeros(len(core.flows), np.int32)
    while (now := compiled.next_instant(core)) != compiled.NEVER:
        for number in done[: compiled.settle(core, now, done)].tolist():
            compiled.free(core, number)
    assert compiled.add(core, 3, one, 8, 1.0, math.inf, 0) != compiled.NONE


def test_capacities_and_caps_change_while_flows_drain() -> None:
    core = compiled.new_core(np.array([10**6, 10**6]), 4, 8)
    done = np.zeros(4, np.int32)
    shared = compiled.add(core, 0, np.array([0, 1]), 2 * 10**6, 1.0, math.inf, 0)
    other = compiled.add(core, 1, np.array([1]), 2 * 10**6, 1.0, math.inf, 0)
    compiled.settle(core, 0, done)
    assert core.flows["rate"][[shared, other]].tolist() == [5e5, 5e5]
    compiled.set_capacity(core, 0, 10**5)
    compiled.settle(core, SECOND, done)
    assert core.flows["rate"][[shared, other]].tolist() == [1e5, 9e5]
    compiled.set_capacity(core, 1, 0.0)
    compiled.settle(core, SECOND, done)
    assert core.flows["rate"][[shared, other]].tolist() == [0.0, 0.0]
    assert compiled.next_instant(core) == compiled.NEVER
    compiled.set_capacity(core, 1, 10**6)
    compiled.set_cap(core, other, 3e5)
    compiled.settle(core, 2 * SECOND, done)
    assert core.flows["rate"][[shared, other]].tolist() == [1e5, 3e5]
    compiled.set_capacity(core, 0, 10**6)
    compiled.set_cap(core, other, math.inf)
    compiled.settle(core, 2 * SECOND, done)
    assert core.flows["rate"][[shared, other]].tolist() == [5e5, 5e5]
    # 1.5 Mbit of each are left at 2 s: what drained before is 0.5 Mbit in the first second.
    assert compiled.next_instant(core) == 5 * SECOND
    assert compiled.settle(core, 5 * SECOND, done) == 2
