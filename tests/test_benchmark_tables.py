"""Tables of nccl-tests and OSU: they are read into profiles, and written from simulations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netsim
from netsim._util.errors import NetsimError, UnwrittenError, UsageError
from netsim.cli.main import main
from netsim.experiment.profile import Profile, load_profile
from netsim.report.nccl_tests import NcclTestsRun, collective_runs, fixed, nccl_tests_text
from netsim.study_engine import run_study
from netsim.testbed.benchmark_fits import WINDOW, profile_of_table
from netsim.testbed.benchmark_tables import read_table
from tests.command import run

SIZES = [64 * 4**power for power in range(0, 7, 2)]
"""Bytes of vectors whose chunks are shorter than any segment of a pipelined ring."""
DEVICES = """# Collective test starting: all_reduce_perf
# nThread 1 nGpus 1 minBytes 64 maxBytes 262144 step: 16(factor) warmup iters: 5 iters: 20 validation: 1
#
# Using devices
"""
TITLES = """#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""


def ring_s(ranks: int, size: int, alpha: float, beta: float) -> float:
    """Return the seconds of a ring all-reduce: 2(P-1) messages of a P-th of the vector, one after another."""
    return 2 * (ranks - 1) * (alpha + size / ranks * beta)


def of_nccl_tests(ranks: int, seconds: Callable[[int], float], sizes: Sequence[int] = SIZES, hosts: int = 2) -> str:
    """Return a table as nccl-tests of 2024 prints it, with times of three digits after the point."""
    lines = [
        f"#  Rank {rank:2d} Group  0 Pid   {4711 + rank} on  node{rank % hosts} device  0 [0x{rank:02x}] NVIDIA L40S"
        for rank in range(ranks)
    ]
    rows = []
    for size in sizes:
        time, algbw = 1e6 * seconds(size), size / seconds(size) / 1e9
        busbw = algbw * 2 * (ranks - 1) / ranks
        half = f"{time:9.3f}  {algbw:6.2f}  {busbw:6.2f}      0"
        rows.append(f"{size:12d}  {size // 4:12d}     float     sum      -1  {half}  {half}")
    footer = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 1.0\n#\n"
    return "\n".join([DEVICES + "\n".join(lines), TITLES + "\n".join(rows), footer])


def calibrated(text: str, folder: Path, **given: Any) -> Profile:
    """Return the profile of a file with this text."""
    file = folder / "table.txt"
    file.write_text(text)
    return profile_of_table(read_table(file), file, command="a test", **given)


