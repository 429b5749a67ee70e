"""Calibration: known links and costs are recovered, profiles survive the file and decide what is simulated."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim._util.errors import NetsimError, UsageError
from netsim._util.units import PICOSECONDS
from netsim.comm.payload import SizeOnly, add
from netsim.comm.worker import Compute, Worker
from netsim.distributed.launch import launch_work
from netsim.experiment.configuration import Experiment
from netsim.experiment.profile import (
    Line,
    LinkLine,
    Profile,
    ProfileProvenance,
    Step,
    WorkLine,
    load_profile,
    save_profile,
)
from netsim.simulator.observer import UNOBSERVED
from netsim.simulator.opening import open_session
from netsim.simulator.scheduler import RankScheduler
from netsim.simulator.workers import make_workers
from netsim.testbed.calibrate import TASK, CalibrationPlan, lines_of, profile_of
from netsim.testbed.line_fits import line, link, work
from netsim.testbed.pingpong import SIZES, Trips, ping_pong
from netsim.training.costs import AssumedCosts, Given, Rate, RatedCosts
from tests.cluster import why_no_cluster
from tests.command import run

FIT = {"residual_median": 0.01, "residual_worst": 0.05}


def profile(**changes: Any) -> Profile:
    """Return a profile of round numbers, but for `changes`."""
    values: dict[str, Any] = {
        "format": 1,
        "provenance": ProfileProvenance(
            kind="MEASURED",
            date="2026-11-24T12:00:00Z",
            command='netsim calibrate --out "p.toml"',
            where="loopback",
            backend="gloo",
            ranks=2,
            netsim="0.1.0",
            python="3.11.7",
            torch="2.13.0",
            kernel="Linux 6.1",
            machine='A "quoted" µ-processor \\ 3 GHz',
            cores=2,
            load=0.25,
        ),
        "link": LinkLine(fixed_s=200e-6, each_s=80e-9, nominal_bps=1e8, efficiency=0.95, **FIT),
        "message": Line(fixed_s=10e-6, each_s=0.5e-9, **FIT),
        "work": {"add": WorkLine(fixed_s=1e-6, entry_s=0.0, element_s=0.2e-9, **FIT)},
        "step": Step(workload="digits-mlp", batch_size=16, elements=1_126_410, seconds=7e-3, repeats=5),
    }
    return Profile(**(values | changes))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_profile(profile(), tmp_path / "p.toml")
    return tmp_path / "p.toml"


def trips_over(experiment: Experiment, budget_s: float = 60.0) -> list[Trips]:
    """Return what the ping-pong between the first two of an experiment's simulated workers gives."""
    with open_session(experiment) as lab:
        transport = lab._transport(experiment.fabric(), _standing(), UNOBSERVED)

        async def program(worker: Worker) -> list[Trips]:
            return await ping_pong(worker, lambda: transport.now / PICOSECONDS, lambda: 0.0, budget_s)

        workers = make_workers(experiment.algorithm("dense", (1,)), experiment.workers, False)
        tasks = RankScheduler[list[Trips]](transport).run(workers, program)
        assert tasks[0].result is not None
        return tasks[0].result


def _standing() -> Any:
    from netsim.simulator.checkpoint import CheckpointState

    return CheckpointState()


@settings(max_examples=10)
@given(latency=st.floats(1e-6, 5e-3), bandwidth=st.floats(1e6, 1e11), workers=st.integers(2, 3))
def test_the_terms_of_a_simulated_link_are_recovered(latency: float, bandwidth: float, workers: int) -> None:
    """The oracle is the link that was put in: a message alone takes α + β bytes, to a picosecond."""
    experiment = Experiment(workers=workers, latency_s=latency, bandwidth_bps=round(bandwidth), timing_only=True)
    link, message = lines_of(trips_over(experiment))
    assert link.fixed_s == pytest.approx(latency, rel=1e-4, abs=1e-11)
    assert link.each_s == pytest.approx(8 / round(bandwidth), rel=1e-4, abs=1e-17)
    assert link.residual_worst < 1e-4
    assert message.fixed_s == message.each_s == 0


def test_what_a_profile_says_is_what_a_simulated_message_takes(saved: Path) -> None:
    """The law of a round trip: measuring the network that a profile describes gives the profile's numbers again."""
    experiment = Experiment.of(workers=2, timing_only=True, elements=1, k=1, profile=str(saved))
    link, _ = lines_of(trips_over(experiment))
    assert link.fixed_s == pytest.approx(200e-6 + 2 * 10e-6, rel=1e-4)
    assert link.each_s == pytest.approx(80e-9 + 2 * 0.5e-9, rel=1e-4)


