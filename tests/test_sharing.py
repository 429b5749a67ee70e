"""Weights, caps and links that change: times from arithmetic on paper."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import simpy

from netsim._util.errors import InfeasibleError, UsageError
from netsim.network.fabric import Link, Route
from netsim.network.flows import CAP, Flow, Network, Solver

PS = 10**12
MB = 10**6 // 8
"""Bytes that a link of 1 Mbit/s carries in a second."""


class Bench:
    """A network, the instants at which flows end in seconds, and something to happen at a time."""

    solver: Solver = "python"

    def __init__(self, **options: object) -> None:
        self.environment = simpy.Environment(initial_time=0)
        self.network = Network(self.environment, solver=self.solver, **options)  # type: ignore[arg-type]
        self.flows: list[Flow] = []
        self.ended: dict[int, float] = {}

    def start(self, links: tuple[Link, ...], size: int, latency_s: float = 0.0, **options: float) -> Flow:
        number = len(self.flows)

        def done(_: Flow) -> None:
            self.ended[number] = self.environment.now / PS

        flow = self.network.start(Route(links, round(latency_s * PS)), size, done, **options)
        self.flows.append(flow)
        return flow

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        self.environment.timeout(round(seconds * PS)).callbacks.append(lambda _: action())


@pytest.fixture(autouse=True, params=["python", "compiled"])
def _solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "compiled":
        pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setattr(Bench, "solver", request.param)


def link(index: int = 0, bandwidth: int = 10**6) -> Link:
    return Link(index, f"a{index}", f"b{index}", bandwidth, 0.0)


def test_weighted_flows_share_in_proportion() -> None:
    bench, shared = Bench(), link()
    bench.start((shared,), 3 * MB, weight=3.0)
    bench.start((shared,), 3 * MB, weight=1.0)
    bench.environment.run()
    assert bench.ended == pytest.approx({0: 4.0, 1: 6.0}, rel=1e-12)


def test_round_trip_sharing_weighs_by_one_over_the_latency() -> None:
    bench, shared = Bench(sharing="rtt"), link()
    bench.start((shared,), 2 * MB, latency_s=0.1)
    bench.start((shared,), 2 * MB, latency_s=0.1)
    bench.environment.run()
    assert bench.ended == pytest.approx({0: 4.1, 1: 4.1})  # equal latencies: equal shares
    bench = Bench(sharing="rtt")
    bench.start((shared,), 3 * MB, latency_s=0.1)
    bench.start((shared,), 3 * MB, latency_s=0.3)
    bench.environment.run()
    # Alone for 0.2 s the first has 2.8 left; it then has 3/4 of the link, and ends at 0.3 + 2.8 / 0.75.
    assert bench.ended == pytest.approx({0: 0.3 + 2.8 / 0.75, 1: 6.1})


def test_round_trip_sharing_needs_a_latency() -> None:
    with pytest.raises(UsageError, match="a0→b0, which has no latency"):
        Bench(sharing="rtt").start((link(),), 1)


def test_a_flow_never_exceeds_its_cap_and_leaves_the_rest_to_others() -> None:
    bench, shared = Bench(), link()
    capped = bench.start((shared,), MB, cap_bps=2.5e5)
    bench.start((shared,), 3 * MB)
    bench.environment.run()
    assert bench.ended == pytest.approx({0: 4.0, 1: 4.0})
    assert capped.bottlenecks == [(CAP, 4 * PS)]


def test_a_cap_can_be_lifted() -> None:
    bench = Bench()
    flow = bench.start((link(),), 2 * MB, cap_bps=5e5)
    bench.at(2.0, lambda: bench.network.set_cap(flow, None))
    bench.environment.run()
    assert bench.ended == pytest.approx({0: 3.0})


def test_a_link_that_changes_its_bandwidth_changes_its_flows() -> None:
    bench, shared = Bench(), link()
    bench.start((shared,), 4 * MB)
    bench.at(1.0, lambda: bench.network.set_bandwidth(shared, 0.5e6))
    bench.at(3.0, lambda: bench.network.set_bandwidth(shared, 2e6))
    bench.environment.run()
    assert bench.ended == pytest.approx({0: 4.0})


def test_flows_of_a_link_that_is_down_stand_still_and_others_take_their_share() -> None:
    bench, shared, other = Bench(), link(0), link(1)
    bench.start((shared, other), 2 * MB)
    bench.start((shared,), 2 * MB)
    bench.at(1.0, lambda: bench.network.set_bandwidth(other, 0.0))
    bench.at(5.0, lambda: bench.network.set_bandwidth(other, 1e6))
    bench.environment.run()
    # Half each for a second; then the second flow has the link alone and ends 1.5 s later.
    assert bench.ended == pytest.approx({0: 6.5, 1: 2.5})


def test_a_flow_on_a_link_that_stays_down_never_ends() -> None:
    bench, shared = Bench(), link()
    bench.network.set_bandwidth(shared, 0.0)
    bench.start((shared,), MB)
    bench.environment.run()
    assert bench.ended == {}


def test_a_time_that_cannot_be_counted_is_an_error_unless_a_link_gets_faster_before() -> None:
    """Two messages of 10⁶ bytes on a link of 1 bit/s take 185 days, and instants are told apart for 53."""
    bench, slow = Bench(), link(bandwidth=1)
    bench.start((slow,), 10**6)
    bench.start((slow,), 10**6)
    bench.at(100.0, lambda: bench.network.set_bandwidth(slow, 10**6))
    bench.environment.run()
    assert bench.ended == pytest.approx({0: 116.0 - 1e-4, 1: 116.0 - 1e-4})
    bench = Bench()
    bench.start((slow,), 10**6)
    bench.start((slow,), 10**6)
    with pytest.raises(InfeasibleError, match="53 days"):
        bench.environment.run()
