"""Wrong input gets one line that names the value, what was expected and the likely fix; never a traceback."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netsim
from algorithms import build_algorithm
from algorithms.selection import Selector
from netsim._util.errors import UsageError
from netsim.training.sgd import SGDConfig
from tests.command import run


def refused(capsys: pytest.CaptureFixture[str], arguments: str, code: int) -> str:
    """Return the message, after checking that it is one line on stderr and all there is."""
    ran = run(capsys, arguments)
    assert ran.code == code
    assert ran.out == ""
    assert re.fullmatch(r"netsim: [^\n]+\n", ran.err)
    return ran.err


@pytest.fixture
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail rather than start a process, and forget the torchrun that may have started pytest."""

    def popen(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"a process was started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", popen)
    for variable in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)


TIMED = "simulate --timing-only --elements 1000"
QUANTITIES = [
    ("--bandwidth 1Gpbs", ["bandwidth '1Gpbs'", "did you mean 'Gbps'?", "1Gbps"]),
    ("--bandwidth 1gbps", ["'1gbps'", "did you mean 'Gbps'?"]),
    ("--bandwidth 10", ["bandwidth '10'", "no unit", "1Gbps"]),
    ("--bandwidth 1e9", ["'1e9'", "no unit"]),
    ("--bandwidth fast", ["'fast'", "1Gbps"]),
    ("--bandwidth ''", ["''", "1Gbps"]),
    ("--bandwidth 0Gbps", ["'0Gbps'", "more than zero"]),
    ("--bandwidth=-1Gbps", ["'-1Gbps'", "more than zero"]),
    ("--bandwidth infGbps", ["'infGbps'", "not finite"]),
    ("--bandwidth inf", ["'inf'", "not finite"]),
    ("--bandwidth nan", ["'nan'", "not finite"]),
    ("--bandwidth 1e300Gbps", ["'1e300Gbps'"]),
    ("--latency 5usec", ["latency '5usec'", "did you mean 'us'?", "50us"]),
    ("--latency 50", ["latency '50'", "no unit", "50us"]),
    ("--latency 0us", ["'0us'", "more than zero"]),
    ("--latency=-5us", ["'-5us'", "more than zero"]),
    ("--latency inf", ["'inf'", "not finite"]),
    ("--latency nan", ["'nan'", "not finite"]),
    ("--latency 1e308h", ["'1e308h'"]),
    ("--compute-time=-1ms", ["--compute-time '-1ms'", "zero or more"]),
    ("--select-time 5", ["--select-time '5'", "no unit"]),
    ("--merge-time nan", ["--merge-time 'nan'", "not finite"]),
]
NAMES = [
    ("--algorithm gtopkk", ["algorithm 'gtopkk'", "did you mean 'gtopk'?"]),
    ("--algorithm dense,gTop-k", ["'gTop-k'", "did you mean 'gtopk'?"]),
    ("--algorithm dense,", ["algorithm ''", "dense-tree"]),
    ("--topology tre", ["topology 'tre'", "did you mean 'tree'?", "star"]),
    ("--workload digits-mpl", ["workload 'digits-mpl'", "did you mean 'digits-mlp'?"]),
    ("--algorithm gtopk:residual=keep_at_merge", ["residual", "'keep_at_merge'", "did you mean 'keep-at-merge'?"]),
    ("--algorithm topk:gather=bruk", ["gather of topk: 'bruk'", "did you mean 'bruck'?", "ring"]),
    ("--algorithm signsgd:gather=x", ["known: ring, bruck; write it like --algorithm signsgd:gather=ring"]),
    ("--algorithm diloco:H=3", ["unknown option of diloco: 'H' (did you mean 'h'?)", "--algorithm diloco:KEY=VALUE"]),
    ("--device cudaa", ["device 'cudaa'", "did you mean 'cuda'?", "cpu"]),
    ("--bandwith 1Gbps", ["--bandwith", "--bandwidth"]),
    ("--no-such-thing 1", ["--no-such-thing"]),
    ("--algorithm diloco:h=0", ["h of diloco: 0 must be a whole number of at least 1, such as 500"]),
    (
        "--algorithm qsgd:bits=9",
        ["bits of qsgd: 9 must be a whole number of 2 to 8", "write it like --algorithm qsgd:bits=4"],
    ),
    ("--algorithm powersgd:rank=0", ["rank of powersgd: 0", "at least 1; write it like --algorithm powersgd:rank=4"]),
    ("--dtype fp8", ["unknown dtype 'fp8'; known: fp32, bf16, fp16; int8 and qsgd are algorithms"]),
    ("--gather bruck", ["--gather", "--algorithm topk:gather="]),
    ("--way messages", ["--way", "write --engine instead"]),
    ("--algorithm topk:gather=doubling", ["gather of topk: 'doubling'", "called 'bruck' now; write bruck"]),
    ("--placement given", ["placement 'given'", "called 'rank-order' now"]),
    ("--engine messages", ["engine 'messages'", "called 'event' now"]),
    ("--algorithm dense --algorithm=topk", ["--algorithm was given 2 times", "with commas"]),
    ("--link-event w0->switch@1s=down --link-event w1->switch@1s=down", ["--link-event was given 2 times"]),
    ("--sends eager", ["--sends", "write --send-mode instead"]),
    ("--algorithm topk,topk", ["algorithm 'topk' was named twice"]),
    ("--algorithm topk,topk:gather=ring", ["algorithm 'topk:gather=ring'", "named twice, first as 'topk'"]),
    ("--algorithm gtopk:residual", ["'residual' must be key=value", "known: residual=NAME"]),
    ("--algorithm ps:serial-server", ["'serial-server'", "known: serial-server=true|false"]),
    ("--algorithm topk:residual=x", ["residual", "known: gather"]),
    ("surplus", ["surplus"]),
]
NUMBERS = [
    ("--k 1001", ["k 1001", "1000"]),
    ("--k 0", ["k 0", "at least 1"]),
    ("--k=-1", ["k -1", "at least 1"]),
    ("--k 10 --density 0.1", ["k 10", "density 0.1", "one of them"]),
    ("--density 0", ["density 0", "more than 0 and at most 1"]),
    ("--density=-1", ["density -1", "more than 0 and at most 1"]),
    ("--density 1.5", ["density 1.5", "more than 0 and at most 1"]),
    ("--density nan", ["density nan", "more than 0 and at most 1"]),
    ("--density inf", ["density inf", "more than 0 and at most 1"]),
    ("--workers 0", ["workers 0", "at least 1"]),
    ("--workers=-3", ["workers -3", "at least 1"]),
    ("--batch-size 0", ["batch-size 0", "at least 1"]),
    ("--rounds 0", ["rounds 0", "at least 1"]),
    ("--fan-out 1", ["fan-out 1", "at least 2"]),
    ("--seed=-1", ["seed -1", "at least 0"]),
    ("--lr nan", ["--lr nan", "finite and more than zero"]),
    ("--lr inf", ["--lr inf", "finite and more than zero"]),
    ("--lr 0", ["--lr 0", "finite and more than zero"]),
    ("--lr=-0.1", ["--lr -0.1", "finite and more than zero"]),
]


