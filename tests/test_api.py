"""netsim from Python: what comes back, and what is refused."""

from __future__ import annotations

import enum
import inspect
import json
import re
import shlex
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import netsim
from algorithms import ALGORITHMS
from netsim.cli.main import main
from netsim.experiment.configuration import Experiment
from netsim.experiment.profile import save_profile
from tests.test_calibration import profile

SMALL: dict[str, Any] = {"timing_only": True, "elements": 1000, "workers": 4, "k": 10}
DENSE = ["dense", "dense-tree", "ps"]
SPARSE = ["topk", "gtopk"]


@pytest.fixture
def report() -> netsim.Report:
    return netsim.simulate(**SMALL, algorithm="dense,gtopk")


def test_results_are_read_by_attribute_and_by_key(report: netsim.Report) -> None:
    dense, gtopk = report.results
    assert (dense.algorithm, gtopk["algorithm"]) == ("dense", "gtopk")
    assert (dense.k, gtopk["k"]) == (None, 10)
    for result in report.results:
        assert result.workers == result["workers"] == 4
        assert result.round_time_s == result["round_time_s"] > 0
    for wrong in ("round_time", "__class__", "to_json"):
        with pytest.raises(KeyError, match=wrong):
            dense[wrong]


def test_json_dict_and_table_say_the_same(report: netsim.Report) -> None:
    parsed = json.loads(report.to_json())
    assert parsed == report.to_dict()
    assert parsed["schema"].startswith("netsim.report/")
    table = report.to_pandas()
    assert list(table["algorithm"]) == ["dense", "gtopk"]
    assert list(table.columns) == [name for name in parsed["results"][0] if name != "paper_accounting"]
    assert list(table["round_time_s"]) == [result["round_time_s"] for result in parsed["results"]]


def test_a_config_of_an_earlier_version_is_read() -> None:
    """Options of single algorithms stood beside their names, and some values had other names."""
    names = ["gtopk", "topk", "sasg:history=3"]
    found = Experiment.from_config(
        {"algorithms": names, "residual": "index-intersection", "gather": "ring", "history": 5, "delay": None,
         "sends": "acknowledged", "placement": "given"}
    )  # fmt: skip
    assert found.algorithms == ("gtopk:residual=index-intersection", "topk", "sasg:history=3")
    assert (found.sends, found.placement) == ("rendezvous", "rank-order")
    assert Experiment.of(**found.config()) == Experiment.from_config(found.config())
    assert found.config()["residual"] == "index-intersection"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_takes_the_options_that_it_declares(name: str) -> None:
    """Its constructor has the same defaults."""
    parameters = inspect.signature(ALGORITHMS[name]).parameters
    for option in ALGORITHMS[name].options:
        if option.name != "group_size":  # which decides the groups
            assert parameters[option.name].default == option.default


def test_python_and_the_command_line_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """Also that a quantity may be text or a number in SI units, and algorithms a list or text."""
    arguments = "--workers 4 --bandwidth 25MB/s --latency 50us --algorithm ps,topk:gather=bruck --compute-time 2ms"
    assert main(shlex.split(f"simulate --timing-only --elements 1000 --k 10 --json {arguments}")) == 0
    shown = capsys.readouterr().out
    options = SMALL
    as_text = {"bandwidth": "25MB/s", "latency": "50us", "algorithm": "ps,topk:gather=bruck", "compute_time": "2ms"}
    as_numbers = {
        "bandwidth": 200e6,
        "latency": 50e-6,
        "algorithm": ["ps", "topk:gather=bruck"],
        "compute_time": 0.002,
    }
    assert netsim.simulate(**options, **as_text).to_json() == shown.rstrip("\n")
    assert netsim.simulate(**options, **as_numbers).to_json() == shown.rstrip("\n")


@pytest.mark.parametrize(("engine", "steps"), [("event", [0, 1, 2]), ("auto", [2])])
def test_progress_is_told_of_every_round_that_is_simulated(engine: str, steps: list[int]) -> None:
    """Where a step is solved once, all rounds are over at once."""
    told: list[tuple[str, int]] = []
    netsim.simulate(
        **SMALL,
        algorithm="dense,gtopk",
        rounds=3,
        engine=engine,
        on_round=lambda algorithm, step: told.append((algorithm, step)),
    )
    assert told == [(algorithm, step) for algorithm in ("dense", "gtopk") for step in steps]


def test_density_rounds_down_but_not_to_nothing() -> None:
    """0.29 · 100 is 28.999999999999996 in binary and 29 to people."""
    selected = {density: _k_of(density, 100) for density in (0.29, 0.295, 0.001, 1.0)}
    assert selected == {0.29: 29, 0.295: 29, 0.001: 1, 1.0: 100}


