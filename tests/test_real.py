"""The same text in memory, simulated, and over real gloo processes: same parameters, same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import netsim
from algorithms import ALGORITHMS, class_of
from netsim.distributed.rank_main import wake_without_preempting
from netsim.experiment.configuration import Experiment
from netsim.simulator.opening import open_session

EXCHANGING = {
    "local-sgd": "local-sgd:h=3",
    "post-local-sgd": "post-local-sgd:h=3,start=2",
    "diloco": "diloco:h=3",
    "streaming-diloco": "streaming-diloco:h=4,fragments=2",
    "powersgd": "powersgd:rank=1,min-rate=0",
}
"""Methods of which the default options exchange nothing, or compress nothing, in few rounds of a small model."""
NAMES = [EXCHANGING.get(name, name) for name in ALGORITHMS]
STEPS = 12
"""More than the ten differences in the history of lazy methods."""
SMALL: dict[str, Any] = {"workload": "tests.tiny:tiny", "batch_size": 4, "density": 0.1}
"""A model of which a step costs little: most of these tests are about messages, and not about large vectors."""
CHARGES = {"compute_time": "5ms", "select_time": "1ms", "merge_time": "0s"}


def assert_three_worlds_agree(options: dict[str, Any], workers: int) -> None:
    experiment = Experiment.of(workers=workers, **options, **CHARGES)
    simulated = netsim.simulate(workers=workers, **options, **CHARGES).results
    real = netsim.run(workers=workers, **options).results
    with open_session(experiment) as lab:
        for one, other in zip(simulated, real, strict=True):
            name = f"{one.algorithm}, {workers} workers"
            memory = lab.in_memory(one.algorithm)
            assert one.parameters_sha256 == other.parameters_sha256 == memory[0].parameters_sha256, name
            sent = [outcome.traffic.bytes_up for outcome in memory]
            assert one.bytes_sent_by_rank == other.bytes_sent_by_rank == sent, name
            assert one.final_loss == other.final_loss, name
            assert workers == 1 or min(sent[:workers]) > 0, name
            assert (one.mode, other.mode) == ("simulated", "real")


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5])
def test_parameters_and_bytes_are_equal_in_memory_simulated_and_real(workers: int) -> None:
    assert_three_worlds_agree(SMALL | {"algorithm": NAMES, "rounds": STEPS, "seed": workers}, workers)


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
def test_so_they_are_with_a_model_of_a_million_parameters() -> None:
    """Methods with local steps follow below, in rounds enough for an exchange."""
    names = [name for name in NAMES if not class_of(name).steps_locally]
    assert_three_worlds_agree({"algorithm": names, "rounds": 2, "seed": 7}, 3)


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 5])  # one neighbour, and two
def test_rings_in_slices_change_neither_parameters_nor_bytes(workers: int) -> None:
    """Chunks and selections of 9 to 22 slices, of which eight are under way at once."""
    sliced = {"algorithm": "dense:segment=100KiB,topk:segment=200B,randk:segment=50B", "k": 500}
    send_mode = "rendezvous" if workers == 2 else "eager"
    assert_three_worlds_agree(sliced | {"rounds": 5, "seed": workers, "send_mode": send_mode}, workers)


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "gtopk:residual=index-intersection,topk:gather=bruck,gtopk-hier:group-size=2,diloco:h=2"},
        {"algorithm": "local-sgd:h=2,post-local-sgd:h=2,start=1", "momentum": 0.9},
        {"algorithm": "streaming-diloco:h=2,fragments=2,tau=1,streaming-diloco:h=4,fragments=3,tau=2,fp4=true"},
        {"algorithm": "ps,gtopk", "topology": "ps"},
        {"algorithm": "gtopk-hier", "topology": "racks:size=2", "placement": "cyclic"},
    ],
)
def test_options_change_both_worlds_alike(options: dict[str, Any]) -> None:
    assert_three_worlds_agree(options | {"rounds": 5, "k": 500}, 3)


@pytest.mark.real
@pytest.mark.slow
def test_the_report_of_a_real_run_claims_no_simulated_links() -> None:
    config = netsim.run(workers=1, algorithm="dense", rounds=1).config
    assert (config["bandwidth_bps"], config["latency_s"], config["sharing"], config["engine"]) == (None,) * 4
    again = netsim.simulate(**config)
    assert again.config["bandwidth_bps"] == 10**9  # the default of simulations, and not what was not applied


@pytest.mark.slow
def test_training_makes_the_loss_smaller_for_every_algorithm() -> None:
    # The rate is one for SGD, not for AdamW, nor for signs, by which every element moves by the whole rate.
    sgd = {"diloco": "diloco:h=5,inner=sgd", "streaming-diloco": "streaming-diloco:h=5,inner=sgd"}
    signs = ["signsgd", "ps-signsgd"]
    names = [sgd.get(name, f"{name}:h=5" if kind.steps_locally else name) for name, kind in ALGORITHMS.items()]
    names = [*(name for name in names if name not in signs), *signs]
    long: dict[str, Any] = {"workload": "tests.tiny:digits", "workers": 4, "rounds": 40, "density": 0.01, **CHARGES}
    before = netsim.simulate(algorithm=names, lr=1e-6, **long | {"rounds": 1}).results
    after = netsim.simulate(algorithm=names[: -len(signs)], lr=0.5, **long).results
    after += netsim.simulate(algorithm=signs, lr=3e-3, **long).results
    for start, end in zip(before, after, strict=True):
        assert end.final_loss is not None
        assert start.final_loss is not None
        # Random-k applies a hundredth of the entries whatever their size: it is the slow one by design.
        most = 0.97 if end.algorithm == "randk" else 0.8
        assert end.final_loss < most * start.final_loss, end.algorithm


@pytest.mark.real
@pytest.mark.slow
def test_torchrun_does_what_the_launcher_does(tmp_path: Path) -> None:
    options = ["--algorithm", "gtopk", "--rounds", "3", "--json"]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "netsim",
        "run",
        *options,
    ]
    done = subprocess.run(torchrun, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=True)
    import json

    (result,) = json.loads(done.stdout)["results"]
    simulated = netsim.simulate(workers=2, algorithm="gtopk", rounds=3, **CHARGES).results[0]
    assert result["parameters_sha256"] == simulated.parameters_sha256
    assert result["workers"] == 2
    assert result["compute_provenance"] == "MEASURED"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's scheduler")
def test_threads_of_ranks_wake_without_preempting_unless_they_were_given_another_policy() -> None:
    """The policy is a thread's own, and its children's: here of a thread that ends."""
    found, before = [], os.sched_getscheduler(0)

    def rank(given: int) -> None:
        os.sched_setscheduler(0, given, os.sched_param(0))
        wake_without_preempting()
        with ThreadPoolExecutor(1) as later:  # as gloo's, which begins with the group
            found.append(later.submit(os.sched_getscheduler, 0).result())

    for given in (os.SCHED_OTHER, os.SCHED_IDLE):
        thread = threading.Thread(target=rank, args=(given,))
        thread.start()
        thread.join()
    assert found == [os.SCHED_BATCH, os.SCHED_IDLE]
    assert os.sched_getscheduler(0) == before