@pytest.mark.parametrize(
    ("options", "said"),
    [pytest.param(options, said, id=options) for options, said in QUANTITIES + NAMES + NUMBERS],
)
def test_simulate_refuses(capsys: pytest.CaptureFixture[str], options: str, said: list[str]) -> None:
    message = refused(capsys, f"{TIMED} {options}", 2)
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (f"{TIMED} --lr-decay 0.5", "--lr-decay 0.5 was given, but not when; add --lr-decay-at 100,150"),
        (f"{TIMED} --k 3 --density 0.1", "both --k 3 and --density 0.1 were given; give one of them"),
        ("simulate --model resnet50", "--model 'resnet50' is known by its sizes alone; add --timing-only, or"),
        ("validate --workers 3", "--workers was given, but netsim validate has none; use --local 3"),
        ("validate --nproc=3", "--nproc was given, but netsim validate has none; use --local 3"),
        ("study scaling --jobs -1", "--jobs -1 must be"),
        # What is no option of the command is named as it is.
        ("topology show 'mesh'", "unknown topology"),
        (
            "topology show tree:uplink=1Gbps,oversubscription=8",
            "both uplink 1 Gbit/s and oversubscription 8 were given",
        ),
    ],
)
def test_an_error_names_an_option_as_it_is_written(
    capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert refused(capsys, arguments, 2).startswith(f"netsim: {said}")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *[
            (f"simulate --{option}", "three", "integer|whole number")
            for option in ("workers", "k", "rounds", "elements")
        ],
        *[(f"simulate --{option}", "2.5", "integer|whole number") for option in ("workers", "batch-size", "fan-out")],
        *[(f"simulate --{option}", "0.1%", "number") for option in ("density", "lr")],
        ("run --nproc", "two", "integer|whole number"),
    ],
)
def test_what_is_no_number(capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str) -> None:
    message = refused(capsys, f"{option} {value}", 2)
    assert value in message
    assert option.split("--")[1] in message
    assert re.search(expected, message)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("simulate --elements 1000", ["elements 1000", "--timing-only"]),
        ("simulate --timing-only --elements 0", ["elements 0", "at least 1"]),
        ("simulate --timing-only --elements 2147483648", ["elements 2147483648", "at most 2147483647"]),
        ("simulate --timing-only --bandwidth", ["--bandwidth", "argument"]),
        ("simulate --k 1126411", ["k 1126411", "1126410"]),
        ("simulate --device cudaa", ["device 'cudaa'", "did you mean 'cuda'?"]),
        ("flows --gather bruck", ["--gather", "netsim flows cannot apply it"]),
        ("study scaling --way auto", ["--way", "netsim study cannot apply it"]),
        ("recommend --history 3", ["--history", "--algorithm lag:history="]),
        ("simulat", ["'simulat'", "Did you mean 'simulate'?"]),
        ("--versio", ["--versio", "--version"]),
    ],
)
def test_more_that_is_refused(capsys: pytest.CaptureFixture[str], arguments: str, said: list[str]) -> None:
    """The network of the digits has 64·1024 + 1024 + 1024·1024 + 1024 + 1024·10 + 10 = 1,126,410 parameters."""
    message = refused(capsys, arguments, 2)
    assert [part for part in said if part not in message] == []