def _k_of(density: float, elements: int) -> int | None:
    report = netsim.simulate(timing_only=True, elements=elements, workers=2, algorithm="topk", density=density)
    return report.results[0].k


def test_the_package_lists_what_it_has() -> None:
    assert {"simulate", "run", "exchange", "UsageError", "NetsimError", "Report", "__version__"} <= set(dir(netsim))
    for name in dir(netsim):
        assert getattr(netsim, name) is not None
    with pytest.raises(AttributeError, match="simulat"):
        _ = netsim.simulat


TWO = np.array([[5, 0, 3, 1], [0, 4, -2, 1]], np.float32)
"""With k = 2 the ranks select {0: 5, 2: 3} and {1: 4, 2: -2}, whose sum is {0: 5, 1: 4, 2: 1}."""


@pytest.mark.parametrize(
    ("algorithm", "options", "aggregated", "residuals"),
    [
        ("topk", {}, [5, 4, 1, 0], [[0, 0, 0, 1], [0, 0, 0, 1]]),
        ("topk", {"gather": "bruck"}, [5, 4, 1, 0], [[0, 0, 0, 1], [0, 0, 0, 1]]),
        ("gtopk", {}, [5, 4, 0, 0], [[0, 0, 1, 1], [0, 0, 0, 1]]),
        ("gtopk", {"residual": "index-intersection"}, [5, 4, 0, 0], [[0, 0, 3, 1], [0, 0, -2, 1]]),
    ],
)
def test_an_exchange_worked_by_hand(
    algorithm: str, options: dict[str, str], aggregated: list[int], residuals: list[list[int]]
) -> None:
    done = netsim.exchange(algorithm, TWO, k=2, **options)
    assert done.aggregated.tolist() == aggregated
    assert done.residuals.tolist() == residuals
    assert done.bytes_sent == done.bytes_received == [16, 16]


@pytest.mark.parametrize("algorithm", DENSE)
def test_dense_exchanges_hold_nothing_back(algorithm: str) -> None:
    aggregated, residuals, sent, received = netsim.exchange(algorithm, TWO)
    assert aggregated.tolist() == [5, 4, 1, 2]
    assert residuals.tolist() == [[0] * 4] * 2
    # Whatever the algorithm, of two ranks each sends the other 4 values of 4 bytes.
    assert sent == received == [16, 16]


def test_bytes_of_a_tree_of_four() -> None:
    """Up go 1→0, 3→2 and then 2→0, down 0→2 and then 0→1 and 2→3: three values and three indices each."""
    done = netsim.exchange("gtopk", np.eye(4, 12, dtype=np.float32) + 1, k=3)
    assert done.bytes_sent == [48, 24, 48, 24]
    assert done.bytes_received == [48, 24, 48, 24]


@pytest.mark.parametrize(
    "vectors",
    [
        torch.from_numpy(TWO),
        torch.from_numpy(TWO).double(),
        torch.from_numpy(TWO).requires_grad_(),
        TWO.astype(np.float64),
        np.asfortranarray(TWO),
        np.repeat(TWO, 2, axis=1)[:, ::2],
        TWO[::-1].copy()[::-1],
        np.broadcast_to(TWO, (1, 2, 4))[0],
    ],
    ids=["torch", "double", "grad", "float64", "fortran", "strided", "reversed", "read-only"],
)
def test_vectors_of_any_kind_and_layout(vectors: torch.Tensor | np.ndarray) -> None:
    done = netsim.exchange("gtopk", vectors, k=2)
    assert done.aggregated.tolist() == [5, 4, 0, 0]
    assert done.residuals.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    assert not done.aggregated.requires_grad


@pytest.mark.parametrize("algorithm", [*DENSE, *SPARSE])
def test_one_rank_exchanges_nothing(algorithm: str) -> None:
    done = netsim.exchange(algorithm, TWO[:1], k=2 if algorithm in SPARSE else None)
    assert (done.bytes_sent, done.bytes_received) == ([0], [0])
    assert (done.aggregated + done.residuals[0]).tolist() == [5, 0, 3, 1]


def with_value(value: float) -> np.ndarray:
    vectors = TWO.copy()
    vectors[1, 2] = value
    return vectors