def test_what_would_take_longer_than_there_is_time_for_is_left_out() -> None:
    slow = Experiment(workers=2, latency_s=1e-3, bandwidth_bps=10**6, timing_only=True)
    trips = trips_over(slow, budget_s=10.0)
    assert 3 <= len(trips) < len(SIZES)
    assert sum(2 * sum(each.one_way_s) for each in trips) < 10.0


@given(
    fixed=st.floats(1e-5, 1e-3),
    each=st.floats(1e-8, 1e-6),
    free=st.sampled_from([0, 1500, 4096, 30_000]),
)
@pytest.mark.slow
def test_what_an_idle_link_lets_through_at_once_is_told_from_its_alpha(fixed: float, each: float, free: int) -> None:
    found = link(SIZES, [[fixed + each * max(0, size - free)] * 3 for size in SIZES])
    assert found.each_s == pytest.approx(each, rel=0.01)
    assert found.fixed_s == pytest.approx(fixed, rel=0.03)
    # Where a burst is shorter than α, it is not to be seen, and does not matter.
    assert found.free_bytes * each == pytest.approx(free * each, abs=0.03 * (fixed + free * each))


def test_messages_that_make_no_line_are_an_error_and_not_a_profile() -> None:
    with pytest.raises(NetsimError, match=r"4 to 4194304 bytes make no line.*busy"):
        link(SIZES, [[0.005] * 5 for _ in SIZES])


costs = st.floats(1e-9, 1.0)


@given(fixed=costs, each=st.floats(1e-12, 1e-6), outlier=st.integers(0, len(SIZES) - 1))
def test_a_line_is_recovered_though_one_size_is_ten_times_off(fixed: float, each: float, outlier: int) -> None:
    factors = [10.0 if number == outlier else 1.0 for number in range(len(SIZES))]
    found = line(SIZES, [[(fixed + each * size) * factor] * 3 for size, factor in zip(SIZES, factors, strict=True)])
    assert found.residual_median < 0.02
    misses = [abs((found.fixed_s + found.each_s * size) / (fixed + each * size) - 1) for size in SIZES]
    assert sorted(misses)[len(SIZES) // 2] < 0.02


@given(fixed=st.floats(1e-6, 1e-3), entry=st.floats(1e-10, 1e-7), element=st.floats(1e-11, 1e-8))
def test_what_an_entry_and_an_element_cost_is_told_apart(fixed: float, entry: float, element: float) -> None:
    given_ = [(int(d * density), d) for d in (10_000, 100_000, 1_000_000) for density in (0.001, 0.01)]
    found = work({(k, d): fixed + entry * k + element * d for k, d in given_})
    for k, d in [(5_000, 100_000), (100, 1_000_000)]:
        predicted = found.fixed_s + found.entry_s * k + found.element_s * d
        assert predicted == pytest.approx(fixed + entry * k + element * d, rel=1e-3)


def test_a_profile_comes_back_from_its_file(saved: Path) -> None:
    assert load_profile(saved) == profile()
    samples = [[0.0010001, 0.00102], [0.02, 0.03]]
    measured = profile(message=line([4, 4096], samples), step=None)
    save_profile(measured, saved)
    assert load_profile(saved) == measured


@given(name=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60))
def test_any_text_of_a_profile_comes_back(name: str) -> None:
    odd = profile()
    odd = odd.model_copy(update={"provenance": odd.provenance.model_copy(update={"machine": name, "command": name})})
    with tempfile.TemporaryDirectory() as folder:
        save_profile(odd, Path(folder) / "p.toml")
        assert load_profile(Path(folder) / "p.toml") == odd


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("each_s = 8e-08", "each_s = nan", "link.each_s nan"),
        ("each_s = 8e-08", "each_s = inf", "link.each_s inf"),
        ("each_s = 8e-08", "each_s = -8e-08", "link.each_s -8e-08"),
        ("each_s = 8e-08", "each_s = 0.0", "link.each_s 0.0"),
        ("each_s = 8e-08", 'each_s = "8e-08"', "link.each_s '8e-08'"),
        ("each_s = 8e-08", "each_s = true", "link.each_s True"),
        ("each_s = 8e-08", "", "link.each_s"),
        ("each_s = 8e-08", "each_s = 8e-08\nspeed = 1", "link.speed 1"),
        ("ranks = 2", "ranks = 2.5", "provenance.ranks 2.5"),
        ('kind = "MEASURED"', 'kind = "ASSUMED"', "provenance.kind 'ASSUMED'"),
        ('machine = "', 'machine = "\\u001b[31m', "provenance.machine"),
        ("format = 1", "format = 2", "format 2"),
        ("format = 1", "format = ", "is not TOML"),
        ("[work.add]", "[work.\"__import__('os')\"]", "work.__import__('os')"),
    ],
)
def test_a_profile_that_is_wrong_is_refused_by_file_key_and_value(
    saved: Path, before: str, after: str, named: str
) -> None:
    text = saved.read_text(encoding="utf-8")
    assert before in text
    saved.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        load_profile(saved)
    assert str(saved) in str(refused.value)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_profile_that_is_not_there_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file.*netsim calibrate"):
        load_profile(tmp_path / "p.toml")