@pytest.mark.usefixtures("no_ranks")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", ["nproc", "--nproc 4"]),
        ("--nproc 0", ["0", "at least 1"]),
        ("--nproc 2 --backend glo", ["backend 'glo'", "did you mean 'gloo'?", "nccl"]),
        ("--nproc 2 --timeout 30", ["timeout '30'", "no unit"]),
        ("--nproc 2 --timeout 0s", ["timeout '0s'", "more than zero"]),
        ("--nproc 2 --bandwidth 1Gbps", ["--bandwidth", "netsim run cannot apply it", "use netsim simulate"]),
        ("--nproc 2 --latency 50us", ["--latency", "netsim run cannot apply it", "use netsim simulate"]),
        ("--nproc 2 --way auto", ["--way", "netsim run cannot apply it", "use netsim simulate"]),
        ("--nproc 2 --protocol tcp", ["--protocol", "netsim run cannot apply it", "use netsim simulate"]),
        ("--nproc 2 --topology racks", ["topology 'racks'", "gtopk-hier", "use netsim simulate"]),
        ("--nproc 2 --algorithm gtopkk", ["'gtopkk'", "did you mean 'gtopk'?"]),
        ("--nproc 2 --density 2", ["density 2", "at most 1"]),
        ("--nproc 2 --timing-only", ["--timing-only"]),
        ("--nproc 2 --device cudaa", ["device 'cudaa'", "did you mean 'cuda'?"]),
        ("--nproc 2 --out /no/such/folder/report.json", ["/no/such/folder"]),
    ],
)
def test_run_refuses_before_it_starts_any_rank(
    capsys: pytest.CaptureFixture[str], options: str, said: list[str]
) -> None:
    message = refused(capsys, f"run {options}", 2)
    assert [part for part in said if part not in message] == []