@pytest.mark.parametrize(
    ("algorithm", "vectors", "options", "said"),
    [
        ("gtopk", TWO, {}, "gtopk needs k"),
        ("topk", TWO, {}, "topk needs k"),
        ("gtopk", TWO, {"k": 5}, "k 5 is more than the 4 elements"),
        ("gtopk", TWO, {"k": 0}, "k 0 must be a whole number of at least 1"),
        ("gtopk", TWO, {"k": 2.0}, "k 2.0 must be a whole number"),
        ("gtopk", TWO, {"k": True}, "k True must be a whole number"),
        ("gtopkk", TWO, {"k": 2}, "unknown algorithm 'gtopkk' (did you mean 'gtopk'?)"),
        ("gtopk", TWO, {"k": 2, "residul": "keep-at-merge"}, "did you mean 'residual'?"),
        ("gtopk", TWO, {"k": 2, "gather": "ring"}, "'gather'"),
        ("topk", TWO, {"k": 2, "residual": "keep-at-merge"}, "'residual'"),
        ("dense", TWO, {"gather": "ring"}, "'gather'"),
        ("gtopk", TWO, {"k": 2, "residual": "keep-at-merg"}, "did you mean 'keep-at-merge'?"),
        ("topk", TWO, {"k": 2, "gather": "bruk"}, "did you mean 'bruck'?"),
        ("dense", with_value(float("nan")), {}, "NaN or infinity"),
        ("gtopk", with_value(float("-inf")), {"k": 2}, "NaN or infinity"),
        ("dense", TWO[0], {}, "shape (4,)"),
        ("dense", TWO[None], {}, "shape (1, 2, 4)"),
        ("dense", TWO[:0], {}, "shape (0, 4)"),
        ("dense", TWO[:, :0], {}, "shape (2, 0)"),
        ("dense", TWO.astype(np.int32), {}, "must be floating-point"),
        ("dense", TWO.astype(np.complex64), {}, "must be floating-point"),
        ("dense", "vectors", {}, "vectors"),
        ("dense", TWO, {"k": 2}, "k 2 was given, but dense exchanges every entry"),
        (["dense"], TWO, {}, "algorithm ('dense',) must be a name"),
        pytest.param(10**5000, TWO, {}, "algorithm of more digits", id="huge"),
        ("gtopk", TWO, {"k": 10**5000}, "k has more digits"),
        ("gtopk", TWO, {"k": 2, "residual": 10**5000}, "residual has more digits"),
        ("lag", TWO, {"history": "10"}, "history '10' must be a whole number"),
        ("lag", TWO, {"alpha": float("nan")}, "alpha nan must be"),
        ("ps", TWO, {"serial_server": "false"}, "serial-server 'false' must be True or False"),
        ("randk", TWO, {"k": 2, "seed": -1}, "seed -1 must be a whole number"),
        ("topk", TWO, {"k": 2, "selector": 3}, "selector 3 was given"),
        ("gtopk", TWO, {"k": 2, "momentum_correction": 2.0}, "momentum 2.0 must be"),
        ("gtopk-hier", TWO, {"k": 2, "groups": [0]}, "groups (0,) must be the number of each rank's group, 2"),
        ("dense", [[1.0, 2.0], [3.0]], {}, "vectors"),
    ],
)
def test_exchanges_that_are_refused(algorithm: str, vectors: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(netsim.UsageError, match=re.escape(said)):
        netsim.exchange(algorithm, vectors, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resume": "false"}, "resume 'false' must be True or False"),
        ({"resume": np.zeros(2)}, "resume (0.0, 0.0) must be True or False"),
        ({"timing_only": "false"}, "timing-only 'false' must be True or False"),
        ({"on_round": 3}, "on_round 3 must be a function"),
        ({"metrics": 10**5000}, "metrics of more digits than can be written must be the path of a file"),
        ({"compute_time_s": 10**5000}, "compute-time has more digits than can be written"),
        ({"straggler": 10**5000}, "straggler has more digits"),
        ({"checkpoint_every": 10**5000}, "checkpoint-every of more digits than can be written was given without"),
    ],
)
def test_a_switch_a_function_or_a_number_of_another_kind_is_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(netsim.UsageError, match=re.escape(said)):
        netsim.simulate(**{"workers": 2, "timing_only": True, "elements": 10, **options})