def test_a_timing_of_a_profile_is_its_arithmetic(saved: Path) -> None:
    """Two workers' ring: two steps in which each packs, sends and receives half, unpacks it; then one sum of halves."""
    d = 1_000_000
    options: dict[str, Any] = {"workers": 2, "algorithm": "dense:segment=none", "timing_only": True, "elements": d}
    (result,) = netsim.simulate(**options, profile=saved).results
    half = 4 * d // 2
    step = 2 * (10e-6 + 0.5e-9 * half) + 200e-6 + 80e-9 * half
    computing = 7e-3 + 1e-6 + 0.2e-9 * d  # the sum is of two halves
    assert result.round_time_s == pytest.approx(2 * step + computing, rel=1e-6)
    assert result.compute_provenance == "MEASURED"


def test_what_is_said_beside_a_profile_takes_its_place(saved: Path) -> None:
    experiment = Experiment.of(profile=str(saved), bandwidth="10Gbps", compute_time="1s", message_overhead="1us")
    assert experiment.bandwidth_bps == 10**10
    assert experiment.latency_s == 200e-6
    assert experiment.effects.message_overhead_s == 1e-6
    assert experiment.effects.byte_cost_s == 0.5e-9
    (result,) = netsim.simulate(
        workers=2, algorithm="dense", timing_only=True, elements=10, profile=saved, compute_time="1s"
    ).results
    assert result.compute_time_s == pytest.approx(1.0)
    assert result.compute_provenance == "ASSUMED"


def test_a_step_of_another_workload_is_not_charged(saved: Path) -> None:
    assert "gradient" in Experiment.of(profile=str(saved)).rates()
    assert "gradient" not in Experiment.of(profile=str(saved), batch_size=32).rates()
    assert "gradient" not in Experiment.of(profile=str(saved), timing_only=True, model="resnet50").rates()


def test_functions_that_a_profile_does_not_know_are_left_to_what_else_charges() -> None:
    charges = RatedCosts({"add": Rate(1.0, 5.0, 2.0)}, set(), AssumedCosts({"merge": 5.0}))
    vector = SizeOnly(3)
    assert charges.picoseconds(Compute("merge", add, (vector, vector)), lambda: None) == 13 * PICOSECONDS
    assert charges.picoseconds(Compute("merge", sorted, (vector,)), lambda: None) == 5 * PICOSECONDS
    sparse = SizeOnly(100, 3)
    assert Given.to(Compute("merge", add, (sparse, sparse))) == ("sparse_add", 6, 100)
    assert Given.to(Compute("merge", add, (vector, sparse))) == ("add", 3, 3)


@pytest.mark.slow
def test_a_profile_goes_with_the_output(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, f"simulate --workers 2 --timing-only --elements 1000 --k 10 --profile {saved}")
    assert done.code == 0, done.err
    assert f"profile  {saved} (MEASURED 2026-11-24 on loopback" in done.out
    done = run(capsys, f"recommend --workers 4 --model resnet18 --compute-time 60ms --jobs 1 --profile {saved}")
    assert done.code == 0, done.err
    assert f"come from the profile {saved}" in done.out