@pytest.mark.usefixtures("no_ranks")
@pytest.mark.parametrize("options", ["--backend nccl", "--backend nccl --device cuda", "--device cuda"])
def test_run_refuses_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str], options: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    message = refused(capsys, f"run --nproc 2 {options}", 2)
    assert repr(options.split()[1]) in message
    assert re.search(r"use --(backend gloo|device cpu)", message)


@pytest.mark.usefixtures("no_ranks")
@pytest.mark.parametrize("command", ["simulate --workers", "run --nproc"])
def test_more_workers_than_samples_is_infeasible(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """There are 1797 digits, and every worker needs one of its own; ranks for all would exhaust the machine."""
    message = refused(capsys, f"{command} 1798", 3)
    assert "1798" in message
    assert "samples" in message


def test_so_many_workers_are_fine_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "simulate --workers 1798 --timing-only --elements 1000 --algorithm gtopk")
    assert (ran.code, ran.err) == (0, "")


def test_an_out_that_could_not_be_written_is_refused_before_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netsim.api.simulation.simulate_experiment", lambda *_: pytest.fail("it ran"))
    missing = tmp_path / "missing"
    assert repr(str(missing)) in refused(capsys, f"{TIMED} --out {missing / 'report.json'}", 2)
    assert repr(str(tmp_path)) in refused(capsys, f"{TIMED} --out {tmp_path}", 2)


@pytest.mark.parametrize("algorithm", ["dense", "gtopk"])
def test_a_gradient_that_is_not_finite_is_named(capsys: pytest.CaptureFixture[str], algorithm: str) -> None:
    """A step of 1e30 times a gradient overflows float32, whose largest is 3.4e38, within a product of two layers."""
    message = refused(capsys, f"simulate --workers 2 --rounds 5 --lr 1e30 --algorithm {algorithm}", 1)
    assert re.search(r"worker [01], step [1-4]: the gradient of [024]\.(weight|bias) is not finite", message)
    assert "--lr" in message