@settings(max_examples=8, deadline=None)
@given(alpha=st.floats(1e-5, 1e-2), gbps=st.floats(0.1, 100), ranks=st.integers(3, 9))
def test_alpha_and_beta_come_back_from_a_table_of_rings(
    alpha: float, gbps: float, ranks: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The oracle is the ring's closed form. Times of 40 µs and more are printed to 1 ns, 25 in a million."""
    beta = 8e-9 / gbps
    sizes = [ranks * size for size in SIZES]
    text = of_nccl_tests(ranks, lambda size: ring_s(ranks, size, alpha, beta), sizes)
    found = calibrated(text, tmp_path_factory.mktemp("table"))
    for size in sizes:
        predicted = ring_s(ranks, size, found.link.fixed_s, found.link.each_s)
        assert predicted == pytest.approx(ring_s(ranks, size, alpha, beta), rel=1e-3)
    assert found.link.fixed_s == pytest.approx(alpha, rel=1e-3)
    assert found.provenance.ranks == ranks
    assert found.provenance.measured == "all-reduce by dense on 2 machines, fitted over star"
    assert found.link.residual_worst < 1e-3


@pytest.mark.parametrize("ranks", [2, 5])
def test_what_is_simulated_with_a_table_s_profile_is_the_table(ranks: int, tmp_path: Path) -> None:
    alpha, beta = 50e-6, 0.8e-9
    file = tmp_path / "all_reduce_perf.txt"
    text = of_nccl_tests(ranks, lambda size: ring_s(ranks, size, alpha, beta))
    calibrated(text, tmp_path)
    file.write_text(text)
    assert main(["calibrate", "--from", str(file), "--out", str(tmp_path / "p.toml")]) == 0
    options: dict[str, Any] = {"workers": ranks, "algorithm": "dense", "timing_only": True, "elements": 100_000}
    (result,) = netsim.simulate(**options, profile=tmp_path / "p.toml").results
    assert result.comm_time_s == pytest.approx(ring_s(ranks, 400_000, alpha, beta), rel=1e-3)


@pytest.mark.parametrize("algorithm", ["dense:segment=none", "dense:segment=auto", "dense-tree"])
def test_what_is_simulated_and_written_is_read_again(algorithm: str, tmp_path: Path) -> None:
    """Simulate, write nccl-tests' columns, calibrate from them: the links are those that were simulated.

    Times of 100 µs and more are printed to 10 ns, one in ten thousand.
    """
    options: dict[str, Any] = {"workers": 4, "bandwidth": "10Gbps", "latency": "20us", "timing_only": True}
    reports = [
        netsim.simulate(**options, algorithm=algorithm, elements=elements)
        for elements in (100, 10_000, 1_000_000, 10**8)
    ]
    (written,) = collective_runs(("dense", report.results[0].to_dict()) for report in reports)
    found = calibrated(nccl_tests_text(written), tmp_path, algorithm=algorithm)
    assert found.link.fixed_s == pytest.approx(20e-6, rel=1e-3)
    assert found.link.bandwidth_bps == pytest.approx(10e9, rel=1e-3)
    assert found.provenance.ranks == 4
    assert found.title().startswith("SIMULATED, from nccl-tests, 4 ranks")


def test_top_k_is_written_as_the_all_gather_that_it_is_and_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """k entries of 8 B a rank: the size is that of all ranks' entries, and a rank has a P-th of it.

    The closed form is the ring's: P-1 steps of α + 8 k β for chunks of one slice; selecting takes no time of it.
    """
    base = "simulate --workers 4 --bandwidth 10Gbps --latency 20us --timing-only --select-time 1s --elements 100000000"
    text = []
    for k in (1000, 10_000, 60_000):
        done = run(capsys, f"{base} --algorithm topk --k {k} --nccl-tests {tmp_path / 'one.txt'}")
        assert (done.code, done.err) == (0, "")
        text.append((tmp_path / "one.txt").read_text())
        (row,) = [line.split() for line in text[-1].splitlines() if line[:1] == " "]
        seconds = 3 * (20e-6 + 8 * k * 0.8e-9)
        assert row[:5] == [str(4 * 8 * k), str(2 * k), "float", "none", "-1"]
        assert float(row[5]) == pytest.approx(1e6 * seconds, abs=0.05)
        assert float(row[7]) == pytest.approx(3 * 8 * k / seconds / 1e9, abs=0.006)  # a link carries the others' parts
    (tmp_path / "all.txt").write_text("".join(text))
    done = run(capsys, f"calibrate --from {tmp_path / 'all.txt'} --out {tmp_path / 'p.toml'}")
    assert (done.code, done.err) == (0, "")
    profile = load_profile(tmp_path / "p.toml")
    assert profile.provenance.measured.startswith("all-gather")
    assert profile.link.fixed_s == pytest.approx(20e-6, rel=1e-3)
    assert profile.link.bandwidth_bps == pytest.approx(10e9, rel=1e-3)


@pytest.mark.parametrize(
    ("algorithms", "said"),
    [
        ("dense,topk", "is one table, of one algorithm; give one of dense, topk at a time"),
        ("gtopk", "algorithm 'gtopk' exchanges by no collective of nccl-tests"),
        ("ps", "algorithm 'ps' exchanges by no collective of nccl-tests"),
    ],
)
def test_a_table_has_one_collective_or_the_run_is_refused(
    algorithms: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "table.txt"
    done = run(
        capsys, f"simulate --workers 4 --timing-only --elements 1000 --algorithm {algorithms} --nccl-tests {file}"
    )
    assert (done.code, done.out, file.exists()) == (2, "", False)
    assert said in done.err
    assert done.err.count("\n") == 1


SLICE = 2**19


def ring_half_s(ranks: int, size: int, alpha: float, beta: float) -> float:
    """Return the seconds of a reduce-scatter or an all-gather in slices: latencies hide behind draining but for one."""
    chunk = size // ranks
    return (alpha if chunk > SLICE else (ranks - 1) * alpha) + (ranks - 1) * chunk * beta


def chain_s(ranks: int, size: int, alpha: float, beta: float) -> float:
    """Return the seconds of a broadcast or a reduce along a chain: the last slice leaves after all others."""
    return (ranks - 1) * (alpha + min(size, SLICE) * beta) + max(0, size - SLICE) * beta


@pytest.mark.parametrize(
    ("operation", "seconds"),
    [("all_gather", ring_half_s), ("reduce_scatter", ring_half_s), ("broadcast", chain_s), ("reduce", chain_s)],
)
def test_pipelined_collectives_of_nccl_are_fitted(
    operation: str, seconds: Callable[[int, int, float, float], float], tmp_path: Path
) -> None:
    """A slice drains in 0.5 ms, so that α = 0.1 ms hides behind it. The largest sizes are extrapolated."""
    alpha, beta, ranks = 1e-4, 1e-9, 4
    sizes = [ranks * SLICE // 64, ranks * SLICE // 8, 16 * ranks * SLICE, 64 * ranks * SLICE]
    text = of_nccl_tests(ranks, lambda size: seconds(ranks, size, alpha, beta), sizes).replace("all_reduce", operation)
    found = calibrated(text, tmp_path)
    assert found.link.fixed_s == pytest.approx(alpha, rel=2e-3)
    assert found.link.each_s == pytest.approx(beta, rel=2e-3)
    assert found.link.residual_worst < 2e-3


def test_the_links_between_machines_are_fitted_beside_known_ones_inside(tmp_path: Path) -> None:
    """A ring of 4 ranks crosses each of 2 machines' links once. Every step waits for that hop, and 5 µs inside."""
    alpha, beta, inside_s = 4e-5, 1e-9, 5e-6
    sizes = [4 * size for size in SIZES]
    text = of_nccl_tests(4, lambda size: ring_s(4, size, alpha + inside_s, beta), sizes)
    found = calibrated(text, tmp_path, topology="machines:gpus=2,inside=80GB/s,inside-latency=5us")
    assert found.link.fixed_s == pytest.approx(alpha, rel=2e-3)
    assert found.link.each_s == pytest.approx(beta, rel=2e-3)
    # Hierarchically: a step inside, two across of a quarter, in which two ranks share a machine's link, one inside.
    inside = {size: 2 * (inside_s + size / 2 / 80e9) for size in sizes}
    text = of_nccl_tests(4, lambda size: inside[size] + 2 * (alpha + inside_s) + size * beta, sizes)
    topology = "machines:gpus=2,inside=80GB/s,inside-latency=5us"
    found = calibrated(text, tmp_path, topology=topology, algorithm="dense-hier")
    assert found.link.fixed_s == pytest.approx(alpha, rel=2e-3)
    assert found.link.each_s == pytest.approx(beta, rel=2e-3)
    with pytest.raises(UsageError, match="decides the bandwidth or latency of all links"):
        calibrated(text, tmp_path, topology="machines:gpus=2,network=25Gbps,network-latency=5us")


def test_other_layouts_of_the_table_are_read(tmp_path: Path) -> None:
    """Of 2020: no group, no root, and the log of NCCL between; of 2026: statistics of iterations, and a time of day."""
    old = (
        "[1,0]<stdout>:# nThread 1 nGpus 2 minBytes 8 maxBytes 128 step: 2(factor) warmup iters: 5 iters: 20\n"
        "[1,0]<stdout>:#   Rank  0 Pid  12978 on    alpha device  0 [0x45] Tesla V100-SXM2-32GB\n"
        "[1,0]<stdout>:#   Rank  1 Pid  12979 on    beta device  1 [0xc4] Tesla V100-SXM2-32GB\n"
        "[1,0]<stdout>:#       size         count    type   redop     time   algbw   busbw  error     time   algbw"
        "   busbw  error\n"
        "[1,1]<stdout>:21f3:195:195 [0] NCCL INFO Launch mode Parallel\n"
        "[1,0]<stdout>:           0             0   float     sum     9.00    0.00    0.00  0e+00     9.00    0.00"
        "    0.00  0e+00\n"
        "[1,0]<stdout>:    33554432       8388608   float     sum    19902    1.69    1.69  2e-07    19898    1.69"
        "    1.69  2e-07\n"
    )
    (tmp_path / "old.txt").write_text(old)
    table = read_table(tmp_path / "old.txt")
    assert (table.operation, table.workers, table.machines) == (None, 2, 2)
    assert table.devices == "Tesla V100-SXM2-32GB"
    assert table.seconds == {33554432: [pytest.approx(0.019902), pytest.approx(0.019898)]}
    new = (
        "# Collective test starting: sendrecv_perf\n"
        "#  Rank  0 Group  0 Pid 1 on a device  0 [0000:01:00] NVIDIA GB10\n"
        "#  Rank  1 Group  1 Pid 1 on b device  0 [0000:01:00] NVIDIA GB10\n"
        "#  Rank  2 Group  0 Pid 1 on c device  0 [0000:01:00] NVIDIA GB10\n"
        "#  size  count  type  redop  root  time  algbw  busbw  #wrong  i_min  i_max  i_p99  i_cv%  time  algbw  busbw"
        "  #wrong  i_min  i_max  i_p99  i_cv%   timestamp\n"
        " 1048576 262144 float -1 100.00 10.49 10.49 0 98.1 103.2 103.0 1.2 101.00 10.38 10.38 N/A 99.0 104.0 104.0 1.1"
        " 2026-09-26 10:00:00\n"
    )
    (tmp_path / "new.txt").write_text(new)
    table = read_table(tmp_path / "new.txt")
    assert (table.operation, table.workers, table.machines) == ("sendrecv", 2, 2)
    assert table.seconds == {1048576: [pytest.approx(1e-4), pytest.approx(1.01e-4)]}


def test_one_of_several_tables_is_read(tmp_path: Path) -> None:
    """A log of two programs: the collective that is named says whose rows count."""
    rings = of_nccl_tests(4, lambda size: ring_s(4, size, 1e-4, 1e-9))
    messages = of_nccl_tests(4, lambda size: 3e-4 + 2e-9 * size).replace("all_reduce_perf", "sendrecv_perf")
    (tmp_path / "log.txt").write_text(rings + "\n" + messages)
    for name, alpha in (("all-reduce", 1e-4), ("sendrecv", 3e-4)):
        table = read_table(tmp_path / "log.txt", name)
        found = profile_of_table(table, tmp_path / "log.txt", command="a test", collective=name)
        assert found.link.fixed_s == pytest.approx(alpha, rel=1e-3)
        assert len(found.link.points) == len(SIZES)
    with pytest.raises(UsageError, match="has tables of all-reduce, sendrecv; add --collective sendrecv"):
        read_table(tmp_path / "log.txt")


def test_an_all_reduce_is_known_by_its_bus_bandwidth(tmp_path: Path) -> None:
    """Of all operations, only an all-reduce of three ranks or more has a greater busbw than algbw."""
    text = of_nccl_tests(4, lambda size: ring_s(4, size, 1e-4, 1e-9), [10**6, 10**7, 10**8]).partition("\n")[2]
    assert "all_reduce" not in text
    found = calibrated(text, tmp_path)
    assert found.provenance.measured == "all-reduce by dense on 2 machines, fitted over star"


def test_the_json_of_nccl_tests_is_read(tmp_path: Path) -> None:
    """A process of 2 threads with 2 GPUs each reports one of its devices: two processes are eight ranks."""
    alpha, beta = 30e-6, 2e-9
    rows = [
        {
            "size": size,
            "count": size // 4,
            "type": "float",
            "redop": "sum",
            "root": "    -1",
            "out_of_place": {"time": 1e6 * ring_s(8, size, alpha, beta), "alg_bw": 1.0, "bus_bw": 1.0, "nwrong": 0.0},
            "in_place": None if size < 1000 else {"time": 1e6 * ring_s(8, size, alpha, beta), "nwrong": None},
        }
        for size in SIZES
    ]
    devices = [
        {"rank": 4 * process, "group": 0, "hostname": f"n{process}", "device_info": "H100"} for process in (0, 1)
    ]
    config = {"nthreads": 2, "ngpus": 2, "devices": devices}
    document = {"version": 2, "args": ["./build/all_reduce_perf", "-b", "8"], "config": config, "results": rows}
    found = calibrated(json.dumps(document), tmp_path)
    assert found.link.fixed_s == pytest.approx(alpha, rel=1e-3)
    assert found.link.each_s == pytest.approx(beta, rel=1e-3)
    assert (found.provenance.ranks, found.provenance.machine) == (8, "H100")
    assert [point.repeats for point in found.link.points] == [1 if size < 1000 else 2 for size in SIZES]


def test_tables_of_osu_are_read(tmp_path: Path) -> None:
    """osu_latency gives α + βS; osu_bw sends 64 messages and waits for an answer: 2α + 64βS."""
    alpha, beta = 12e-6, 0.1e-9
    sizes = [4**power for power in range(1, 13)]
    latency = "# OSU MPI Latency Test v7.5\n# Datatype: MPI_CHAR.\n# Size       Avg Latency(us)\n"
    latency += "".join(f"{size:<10}{1e6 * (alpha + beta * size):20.4f}\n" for size in sizes)
    bandwidth = "\n# OSU MPI Bandwidth Test v5.9\n# Size      Bandwidth (MB/s)\n"
    rate = {size: WINDOW * size / (2 * alpha + WINDOW * beta * size) / 1e6 for size in sizes}
    bandwidth += "".join(f"{size:<10}{rate[size]:20.4f}\n" for size in sizes)
    reduce = (
        "# OSU MPI-CUDA Allreduce Latency Test v7.0\n# Size  Avg Latency(us)  Min Latency(us)  Max Latency(us)  Iter\n"
    )
    reduce += "".join(f"{size:<10}{1e6 * ring_s(4, size, alpha, beta):16.4f} 1.00 9.00 100\n" for size in sizes[2:10])
    for text, given_ in ((latency, {}), (bandwidth, {}), (reduce, {"workers": 4})):
        found = calibrated(text, tmp_path, **given_)
        assert found.link.fixed_s == pytest.approx(alpha, rel=5e-3)
        assert found.link.each_s == pytest.approx(beta, rel=5e-3)
    with pytest.raises(UsageError, match="does not say the workers; add --workers 8"):
        calibrated(reduce, tmp_path)


HEADER = "# Collective test starting: all_reduce_perf\n# size count type redop root time algbw busbw wrong\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no row"),
        ("hello\n", "has no row"),
        ("64 16 float sum -1 3.0 0.1 0.1 0\n", "line 1 has no header above it"),
        (HEADER + "64 16 float sum -1 fast 0.1 0.1 0\n", "line 3: time 'fast' must be microseconds"),
        (HEADER + "64 16 float sum -1 0.0 0.1 0.1 0\n", "line 3: time '0.0' must be microseconds, more than 0"),
        (HEADER + "64 16 float sum\n", "line 3 has 4 values"),
        (
            HEADER + "99999999999999999 16 float sum -1 3.0 0.1 0.1 0\n",
            "line 3: size '99999999999999999' must be bytes",
        ),
        (HEADER.replace("time", "cputime") + "64 16 float sum -1 3.0 0.1 0.1 0\n", "line 3 has no column time"),
        (
            HEADER + "# Collective test starting: reduce_perf\n",
            "has tables of all-reduce, reduce; add --collective reduce",
        ),
        (HEADER + "64 16 float sum -1 3.0 0.1 0.1 0\n", "does not say the workers; add --workers 8"),
        (
            DEVICES.replace("all_reduce", "alltoall") + TITLES + "64 1 float none -1 3.0 1 1 0 3.0 1 1 0\n"
            "#  Rank  0 Group  0 Pid 1 on n0 device  0 [0x00] H\n#  Rank  1 Group  0 Pid 2 on n1 device  0 [0x00] H\n",
            "has times of alltoall, which is not simulated; known: all-reduce",
        ),
        ("# OSU MPI All-to-All Personalized Exchange Latency Test v7\n1 2\n", "which is not simulated"),
        ("# OSU MPI Latency Test v7\n1\n", "line 2 has one value"),
        ("# OSU MPI Bandwidth Test v7\n1 quick\n", "line 2: rate 'quick' must be MB/s"),
        ("{", "is not the JSON of nccl-tests"),
        ('{"results": []}', "has no row"),
        ('{"results": [{"size": 8, "out_of_place": {"time": -1}}]}', "results 0 out_of_place time"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        calibrated(text, tmp_path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_times_that_do_not_grow_with_size_make_no_profile(tmp_path: Path) -> None:
    with pytest.raises(NetsimError, match="make no α and β"):
        calibrated(of_nccl_tests(4, lambda size: 1e-4), tmp_path)
    with pytest.raises(UsageError, match="times of one size, 64 bytes; α and β need two or more"):
        calibrated(of_nccl_tests(4, lambda size: 1e-4, [64]), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--from FILE --local 2", "--from measures nothing"),
        ("--from FILE --workload fc-mnist", "--from measures nothing"),
        ("--workers 4", "no file with --from"),
        ("--from FILE --workers 5", "workers 5 was given, but"),
        ("--from FILE --collective sendrecv", "collective sendrecv was given, but"),
        ("--from FILE --algorithm gtopk", "gtopk"),
        ("--from FILE --out FILE", "is the file of"),
        ("--from missing.txt", "missing.txt"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(
    arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "table.txt"
    file.write_text(of_nccl_tests(4, lambda size: ring_s(4, size, 1e-4, 1e-9), [10**6, 10**8]))
    done = run(capsys, f"calibrate {arguments}".replace("FILE", str(file)))
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_calibrating_from_a_file_shows_the_residuals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.txt"
    file.write_text(of_nccl_tests(4, lambda size: ring_s(4, size, 1e-4, 1e-9) * (1.1 if size == 10**7 else 1)
                                  , [10**5, 10**6, 10**7, 10**8]))  # fmt: skip
    done = run(
        capsys, f"calibrate --from {file} --algorithm dense:segment=none --bandwidth 10Gbps --out {tmp_path / 'p.toml'}"
    )
    assert (done.code, done.err) == (0, "")
    link = load_profile(tmp_path / "p.toml").link
    assert link.efficiency == pytest.approx(0.8, rel=0.03)
    for point in link.points:
        assert point.residual == pytest.approx(
            ring_s(4, point.size, link.fixed_s, link.each_s) / point.seconds - 1, abs=1e-3
        )
        assert f"fitted   {point.residual:+.1%}" in done.out
    assert re.search(r"10 MB +\S+ ms MEASURED +\S+ ms fitted +-[78]", done.out)
    assert (
        load_profile(tmp_path / "p.toml").title().startswith("MEASURED, from nccl-tests, 4 ranks, NVIDIA L40S; read 20")
    )


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (4370.571, 7, "4370.57"),
        (14977.13, 7, "14977.1"),
        (171351.4, 7, "171351"),
        (0.004, 6, "0.00"),
        (374425, 7, "374425"),
    ],
)
def test_numbers_are_as_wide_as_those_of_nccl_tests(value: float, width: int, text: str) -> None:
    """Texts from published output of nccl-tests 2.18."""
    assert fixed(value, width) == text


def test_a_row_has_the_bandwidths_of_nccl_tests() -> None:
    """algbw = S / t, and of an all-reduce busbw = 2(P-1)/P algbw: 1 GB of 4 ranks in 100 ms are 10 and 15 GB/s."""
    table = NcclTestsRun(operation="all_reduce", title="t", ranks=4, seconds=[(10**9, 0.1)], dtype="fp32")
    text = nccl_tests_text(table)
    (row,) = [line for line in text.splitlines() if not line.startswith("#")]
    half = "   100000   10.00   15.00       0"
    assert row == f"  1000000000     250000000     float     sum      -1{half}{half}"
    (titles,) = [line for line in text.splitlines() if "algbw" in line]
    assert titles.split()[1:] == ["size", "count", "type", "redop", "root"] + 2 * ["time", "algbw", "busbw", "#wrong"]


def test_simulations_and_flows_write_the_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "columns.txt"
    base = "--workers 4 --bandwidth 8Gbps --latency 10us"
    done = run(
        capsys,
        f"simulate {base} --algorithm dense:segment=none --timing-only --elements 1000000 --nccl-tests {file}",
    )
    assert (done.code, done.err) == (0, "")
    rows = [line.split() for line in file.read_text().splitlines() if line[:1] == " "]
    assert [row[:2] for row in rows] == [["4000000", "1000000"]]
    ring_us = 1e6 * ring_s(4, 4_000_000, 10e-6, 1e-9)
    assert float(rows[0][5]) == pytest.approx(ring_us, abs=0.05)
    assert float(rows[0][7]) == pytest.approx(1.5 * 4e6 / ring_us / 1e3, abs=0.005)
    (tmp_path / "flows.csv").write_text("src,dst,bytes,start_s\nworker0,worker1,1000000,0.5\n")
    done = run(capsys, f"flows --topology star {base} --flows {tmp_path / 'flows.csv'} --nccl-tests {file}")
    assert (done.code, done.err) == (0, "")
    assert read_table(file).seconds == {1_000_000: 2 * [pytest.approx(1.01e-3)]}
    refused = run(
        capsys, f"simulate {base} --algorithm dense --timing-only --elements 10 --nccl-tests {tmp_path / 'none' / 'x'}"
    )
    assert refused.code == 2
    assert "nccl-tests" in refused.err


@pytest.mark.slow
def test_a_study_without_exchanges_keeps_its_report(tmp_path: Path) -> None:
    from tests.test_study import SQUARES

    with pytest.raises(UnwrittenError, match="study squares has no times of exchanges") as refused:
        run_study(SQUARES, SQUARES.settings(), tmp_path / "out", jobs=1, nccl_tests=tmp_path / "columns.txt")
    assert refused.value.report.conclusion.sentences
    assert not (tmp_path / "columns.txt").exists()


@pytest.mark.slow
def test_a_study_writes_the_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "columns.txt"
    study = tmp_path / "own.toml"
    study.write_text(
        'study = "sweep"\n[settings.fixed]\ntiming_only = true\nworkers = 4\nalgorithm = "dense"\nlatency = "10us"\n'
        'bandwidth = "8Gbps"\n[settings.vary]\nelements = [1000, 1000000]\n'
    )
    done = run(capsys, f"study {study} --jobs 1 --out {tmp_path / 'out'} --nccl-tests {file}")
    assert (done.code, done.err) == (0, "")
    table = read_table(file)
    assert (table.operation, table.workers, list(table.seconds)) == ("all-reduce", 4, [4000, 4_000_000])
    file.unlink()
    study.write_text(study.read_text().replace("workers = 4", "") + "workers = [2, 4]\n")
    done = run(capsys, f"study {study} --jobs 1 --out {tmp_path / 'out'} --nccl-tests {file}")
    assert (done.code, file.exists()) == (1, False)
    assert "the points of study sweep make 2; vary only elements, model or density" in done.err