def test_a_profile_decides_no_link_that_the_topology_decides(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file's link of 8 Mbit/s and 1 ms; of the profile only what messages cost hosts: 100 µs and 0.5 ns a byte."""
    nodes = [{"id": name, "kind": "host"} for name in "ab"]
    edges = [{"source": "a", "target": "b", "bandwidth_bps": 8e6, "latency_s": 1e-3}]
    path = tmp_path / "two.json"
    path.write_text(json.dumps({"nodes": nodes, "edges": edges}))
    own = f"--workers 2 --topology {path} --timing-only --elements 1000 --algorithm dense-tree --profile {saved}"
    done = run(capsys, f"simulate {own} --json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["config"]["bandwidth_bps"], told["config"]["latency_s"]) == (None, None)
    hosts = 2 * (profile().message.fixed_s + 4000 * profile().message.each_s)
    assert told["results"][0]["comm_time_s"] == pytest.approx(2 * (1e-3 + 4000e-6 + hosts), rel=1e-9)
    shown = run(capsys, f"simulate {own}").out
    assert "8 Mbit/s   1 ms a link" in shown
    assert "values for hosts" in shown
    asked = f"recommend --workers 2 --topology {path} --elements 1000 --compute-time 1ms --jobs 1 --profile {saved}"
    assert f"All other values for hosts come from the profile {saved}" in run(capsys, asked).out
    assert run(capsys, f"simulate {own} --protocol tcp").code == 0, "the headers are in a β that no link takes"


def test_headers_are_not_counted_twice(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, f"simulate --profile {saved} --protocol tcp")
    assert done.code == 2
    assert "headers already" in done.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--local 4", "bandwidth"),
        ("--local 1 --bandwidth 100Mbps", "local 1"),
        ("--workload nothing", "nothing"),
        ("--out nowhere/p.toml", "nowhere"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(
    arguments: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, f"calibrate {arguments}")
    assert done.code == 2
    assert named in done.err


def measured(calibration: CalibrationPlan, *stage: Any, cluster: Any = None) -> dict[str, Any]:
    """Return what two real ranks measure, after a trip through JSON."""
    details = {"work": TASK, "backend": "gloo", "timeout_s": 20.0, "calibration": asdict(calibration)}
    (found,) = launch_work(details, 2, *stage, cluster=cluster)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.mark.real
@pytest.mark.slow
def test_two_ranks_on_loopback_are_calibrated(tmp_path: Path) -> None:
    """A short one of the real thing. Where times of a busy machine fit no line, one line says so."""
    calibration = CalibrationPlan(where="loopback", command="a test", messages_s=1.0, elements=(2_000, 20_000))
    stages: list[str] = []
    found = measured(calibration, lambda what, _: stages.append(what))
    assert stages[:3] == ["messages", "selecting and merging", "a step of training"]
    assert [trips["size"] for trips in found["trips"]][:3] == list(SIZES[:3])
    assert all(seconds > 0 for trips in found["trips"] for seconds in trips["one_way_s"])
    functions = {function for function, _, _, seconds in found["work"] if seconds > 0}
    assert {"accumulate_and_select", "add", "total", "sparse_merge", "sparse_sum_to_dense"} <= functions
    assert found["elements"] == 1_126_410
    refused = None
    try:
        save_profile(profile := profile_of(calibration, found), tmp_path / "p.toml")
    except NetsimError as error:
        refused = str(error)
    assert "\n" not in refused if refused else load_profile(tmp_path / "p.toml") == profile


@pytest.mark.real
@pytest.mark.slow
def test_a_shaped_link_is_no_faster_than_what_the_kernel_counts() -> None:
    """The oracle is the shaper: 1448 bytes of payload in every 1514 of a frame, at 50 Mbit/s, and its first burst.

    How much slower a link may look depends on what else this machine does. A wrong unit would be a factor of eight.
    """
    if why := why_no_cluster():
        pytest.skip(why)
    from netsim.cluster.plan import Cluster

    calibration = CalibrationPlan(where="shaped cluster", command="a test", messages_s=12.0, elements=(2_000,))
    trips = measured(calibration, cluster=Cluster(ranks=2, bandwidth_bps=50_000_000))["trips"]
    byte_s, burst = 8 / (50e6 * 1448 / 1514), 2 * 4096
    for one in trips:
        assert min(one["one_way_s"]) >= 0.99 * byte_s * (one["size"] - burst)
    largest = trips[-1]
    assert largest["size"] > 10 * burst
    assert min(largest["one_way_s"]) < 4 * byte_s * largest["size"]