def test_a_loss_that_is_not_finite_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """After its only round the gradient was finite, but the parameters are past where a loss is."""
    ran = run(capsys, "simulate --workers 2 --rounds 1 --lr 1e30 --algorithm dense --json")
    assert "NaN" not in ran.out
    assert "Infinity" not in ran.out
    assert ran.code == 0 or (ran.code == 1 and re.fullmatch(r"netsim: [^\n]+\n", ran.err))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workerz": 3}, "did you mean 'workers'?"),
        ({"bandwith": "1Gbps"}, "did you mean 'bandwidth'?"),
        ({"algoritm": "dense"}, "did you mean 'algorithm'?"),
        ({"latncy": "50us"}, "did you mean 'latency'?"),
        ({"compute_tim": "5ms"}, "did you mean 'compute_time'?"),
        ({"way": "batched"}, "write --engine instead"),
        ({"gather": "bruck"}, "write it after the name: --algorithm topk:gather=bruck"),
        ({"algorithm": ["gtopk", "gtopk:residual=keep-at-merge"]}, "named twice, first as 'gtopk'"),
        ({"algorithm": "gtopkk"}, "did you mean 'gtopk'?"),
        ({"topology": "tre"}, "did you mean 'tree'?"),
        ({"bandwidth": "1Gpbs"}, "did you mean 'Gbps'?"),
        ({"bandwidth": float("nan")}, "bandwidth nan is not finite"),
        ({"bandwidth": True}, "bandwidth True"),
        ({"latency": -1}, "latency -1 must be more than zero"),
        ({"k": 11}, "k 11 is more than the 10"),
        ({"k": 1.0}, "k 1.0 must be a whole number"),
        ({"workers": 2.5}, "workers 2.5 must be a whole number"),
        ({"workers": "8"}, "workers '8' must be a whole number"),
        ({"workers": True}, "workers True must be a whole number"),
        ({"density": 1.5}, "density 1.5 must be"),
        ({"density": "0.1"}, "density '0.1' must be"),
        ({"lr": "0.1"}, "learning rate '0.1' must be"),
        ({"algorithm": []}, "no algorithm"),
        ({"algorithm": 5}, "algorithm"),
        ({"topology": ["star"]}, "topology"),
        ({"per_tensor": [0, 1]}, "per-tensor (0, 1) must be True or False"),
        ({"split": 5}, "split 5 must be a name"),
        ({"data": b"x"}, "data b'x' must be a name"),
        ({"sampling": 0.5}, "sampling 0.5 must be a name"),
        ({"workload": False}, "workload False must be a name"),
        ({"device": 10}, "device 10 must be a name"),
        ({"lr": 10**400}, "learning rate 1000"),
        ({"bandwidth_bps": float("inf")}, "bandwidth inf"),
        ({"compute_time_s": "1"}, "compute time '1' has no unit"),
        ({"latency": [1.0, 2.0]}, "latency (1.0, 2.0) is not a quantity"),
        ({"latency": np.array([1.0, 2.0])}, "latency (1.0, 2.0) is not a quantity"),
        ({"link_event": "a->b@1s=1e300Mbps"}, "link event 'a->b@1s=1e300Mbps': bandwidth"),
        ({"work_rates": 5}, "work_rates 5 must be"),
        ({"profile": {}}, "profile {} must be the name of a file"),
        ({"profile": "\0"}, r"profile '\x00' has a character"),
        ({"topology": "\ud800.json"}, r"topology '\ud800.json' has a character"),
        ({"topology": "wan:matrix=\0"}, r"latency matrix '\x00' cannot be read"),
        ({"background": "a\0"}, r"flows 'a\x00' cannot be read"),
    ],
    ids=repr,
)
def test_the_same_from_python(options: dict[str, Any], said: str) -> None:
    with pytest.raises(netsim.UsageError, match=re.escape(said)):
        netsim.simulate(**{"timing_only": True, "elements": 10} | options)


def test_calibrate_says_what_is_missing_before_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--bandwidth" in refused(capsys, "calibrate --local 17", 2)


def test_a_usage_error_is_also_pythons_own() -> None:
    assert issubclass(netsim.UsageError, ValueError)
    assert issubclass(netsim.UsageError, netsim.NetsimError)


@pytest.mark.parametrize("wrong", [{"history": 0}, {"delay": 0}, {"alpha": 0.0}, {"alpha": math.nan}])
@pytest.mark.parametrize("name", ["lag", "lasg-wk2", "lasg-ps", "sasg"])
def test_a_lazy_algorithm_made_by_hand_refuses_what_leaves_the_server_nothing_to_use(
    name: str, wrong: dict[str, float]
) -> None:
    (option,) = wrong
    with pytest.raises(
        UsageError, match=f"{option} .* must be (a whole number of at least 1|finite and more than zero)"
    ):
        build_algorithm(name, wrong | ({"selector": Selector(1)} if name == "sasg" else {}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": 1e-200, "decay": 1e-150, "decay_at": (3,)},
        {"learning_rate": 1e200, "decay": 1e150, "decay_at": (3,)},
    ],
)
def test_a_recipe_refuses_a_rate_that_is_or_becomes_useless(wrong: Any) -> None:
    """α_d = alpha / γ of the lazy rules divides by it."""
    with pytest.raises(UsageError, match=r"learning rate .* must stay finite and more than 0"):
        SGDConfig(**wrong)


@pytest.mark.parametrize(
    "given", ["--local ''", "--local ,", "--local 4 --bandwidth ,", "--local 4 --sizes , --algorithm none"]
)
def test_a_validation_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], given: str) -> None:
    assert re.search("nothing would be compared|sizes", refused(capsys, f"validate {given}", 2))


def test_a_line_separator_in_a_name_makes_no_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(refused(capsys, "calibrate 'a\u2028b'", 2).splitlines()) == 1