CONFIGS: list[dict[str, Any]] = [
    {},
    {"bandwidth": "3Mbps", "latency": "7us", "compute_time": "2ms", "select_time": 0, "algorithm": "gtopk"},
    {"protocol": "tcp", "compute_jitter": "lognormal:0.2", "link_event": "worker1->switch@1us=1Mbps", "rounds": 2},
    {"topology": "tree", "fan_out": 2, "lr_decay_at": "3,4", "sharing": "rtt", "seed": 7},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_the_config_of_a_report_gives_the_same_report(options: dict[str, Any]) -> None:
    """As it is, and after a trip through JSON; an option beside it changes it."""
    first = netsim.simulate(**SMALL, **options)
    assert netsim.simulate(**first.config).to_json() == first.to_json()
    assert netsim.simulate(**json.loads(first.to_json())["config"]).to_json() == first.to_json()
    changed = netsim.simulate(**first.config, message_overhead="1ms")
    assert changed.config["effects"] == first.config["effects"] | {"message_overhead_s": 0.001}


def test_the_config_of_a_run_with_a_profile_gives_the_same_report(tmp_path: Path) -> None:
    """It has what the profile decided; the file may be gone."""
    save_profile(profile(), tmp_path / "p.toml")
    first = netsim.simulate(**SMALL, profile=tmp_path / "p.toml")
    (tmp_path / "p.toml").unlink()
    assert netsim.simulate(**first.config).to_json() == first.to_json()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"effects": 5}, "effects 5"),
        ({"effects": {"protocl": "tcp"}}, "did you mean 'protocol'?"),
        ({"effects": {"byte_cost_s": "x"}}, "byte-cost"),
        ({"work_rates": 5}, "work_rates 5"),
        ({"work_rates": [["a", 1, 2]]}, "work_rates"),
        ({"work_rates": [["a", 1, 2, float("nan")]]}, "work_rates"),
        ({"bandwidth_bps": -1}, "bandwidth -1"),
        ({"bandwidth_bps": 1, "bandwidth": 1}, "give one"),
        ({"latency_s": "soon"}, "latency 'soon'"),
    ],
    ids=str,
)
def test_a_config_that_was_changed_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(netsim.UsageError, match=re.escape(said)):
        netsim.simulate(**SMALL, **config)


class Name(str, enum.Enum):  # noqa: UP042  # as people have them; str() of it is not what it holds
    DENSE = "dense"


EQUAL: list[tuple[str, Any, Any]] = [
    ("workers", np.int64(3), 3),
    ("workers", np.array(3), 3),
    ("workers", np.array([3]), 3),
    ("workers", torch.tensor(3), 3),
    ("seed", np.uint8(3), 3),
    ("bandwidth", np.float64(3e6), 3e6),
    ("bandwidth", np.int32(3_000_000), 3e6),
    ("bandwidth", Fraction(6_000_000, 2), 3e6),
    ("latency", np.float32(0.5), 0.5),
    ("compute_time", np.array([0.25]), 0.25),
    ("density", np.float64(0.25), 0.25),
    ("density", Fraction(1, 4), 0.25),
    ("density", Decimal("0.25"), 0.25),
    ("density", torch.tensor([0.25]), 0.25),
    ("lr", np.float16(0.5), 0.5),
    ("per_tensor", np.bool_(False), False),
    ("algorithm", np.str_("dense"), "dense"),
    ("algorithm", Name.DENSE, "dense"),
    ("algorithm", np.array(["dense", "ps"]), "dense,ps"),
    ("lr_decay_at", np.array([1, 2]), "1,2"),
    ("background", np.float64(0.01), 0.01),
    ("data_dir", Path("here"), "here"),
]


@pytest.mark.parametrize(("name", "given", "equal"), EQUAL, ids=str)
def test_numbers_of_other_libraries_are_numbers(name: str, given: Any, equal: Any) -> None:
    small = {key: value for key, value in SMALL.items() if key not in (name, "k")}
    assert netsim.simulate(**small, **{name: given}).to_json() == netsim.simulate(**small, **{name: equal}).to_json()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("workers", np.bool_(True)), ("workers", np.float64(3.0)), ("workers", np.array([3, 4])),
        ("workers", Fraction(7, 2)), ("workers", Decimal("NaN")), ("density", Fraction(10**400)),
        ("density", np.float64("nan")), ("bandwidth", np.array([])), ("lr", Decimal("1e999")), ("lr", 1j),
        ("algorithm", np.array([1, 2])), ("topology", Path("no/such.json")), ("topology", {"name": "star"}),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_such_number_is_refused(name: str, given: Any) -> None:
    small = {key: value for key, value in SMALL.items() if key not in (name, "k")}
    with pytest.raises(netsim.UsageError, match=rf"^[^\n]*{name if name != 'lr' else 'learning rate'}"):
        netsim.simulate(**small, **{name: given})


@pytest.mark.parametrize("name", ["metrics", "trace", "checkpoint"])
@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300, 5, b"x", ".", "no/such/folder/x"])
def test_files_are_checked_before_the_run(name: str, path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsim.api.simulation.simulate_experiment", lambda *_: pytest.fail("it ran"))
    with pytest.raises(netsim.UsageError, match=rf"^{name} [^\n]+$"):
        netsim.simulate(**SMALL, **{name: path})


def test_one_exchange_takes_such_numbers_too() -> None:
    vectors = np.eye(4)
    assert torch.equal(
        netsim.exchange("gtopk", vectors, np.int64(2)).aggregated, netsim.exchange("gtopk", vectors, 2).aggregated
    )
